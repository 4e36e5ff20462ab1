"""Two releases of the code on one store: neither uses what the other folded from events that it would read otherwise.

Knows: two releases of one module, stores on memory, SQLite and PostgreSQL. Does not know: how code is compared.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold.concurrency import run
from eventfold.core.fingerprint import fingerprint
from eventfold.core.snapshot import snapshot_key
from eventfold.errors import ProjectionChanged, UndecodableEvent
from eventfold.projections.definition import projection_definition
from tests.support.three_stores import url as url

FOLDS = ["of the class", "of its base class", "of any event, naming the class", "of any event", "by its own query"]


def release(name: str, *, version: int, has_upcaster: bool = False) -> Any:
    """Declare the classes of a release. A class that is defined again replaces its definition of the other release."""

    class Set(ef.Event, type=f"{name}.base"):
        item: ef.Tag

    class PriceSet(Set, type=name, version=version):
        amount: int

    if has_upcaster:

        class PriceInEuros(ef.Event, type=name):
            item: ef.Tag
            amount: int

        @ef.upcast
        def to_cents(old: PriceInEuros) -> PriceSet:
            return PriceSet(old.item, old.amount * 100)

    class OfClass(ef.State):
        item: ef.Tag
        amount: int = 0

        def evolve(self, event: PriceSet) -> None:
            self.amount += event.amount

    class OfBase(ef.State):
        item: ef.Tag
        amount: int = 0

        def evolve(self, event: Set) -> None:
            self.amount += getattr(event, "amount", 0)

    class NamingIt(ef.State):
        item: ef.Tag
        amount: int = 0

        def evolve(self, event: ef.Event) -> None:
            if isinstance(event, PriceSet):
                self.amount += event.amount

    class OfAny(ef.State):
        item: ef.Tag
        amount: int = 0

        def evolve(self, event: ef.Event) -> None:
            self.amount += getattr(event, "amount", 0)

    class ByQuery(ef.State):
        item: ef.Tag
        amount: int = 0

        def query(self) -> ef.Query:
            return ef.Query.of(types=PriceSet, tags=f"item:{self.item}")

        def evolve(self, event: ef.Event) -> None:
            self.amount += getattr(event, "amount", 0)

    class Prices(ef.Projection, name="prices"):
        item: str
        amount: int = 0

        @staticmethod
        def key(event: ef.Event) -> str | None:
            return event.item if isinstance(event, PriceSet) else None

        def evolve(self, event: ef.Event) -> None:
            if isinstance(event, PriceSet):
                self.amount += event.amount

    class PricesOfClass(ef.Projection, name="prices_of_class"):
        item: str
        amount: int = 0

        def evolve(self, event: PriceSet) -> None:
            self.amount += event.amount

    folds = dict(zip(FOLDS, (OfClass, OfBase, NamingIt, OfAny, ByQuery), strict=True))
    return SimpleNamespace(PriceSet=PriceSet, folds=folds, Prices=Prices, PricesOfClass=PricesOfClass)


@pytest.fixture
def name() -> str:
    """Return a stored name of this test alone."""
    return f"newer-code.{uuid4().hex[:12]}"


def is_kept(store: ef.Store, question: ef.State) -> bool:
    """Whether the store has a snapshot under the state's key, by whichever code."""
    key = snapshot_key(question)
    assert key is not None
    return run(store.engine.services.snapshots.get(key)) is not None


@pytest.mark.parametrize("fold", FOLDS)
def test_older_code_does_not_use_a_snapshot_of_events_that_it_cannot_read(url: str, name: str, fold: str) -> None:
    """Newer code folded version 2 and saved the state; the code of version 1 refuses the event, as without it."""
    with ef.Store(url, snapshots=2) as store:
        new = release(name, version=2)
        store.append(new.PriceSet("tea", 400), new.PriceSet("tea", 50))
        assert store.state(new.folds[fold]("tea")).amount == 450
        assert is_kept(store, new.folds[fold]("tea"))
        old = release(name, version=1)
        assert snapshot_key(old.folds[fold]("tea")) == snapshot_key(new.folds[fold]("tea"))
        for _ in range(2):
            with pytest.raises(UndecodableEvent, match="has version 2, and the newest version known here is 1"):
                store.state(old.folds[fold]("tea"))


@pytest.mark.parametrize("fold", FOLDS)
def test_newer_code_with_an_upcaster_does_not_use_the_snapshot_of_older_code(url: str, name: str, fold: str) -> None:
    """Older code added 4 euros as 4; the newer code reads 400 cents, whether or not its fold names the class."""
    with ef.Store(url, snapshots=2) as store:
        old = release(name, version=1)
        store.append(old.PriceSet("tea", 4), old.PriceSet("tea", 1))
        assert store.state(old.folds[fold]("tea")).amount == 5
        assert is_kept(store, old.folds[fold]("tea"))
        new = release(name, version=2, has_upcaster=True)
        assert store.state(new.folds[fold]("tea")).amount == 500


def test_classes_without_versions_and_upcasters_leave_the_fingerprint_as_it_was(name: str) -> None:
    """A module that is imported beside a fold over any event does not put its snapshots out of use."""
    old = release(name, version=1)
    before = {fold: fingerprint(cls).digest for fold, cls in old.folds.items()}

    class Unrelated(ef.Event, type=f"{name}.unrelated"):
        item: ef.Tag

    assert {fold: fingerprint(cls).digest for fold, cls in old.folds.items()} == before
    assert Unrelated("tea").item == "tea"


def test_a_class_that_is_imported_late_is_not_left_out_of_a_cached_state(url: str, name: str) -> None:
    """The module with the older class and its upcaster is imported after the state was folded and cached."""

    class Paid(ef.Event, type=name):
        order: ef.Tag
        cents: int

    class Order(ef.State):
        order: ef.Tag
        cents: int = 0

        def evolve(self, event: Paid) -> None:
            self.cents += event.cents

    def pay(order: Order) -> Paid:
        return Paid(order.order, order.cents)

    class PaidInEuros(ef.Event, type=f"{name}.euros"):
        order: ef.Tag
        euros: int

    with ef.Store(url) as store:
        store.append(PaidInEuros("o", 7), Paid("o", 5))
        assert store.state(Order("o")).cents == 5

        @ef.upcast
        def in_cents(old: PaidInEuros) -> Paid:
            return Paid(old.order, old.euros * 100)

        assert store.decide(pay, Order("o")).state(Order("o")).cents == 1410
        assert store.state(Order("o")).cents == 1410


def test_rows_over_any_event_are_other_rows_once_a_class_that_they_name_has_an_upcaster(url: str, name: str) -> None:
    """They were added up in euros, so the runner of the newer code refuses to go on until they are rebuilt."""
    with ef.Store(url) as store:
        old = release(name, version=1)
        store.append(old.PriceSet("tea", 4))
        store.project(old.Prices)
        new = release(name, version=2, has_upcaster=True)
        store.append(new.PriceSet("tea", 50))
        with pytest.raises(ProjectionChanged):
            store.project(new.Prices)
        store.projections.rebuild(new.Prices)
        store.projections.switch(new.Prices)
        assert [row.amount for row in store.rows(new.Prices)] == [450]


def test_rows_that_newer_code_folded_by_the_same_rules_are_read_and_continued(url: str, name: str) -> None:
    """Rows belong to rules: older code reads them, folds what it can read, and stops at version 2, skipping nothing."""
    with ef.Store(url) as store:
        new = release(name, version=2)
        store.append(new.PriceSet("tea", 400))
        store.project(new.PricesOfClass)
        old = release(name, version=1)
        assert (
            projection_definition(old.PricesOfClass).fingerprint == projection_definition(new.PricesOfClass).fingerprint
        )
        assert [row.amount for row in store.rows(old.PricesOfClass)] == [400]
        store.append(old.PriceSet("tea", 5))
        store.project(old.PricesOfClass)
        assert [row.amount for row in store.rows(old.PricesOfClass)] == [405]
        with pytest.raises(UndecodableEvent):
            store.view(old.PricesOfClass)
