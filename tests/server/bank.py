"""An application whose classes a server registers: events, a State, a read model, a process and an effect."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import eventfold as ef
from eventfold.processes import after


class Opened(ef.Event, type="bank.opened"):
    """An account was opened."""

    account: ef.Tag
    owner: str = ""


class Deposited(ef.Event, type="bank.paid-in"):
    """Money was paid in."""

    account: ef.Tag
    amount: Decimal


class Account(ef.State):
    """The owner and the balance of one account."""

    account: ef.Tag
    owner: str = ""
    balance: Decimal = Decimal(0)

    def evolve(self, event: Opened | Deposited) -> None:
        match event:
            case Opened():
                self.owner = event.owner
            case Deposited():
                self.balance += event.amount


class Several(ef.State):
    """How much moved between two moments, by account: its question has several values, and names of parameters."""

    account: tuple[str, ...]
    limit: int
    moved: dict[str, Decimal] = {}

    def query(self) -> ef.Query:
        query = ef.Query.of(types=[Deposited], tags=[f"account:{self.account[0]}"])
        for each in self.account[1:]:
            query |= ef.Query.of(types=[Deposited], tags=[f"account:{each}"])
        return query

    def evolve(self, event: Deposited) -> None:
        if event.amount >= self.limit:
            self.moved[event.account] = self.moved.get(event.account, Decimal(0)) + event.amount


class Balance(ef.Projection, name="bank_balance", on_error="park", attempts=1):
    """The balance of each account. It fails at a deposit of 13."""

    account: str
    balance: Decimal = Decimal(0)
    deposits: int = 0

    def evolve(self, event: Deposited) -> None:
        if event.amount == 13:
            raise ValueError("thirteen")
        self.balance += event.amount
        self.deposits += 1


class Reviewed(ef.Event, type="bank.reviewed"):
    """The account was looked at."""

    account: ef.Tag


class Review(ef.Process, name="bank_review", start="beginning", attempts=1):
    """Looks at each new account after a day; one without an owner fails."""

    account: ef.Tag
    reviewed: bool = False

    def evolve(self, event: Opened | Reviewed) -> None:
        self.reviewed = isinstance(event, Reviewed)

    def react(self, event: Opened) -> Iterator[object]:
        if not event.owner:
            raise ValueError("it has no owner")
        yield after(Reviewed(self.account), days=1)

    def done(self) -> bool:
        return self.reviewed
