"""The events and the State of the suite. Type names start with `conformance`, so that no user class has the same.

Knows: event classes and one State. Does not know: stores.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import eventfold as ef


class Opened(ef.Event, type="conformance.opened"):
    """An account was opened."""

    account: ef.Tag
    owner: ef.Tag


class Deposited(ef.Event, type="conformance.deposited"):
    """Money came in."""

    account: ef.Tag
    amount: Decimal


class Withdrawn(ef.Event, type="conformance.withdrawn"):
    """Money went out."""

    account: ef.Tag
    amount: Decimal


class Noted(ef.Event, type="conformance.noted"):
    """An event without tags."""

    text: str = ""


class Moved(ef.Event, type="conformance.moved", version=3):
    """Money went from one account to another: an event with two tags of one key, in version 3."""

    source: Annotated[str, ef.tag("account")]
    target: Annotated[str, ef.tag("account")]
    amount: Decimal


class Account(ef.State):
    """The balance of an account, its owners and its transactions."""

    account: ef.Tag
    balance: Decimal = Decimal(0)
    owners: tuple[str, ...] = ()
    amounts: list[Decimal] = []
    by_kind: dict[str, list[Decimal]] = {}

    def evolve(self, event: Opened | Deposited | Withdrawn) -> None:
        """Fold one event."""
        match event:
            case Opened():
                self.owners += (event.owner,)
            case Deposited():
                self._move("in", event.amount)
            case Withdrawn():
                self._move("out", -event.amount)

    def _move(self, kind: str, amount: Decimal) -> None:
        self.balance += amount
        self.amounts.append(amount)
        self.by_kind.setdefault(kind, []).append(abs(amount))


class TooLittle(Exception):
    """A domain error, which is not an error of the library."""


def withdraw(account: Account, amount: Decimal) -> list[ef.Event]:
    """A decision: a withdrawal needs a sufficient balance."""
    if account.balance < amount:
        raise TooLittle(account.account)
    return [Withdrawn(account.account, amount)]


def transfer(source: Account, target: Account, amount: Decimal) -> list[ef.Event]:
    """A decision over two states."""
    return [*withdraw(source, amount), Deposited(target.account, amount)]


def deposit(account: str = "a-1", amount: int | str = 1) -> Deposited:
    """A deposit, with defaults."""
    return Deposited(account, Decimal(amount))


def deposits(count: int, account: str = "a-1", start: int = 1) -> list[Deposited]:
    """Events with different amounts: start, start + 1, …"""
    return [deposit(account, start + n) for n in range(count)]


def draft(event: Any, number: int, **more: Any) -> ef.Draft:
    """A draft of the event, with an id that is made from `number`."""
    return ef.Draft(event, id=UUID(int=(0x0190 << 112) | (7 << 76) | (2 << 62) | number), **more)


def about(account: str) -> ef.Query:
    """The query for all events of an account."""
    return ef.Query.of(tags=f"account:{account}")


def amounts(events: Any) -> list[int]:
    """The amounts of recorded deposits and withdrawals, in their order."""
    return [int(recorded.event.amount) for recorded in events]


def positions(events: Any) -> list[int]:
    """The positions of recorded events, in their order."""
    return [recorded.position for recorded in events]
