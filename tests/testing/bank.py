"""The bank of the documentation, as functions and as an aggregate."""

from __future__ import annotations

from decimal import Decimal

import eventfold as ef


class Deposited(ef.Event, type="kit-deposited"):
    """Money came in."""

    account: ef.Tag
    amount: Decimal


class Withdrawn(ef.Event, type="kit-withdrawn"):
    """Money went out."""

    account: ef.Tag
    amount: Decimal


class Poor(Exception):
    """Not enough money."""


class Account(ef.Aggregate):
    """An account as an aggregate."""

    account: ef.Tag
    balance: Decimal = Decimal(0)
    seen: list[str] = []

    def withdraw(self, amount: Decimal) -> None:
        """Record a withdrawal if the balance suffices."""
        if self.balance < amount:
            raise Poor(self.account)
        self.record(Withdrawn(self.account, amount))

    def evolve(self, event: Deposited | Withdrawn) -> None:
        """Fold one event."""
        self.balance += event.amount if isinstance(event, Deposited) else -event.amount
        self.seen.append(type(event).__name__)


def transfer(source: Account, target: Account, amount: Decimal) -> list[ef.Event]:
    """The same rule as a function."""
    if source.balance < amount:
        raise Poor(source.account)
    return [Withdrawn(source.account, amount), Deposited(target.account, amount)]
