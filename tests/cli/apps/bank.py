"""A user's application, which `eventfold state bank.db bank:Account a-1` imports."""

from __future__ import annotations

from decimal import Decimal

import eventfold as ef


class Opened(ef.Event):
    account: ef.Tag
    owner: str = ""


class Deposited(ef.Event):
    account: ef.Tag
    amount: Decimal


class Withdrawn(ef.Event):
    account: ef.Tag
    amount: Decimal


class Account(ef.State):
    account: ef.Tag
    owner: str = ""
    balance: Decimal = Decimal(0)

    def evolve(self, event: Opened | Deposited | Withdrawn) -> None:
        match event:
            case Opened():
                self.owner = event.owner
            case Deposited():
                self.balance += event.amount
            case Withdrawn():
                self.balance -= event.amount


class Balance(ef.Projection):
    account: str
    balance: Decimal = Decimal(0)

    def evolve(self, event: Deposited | Withdrawn) -> None:
        self.balance += event.amount if isinstance(event, Deposited) else -event.amount


class Several(ef.State):
    """Of some accounts: how much moved, by account; asked by a tuple and a number."""

    account: tuple[str, ...]
    least: int
    moved: dict[str, Decimal] = {}

    def query(self) -> ef.Query:
        query = ef.Query.of(types=[Deposited], tags=[f"account:{self.account[0]}"])
        for each in self.account[1:]:
            query |= ef.Query.of(types=[Deposited], tags=[f"account:{each}"])
        return query

    def evolve(self, event: Deposited) -> None:
        if event.amount >= self.least:
            self.moved[event.account] = self.moved.get(event.account, Decimal(0)) + event.amount


class Careless(ef.State):
    account: ef.Tag
    owner: str = ""

    def evolve(self, event: Opened) -> None:
        self.owner = {"Ann": "Ann"}[event.owner]
