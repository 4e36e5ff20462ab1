"""Classes made in a function, as tests do, are freed after use with all that their methods enclose."""

from __future__ import annotations

import asyncio
import gc
import time
import types
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import pydantic
import pytest

import eventfold as ef
from eventfold.processes import effect
from eventfold.testing import given

PATIENCE_S = 20  # what has finalizers takes several rounds of the collector, and a thread may still be ending


class Large:
    """An object of a function that must not outlive it."""


def is_freed(found: weakref.ref[Any]) -> bool:
    """Return whether it is collected by the garbage collector."""
    ends = time.monotonic() + PATIENCE_S
    while found() is not None and time.monotonic() < ends:
        gc.collect()
        time.sleep(0.001)
    return found() is None


def write_read_and_run(url: str) -> dict[str, weakref.ref[Any]]:
    """Use classes of every kind in every way; all of them must be freed when this returns."""
    large = Large()

    def by_rule(number: int) -> int:
        return number if large else 0

    class Moved(ef.Event, type="lifetimes.moved"):
        account: ef.Tag
        n: int = 0

    @ef.event("lifetimes.sent")
    @dataclass(frozen=True)
    class Sent:
        account: ef.Tag
        amount: Decimal = Decimal(1)

    @ef.event("lifetimes.returned")
    @attrs.frozen
    class Returned:
        account: ef.Tag

    @ef.event("lifetimes.kept")
    class Kept(pydantic.BaseModel):
        account: ef.Tag

    class Priced(ef.Event, type="lifetimes.priced"):
        account: ef.Tag

    class PricedIn(ef.Event, type="lifetimes.priced", version=2):
        account: ef.Tag
        currency: str

    @ef.upcast
    def with_currency(old: Priced) -> PricedIn:
        return PricedIn(old.account, "EUR")

    class Account(ef.State):
        account: ef.Tag
        n: int = 0

        def evolve(self, event: Moved | Sent | Returned | Kept | PricedIn) -> None:
            self.n += by_rule(1)

    class Owner(ef.Aggregate):
        account: ef.Tag
        n: int = 0

        def move(self) -> None:
            self.record(Moved(self.account, by_rule(1)))

        def evolve(self, event: Moved, recorded: ef.Recorded[Moved]) -> None:
            self.n += 1

    class Moves(ef.Projection, name="lifetimes_moves"):
        account: str
        n: int = 0

        def evolve(self, event: Moved) -> None:
            self.n += by_rule(1)

    class MovesInSql(ef.SqlProjection, name="lifetimes_moves_in_sql"):
        tables = {"lifetimes_moved": "account TEXT"}

        def moved(self, event: Moved, tx: ef.Transaction) -> None:
            tx.execute("INSERT INTO {lifetimes_moved} VALUES (?)", (event.account * by_rule(1),))

    class Reminders(ef.Subscription, start="beginning", name="lifetimes_reminders"):
        def moved(self, event: Moved) -> None:
            by_rule(1)

    class Payment(ef.Process, start="beginning", name="lifetimes_payment"):
        account: ef.Tag
        n: int = 0

        def evolve(self, event: Sent) -> None:
            self.n += by_rule(1)

        def react(self, event: Sent) -> Any:
            yield Moved(self.account, 9)

    @effect(start="beginning", name="lifetimes_mail")
    def mail(event: Moved) -> None:
        by_rule(1)

    def decide(account: Account) -> list[Moved]:
        return [Moved(account.account)]

    given(Sent("a")).when(decide, Account("a")).then(Moved("a"))
    with ef.Store(url, snapshots=2) as store:
        store.append(Moved("a"), Sent("a"), Returned("a"), Kept(account="a"), Priced("a"), PricedIn("a", "USD"))
        for _ in range(3):
            store.decide(decide, Account("a"))
        store.change(Owner.move, Owner("a"))
        assert store.state(Account("a")).n > 6
        assert len(list(store.history(Account("a")))) > 6
        store.project(Moves, MovesInSql)
        assert store.rows(Moves)
        store.run_until_idle(Reminders, Payment, mail)
        with store.run(Moves, Reminders, Payment, mail):
            store.append(Moved("a"))
        assert len(list(store.read())) > 9
        with store.follow() as follower:
            next(iter(follower))
        assert all(proof.proved for proof in store.projections.verify())
    kinds = (type, types.FunctionType, Large)
    return {name: weakref.ref(each) for name, each in locals().items() if isinstance(each, kinds)}


def await_everything(url: str) -> dict[str, weakref.ref[Any]]:
    """Do the same with awaited calls."""
    large = Large()

    class Moved(ef.Event, type="lifetimes.moved-async"):
        account: ef.Tag

    class Account(ef.State):
        account: ef.Tag
        n: int = 0

        def evolve(self, event: Moved) -> None:
            self.n += 1 if large else 0

    class Moves(ef.Projection, name="lifetimes_moves_async"):
        account: str
        n: int = 0

        def evolve(self, event: Moved) -> None:
            self.n += 1 if large else 0

    def decide(account: Account) -> Moved:
        return Moved(account.account)

    async def main() -> None:
        async with ef.AsyncStore(url) as store:
            await store.append(Moved("a"))
            await store.decide(decide, Account("a"))
            await store.state(Account("a"))
            await store.project(Moves)
            assert await store.rows(Moves)
            async with store.run(Moves):
                await store.append(Moved("a"))
            async with store.follow() as follower:
                await anext(aiter(follower))

    asyncio.run(main())
    kinds = (type, types.FunctionType, Large)
    return {name: weakref.ref(each) for name, each in locals().items() if isinstance(each, kinds)}


@pytest.mark.parametrize("use", [write_read_and_run, await_everything])
@pytest.mark.parametrize("place", ["memory", "sqlite"])
def test_a_functions_classes_are_freed_after_use(
    use: Callable[[str], dict[str, weakref.ref[Any]]], place: str, tmp_path: Path
) -> None:
    """Events of every kind, states, read models, processes, effects, upcasters: the library holds none of them."""
    found = use("memory:" if place == "memory" else str(tmp_path / "store.db"))
    assert [name for name, each in found.items() if not is_freed(each)] == []


def test_a_functions_classes_work_a_second_time_while_the_first_ones_live() -> None:
    """Of every kind, with the same names: each use reads, folds and runs its own."""
    gc.disable()  # so that nothing of the first use is freed before the second
    try:
        first, second = write_read_and_run("memory:"), write_read_and_run("memory:")
        assert first["Account"]() is not None is not second["Account"]()
    finally:
        gc.enable()


def make_state() -> tuple[type[ef.State], weakref.ref[Large]]:
    """Return a class that is used long after the function has returned."""
    large = Large()

    class Went(ef.Event, type="lifetimes.went-on"):
        account: ef.Tag

    class Account(ef.State):
        account: ef.Tag
        n: int = 0

        def evolve(self, event: Went) -> None:
            self.n += 1

    return Account, weakref.ref(large)


def test_a_class_keeps_only_the_names_that_its_annotations_mention() -> None:
    """It does not keep other local names of its function."""
    state, large = make_state()
    assert is_freed(large)
    with ef.Store("memory:") as store:
        assert store.state(state("a")).n == 0


def test_an_old_class_lives_as_long_as_the_one_that_its_events_are_read_as() -> None:
    """An upcaster and its old class may be forgotten by the function that declares them: old events are still read."""

    class Priced(ef.Event, type="lifetimes.still-priced", version=2):
        item: ef.Tag
        currency: str

    def declare() -> Any:
        class PricedBefore(ef.Event, type="lifetimes.still-priced"):
            item: ef.Tag

        @ef.upcast
        def with_currency(old: PricedBefore) -> Priced:
            return Priced(old.item, "EUR")

        return PricedBefore("i-1")

    with ef.Store("memory:") as store:
        store.append(declare())
        gc.collect()
        assert [recorded.event for recorded in store.read()] == [Priced("i-1", "EUR")]


def test_an_upcaster_that_names_what_is_not_there_says_so() -> None:
    """The error has two sentences and is not a NameError."""
    with pytest.raises(ef.EventfoldError, match="cannot be resolved: name 'Nowhere' is not defined"):

        @ef.upcast
        def lost(old: Nowhere) -> Nowhere:  # type: ignore[name-defined]  # noqa: F821
            return old
