"""An application whose classes a server registers: events, a State, a read model, a process and an effect."""

from __future__ import annotations

from decimal import Decimal

import eventfold as ef


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


class Balance(ef.Projection):
    """The balance of each account."""

    account: str
    balance: Decimal = Decimal(0)
    deposits: int = 0

    def evolve(self, event: Deposited) -> None:
        self.balance += event.amount
        self.deposits += 1
