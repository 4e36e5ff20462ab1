"""Events, states, read models, processes and effects that are traced."""

from __future__ import annotations

from typing import Any

import eventfold as ef
from eventfold.processes import after, decide, effect


class Opened(ef.Event, type="TracedAccountOpened"):
    """An account was opened."""

    account: ef.Tag


class Paid(ef.Event, type="TracedPaid"):
    """Money was paid into an account."""

    account: ef.Tag
    amount: int


class Reminded(ef.Event, type="TracedReminded"):
    """The owner of an account was reminded."""

    account: ef.Tag


class Account(ef.State):
    """The balance of an account."""

    account: ef.Tag
    total: int = 0

    def evolve(self, event: Paid) -> None:
        """Add the amount."""
        self.total += event.amount


class Totals(ef.Projection, name="traced_totals"):
    """The balance of every account."""

    account: str
    total: int = 0

    def evolve(self, event: Paid) -> None:
        """Add the amount."""
        self.total += event.amount


class Bonus(ef.Process, name="traced_bonus", start="beginning"):
    """Pays a bonus into each account that is opened, and reminds its owner later."""

    account: ef.Tag
    opened: bool = False

    def evolve(self, event: Opened) -> None:
        """Note that it is open."""
        self.opened = True

    def react(self, event: Opened) -> Any:
        """Pay, and remind in an hour."""
        return [decide(pay, Account(self.account), 5), after(Reminded(account=self.account), hours=1)]


def pay(account: Account, amount: int) -> Paid:
    """Pay an amount, however much there is."""
    return Paid(account=account.account, amount=amount)


class Refused(Exception):
    """The decision refuses."""


def refuse(account: Account) -> None:
    """Refuse."""
    raise Refused(f"{account.account} is secret")


mailed: list[str] = []


@effect(start="beginning", name="traced_mail", first_delay=0.01)
def mail(event: Reminded) -> None:
    """Note the account."""
    mailed.append(event.account)
