"""User code as type checkers see it: the bank of the tutorial, plainly typed, and the mistakes they must catch.

Checked, never imported. An `assert_type` says what a user sees when hovering; an ignored line is a mistake that
has to be reported: where it is not, the unused ignore is an error itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, assert_type
from uuid import UUID

import eventfold as ef

AccountId = Annotated[str, ef.tag("account")]


class MoneyDeposited(ef.Event):
    """Tag fields are plain strings to a reader."""

    account: ef.Tag
    amount: Decimal


class MoneyWithdrawn(ef.Event, version=2, aliases=("Withdrawn",)):
    """Class keywords are known."""

    account: ef.Tag
    amount: Decimal


class CardIssued(ef.Event, type="card-issued"):
    """Tags of other types, and of another key, keep their types."""

    account: AccountId
    card: ef.Tag[UUID]
    labels: ef.Tag[tuple[str, ...]] = ()


@ef.event("parcel-sent", version=3)
@dataclass(frozen=True)
class ParcelSent:
    """A decorated class stays what it is."""

    parcel: ef.Tag


class Account(ef.State):
    """A question and its answer."""

    account: ef.Tag
    balance: Decimal = Decimal(0)

    def evolve(self, event: MoneyDeposited | MoneyWithdrawn) -> None:
        """Exhaustive matching works on events."""
        match event:
            case MoneyDeposited():
                self.balance += event.amount
            case MoneyWithdrawn():
                self.balance -= event.amount


def transfer(source: Account, target: Account, amount: Decimal) -> list[ef.Event]:
    """A decision is a plain function."""
    if source.balance < amount:
        raise ValueError("insufficient funds")
    return [MoneyWithdrawn(source.account, amount), MoneyDeposited(target.account, amount)]


def generated(source: Account) -> Iterator[ef.Event]:
    """A decision may be a generator."""
    yield MoneyDeposited(source.account, Decimal(1))


def use(store: ef.Store, card: UUID) -> None:
    """What hovering shows."""
    assert_type(store.state(Account("a-1")), Account)
    assert_type(store.state(Account("a-1"), at=1).balance, Decimal)
    assert_type(CardIssued("a-1", card).card, UUID)
    assert_type(MoneyDeposited("a-1", Decimal(1)).account, str)
    assert_type(ParcelSent("p-1").parcel, str)
    assert_type(store.head(), int)
    store.append(MoneyDeposited("a-1", Decimal(80)), ParcelSent("p-1"))
    store.decide(transfer, Account("a-1"), Account("a-2"), amount=Decimal(50))
    store.using(actor="teller-7").decide(generated, Account("a-1"))
    for recorded in store.read(ef.Query.of(tags=["account:a-1"])):
        assert_type(recorded.position, int)


async def use_async(store: ef.AsyncStore) -> None:
    """The twin, awaited."""
    assert_type(await store.state(Account("a-1")), Account)
    await store.decide(transfer, Account("a-1"), Account("a-2"), amount=Decimal(50))
    async for recorded in store.read():
        assert_type(recorded.position, int)


def mistakes(store: ef.Store, account: Account, event: MoneyDeposited) -> None:
    """Each of these lines is wrong, and both checkers say so."""
    Account()  # type: ignore
    MoneyDeposited("a-1")  # type: ignore
    MoneyDeposited("a-1", "80")  # type: ignore
    event.amount = Decimal(1)  # type: ignore
    account.balanec = Decimal(1)  # type: ignore
    store.decide(transfer, account, amount=Decimal(50))  # type: ignore
    store.decide(transfer, account, account, amount="50")  # type: ignore
    store.state(at=1)  # type: ignore


class Statement(ef.State):
    """A state whose evolve is given the envelope as well."""

    account: ef.Tag
    last: datetime | None = None
    actors: list[str | None] = []

    def evolve(self, event: MoneyDeposited | MoneyWithdrawn, recorded: ef.Recorded) -> None:
        """When, and by whom."""
        assert_type(recorded.position, int)
        self.last = recorded.occurred or recorded.time
        self.actors.append(recorded.metadata.actor)


class Precise(ef.State):
    """The envelope may be typed by its event."""

    account: ef.Tag
    last: int = 0

    def evolve(self, event: MoneyDeposited, recorded: ef.Recorded[MoneyDeposited]) -> None:
        """The event is the same."""
        assert_type(recorded.event, MoneyDeposited)
        self.last = recorded.position


class Card(ef.Aggregate):
    """An aggregate with the envelope."""

    account: ef.Tag
    last: int = 0

    def issue(self, event: MoneyDeposited) -> None:
        """Record one."""
        self.record(event)

    def evolve(self, event: MoneyDeposited, recorded: ef.Recorded) -> None:
        """Where it stands."""
        self.last = recorded.position


class Lines(ef.Projection):
    """A read model with the envelope."""

    account: str
    last: int = 0

    def evolve(self, event: MoneyDeposited, recorded: ef.Recorded) -> None:
        """Where it stands."""
        self.last = recorded.position


def encoded(store: ef.Store) -> None:
    """The methods that adapters use are typed."""
    new = ef.NewEvent.of("MoneyDeposited", b"{}", tags=["account:a-1"])
    assert_type(store.append_encoded(new).last, int)
    assert_type(store.tag("account:a-1").last, int)
    store.append_encoded(b"{}")  # type: ignore[arg-type]
    found = store.event(UUID(int=1))
    int(found.position)  # type: ignore[union-attr]
