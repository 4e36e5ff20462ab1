"""Events of a version that only newer code knows: older code refuses them, whether or not their fields fit.

Knows: two releases of one module, stores on memory, SQLite and PostgreSQL. Does not know: how a class is found.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold.core.envelope import NewEvent
from eventfold.core.event import RawEvent
from eventfold.errors import EventfoldError, ProjectionChanged, ProjectionStopped, UndecodableEvent
from tests.support.three_stores import url as url


def release(name: str, *, is_newer: bool, has_upcaster: bool = True) -> Any:
    """Declare the classes of a release. A class that is defined again replaces its definition of the older release."""
    if is_newer:

        class PriceSet(ef.Event, type=name, version=2):
            item: ef.Tag
            amount: int  # cents

        if has_upcaster:

            class PriceInEuros(ef.Event, type=name):
                item: ef.Tag
                amount: int

            @ef.upcast
            def to_cents(old: PriceInEuros) -> PriceSet:
                return PriceSet(old.item, old.amount * 100)

    else:

        class PriceSet(ef.Event, type=name):
            item: ef.Tag
            amount: int  # whole euros

    class Price(ef.State):
        item: ef.Tag
        amount: int = 0

        def evolve(self, event: PriceSet) -> None:
            self.amount = event.amount

    class Prices(ef.Projection, name="prices"):
        item: str
        amount: int = 0
        changes: int = 0

        def evolve(self, event: PriceSet) -> None:
            self.amount = event.amount
            self.changes += 1

    return SimpleNamespace(PriceSet=PriceSet, Price=Price, Prices=Prices)


def in_cents(name: str, item: str, cents: int) -> NewEvent:
    """An event as the newer release writes it."""
    data = f'{{"item":"{item}","amount":{cents}}}'.encode()
    return NewEvent.of(name, data, version=2, tags=[f"item:{item}"])


@pytest.fixture
def name() -> str:
    """Return a stored name of this test alone."""
    return f"newer-versions.{uuid4().hex[:12]}"


def check_refusal(error: EventfoldError, position: int) -> None:
    """The refusal names both versions, and what to do."""
    assert isinstance(error, UndecodableEvent)
    assert f"Event {position} (" in error.what
    assert "has version 2, and the newest version known here is 1 (" in error.what
    assert error.remedy == "Deploy the code that declares version 2 here first, or read it raw (raw=True)."
    assert {key: error.fields[key] for key in ("position", "version", "newest")} == {
        "position": position,
        "version": 2,
        "newest": 1,
    }


def followed(store: ef.Store) -> list[Any]:
    """Return the first two events of a follower."""
    with store.follow() as follower:
        return list(islice(follower, 2))


READS: dict[str, Callable[[ef.Store, Any, str], Any]] = {
    "read": lambda store, old, name: list(store.read()),
    "read backwards": lambda store, old, name: list(store.read(backwards=True)),
    "fold": lambda store, old, name: store.state(old.Price("tea")),
    "fold as of a position": lambda store, old, name: store.state(old.Price("tea"), at=2),
    "decide": lambda store, old, name: store.decide(lambda price: [old.PriceSet(price.item, 5)], old.Price("tea")),
    "follow": lambda store, old, name: followed(store),
    "view": lambda store, old, name: store.view(old.Prices)["tea"],
}


@pytest.mark.parametrize("by", READS)
def test_a_newer_version_whose_fields_fit_is_refused(url: str, name: str, by: str) -> None:
    """400 cents are not read as 400 euros, however the event is reached; nothing is written."""
    old = release(name, is_newer=False)
    with ef.Store(url) as store:
        store.append(old.PriceSet("tea", 4))
        store.append_encoded(in_cents(name, "tea", 400))
        for _ in range(2):  # a refusal is not cached as an answer
            with pytest.raises(UndecodableEvent) as refused:
                READS[by](store, old, name)
            check_refusal(refused.value, 2)
        assert store.head() == 2


def test_a_state_that_was_folded_before_does_not_go_on_over_it(url: str, name: str) -> None:
    """A cached state stops at the event as well; the moment before it can still be asked for."""
    old = release(name, is_newer=False)
    with ef.Store(url) as store:
        store.append(old.PriceSet("tea", 4))
        assert store.state(old.Price("tea")).amount == 4
        store.append_encoded(in_cents(name, "tea", 400))
        with pytest.raises(UndecodableEvent) as refused:
            store.state(old.Price("tea"))
        check_refusal(refused.value, 2)
        assert store.state(old.Price("tea"), at=1).amount == 4


def test_raw_reads_and_other_events_go_on(url: str, name: str) -> None:
    """Only what must understand the event is refused: raw reads, searches, counts, copies and other items are not."""
    old = release(name, is_newer=False)
    with ef.Store(url) as store, ef.Store("memory:") as copy:
        store.append(old.PriceSet("cup", 9))
        store.append_encoded(in_cents(name, "tea", 400))
        assert [(each.version, each.event.json()["amount"]) for each in store.read(raw=True)] == [(1, 9), (2, 400)]
        assert store.state(old.Price("cup")).amount == 9
        assert store.count(ef.Query.of(types=old.PriceSet)) == 2
        assert [each.event for each in store.search("data.amount>=400")] == [
            RawEvent(name, 2, "json", b'{"item":"tea","amount":400}')
        ]
        store.copy_to(copy)
        assert [each.version for each in copy.read(raw=True)] == [1, 2]


def rows_of(store: ef.Store, prices: Any) -> list[tuple[str, int, int]]:
    """Return the rows of the read model, sorted."""
    return sorted((row.item, row.amount, row.changes) for row in store.rows(prices))


def stop_at_position_3(store: ef.Store, old: Any, name: str) -> None:
    """Let the read model of the older release stop at an event that the newer one wrote."""
    store.append(old.PriceSet("tea", 4), old.PriceSet("cup", 9))
    store.project(old.Prices)
    store.append_encoded(in_cents(name, "tea", 450))
    store.append(old.PriceSet("cup", 8))
    with pytest.raises(ProjectionStopped) as stopped:
        store.project(old.Prices)
    assert "has version 2, and the newest version known here is 1" in str(stopped.value)
    assert stopped.value.fields["position"] == 3
    assert rows_of(store, old.Prices) == [("cup", 9, 1), ("tea", 4, 1)]


def test_a_read_model_stops_at_it_and_goes_on_after_the_deployment(url: str, name: str) -> None:
    """Where the newer code has the same rules, its resumed read model takes every event once, and skips none."""
    old = release(name, is_newer=False)
    with ef.Store(url) as store:
        stop_at_position_3(store, old, name)
        new = release(name, is_newer=True, has_upcaster=False)
        store.projections.resume(new.Prices)
        store.project(new.Prices)
        assert rows_of(store, new.Prices) == [("cup", 8, 2), ("tea", 450, 2)]


def test_a_read_model_with_an_upcaster_goes_on_after_a_rebuild(url: str, name: str) -> None:
    """Its rows were in euros, so the upcaster changes its rules: the rebuild folds every event in cents."""
    old = release(name, is_newer=False)
    with ef.Store(url) as store:
        stop_at_position_3(store, old, name)
        new = release(name, is_newer=True)
        with pytest.raises(ProjectionChanged):
            store.project(new.Prices)
        store.projections.rebuild(new.Prices)
        store.projections.switch(new.Prices)
        store.project(new.Prices)
        assert rows_of(store, new.Prices) == [("cup", 800, 2), ("tea", 450, 2)]


def test_the_newer_code_reads_all_of_it(url: str, name: str) -> None:
    """After the deployment the same store, still open, reads old events by the upcaster and new ones as they are."""
    old = release(name, is_newer=False)
    with ef.Store(url) as store:
        store.append(old.PriceSet("tea", 4))
        store.append_encoded(in_cents(name, "tea", 450))
        with pytest.raises(UndecodableEvent):
            list(store.read())
        new = release(name, is_newer=True)
        assert [each.event for each in store.read()] == [new.PriceSet("tea", 400), new.PriceSet("tea", 450)]
        assert store.state(new.Price("tea")).amount == 450


def test_added_fields_without_a_new_version_are_still_ignored(url: str, name: str) -> None:
    """A field that newer code added, under the same version, does not stop older code."""
    old = release(name, is_newer=False)
    with ef.Store(url) as store:
        store.append_encoded(NewEvent.of(name, b'{"item":"tea","amount":4,"days":7}', tags=["item:tea"]))
        assert [each.event for each in store.read()] == [old.PriceSet("tea", 4)]
        assert store.state(old.Price("tea")).amount == 4


def test_an_older_version_without_a_class_is_still_read_by_its_fields(name: str) -> None:
    """Version 1 has no class and no upcaster: the class of version 2 reads it, as before."""

    class Sent(ef.Event, type=name, version=2):
        parcel: ef.Tag
        place: str = ""

    with ef.Store("memory:") as store:
        store.append_encoded(NewEvent.of(name, b'{"parcel":"p"}', version=1, tags=["parcel:p"]))
        assert [each.event for each in store.read()] == [Sent("p")]


def test_a_renamed_class_that_counts_from_1_again_must_keep_its_version(name: str) -> None:
    """The events under the old name have version 2, and a class without a version says that it knows 1."""

    class Named(ef.Event, type=f"{name}.now", aliases=(name,)):
        item: ef.Tag

    with ef.Store("memory:") as store:
        store.append_encoded(NewEvent.of(name, b'{"item":"tea"}', version=2, tags=["item:tea"]))
        with pytest.raises(UndecodableEvent, match=r"Give a renamed class its version \(version=2\), or deploy"):
            list(store.read())

        class Renamed(ef.Event, type=f"{name}.then", version=2, aliases=(name,)):
            item: ef.Tag

        assert [each.event for each in store.read()] == [Renamed("tea")]
        assert Named("tea") != Renamed("tea")


def test_a_fold_that_takes_only_the_older_class_is_refused_and_the_error_names_the_newer_one(name: str) -> None:
    """Both classes are loaded, and no upcaster joins them: the newer event does not reach the fold as the older one."""

    class Sent(ef.Event, type=name):
        parcel: ef.Tag

    class SentLater(ef.Event, type=name, version=2):
        parcel: ef.Tag

    class Parcel(ef.State):
        parcel: ef.Tag
        sent: int = 0

        def evolve(self, event: Sent) -> None:
            self.sent += 1

    with ef.Store("memory:") as store:
        store.append_encoded(NewEvent.of(name, b'{"parcel":"p"}', version=2, tags=["parcel:p"]))
        with pytest.raises(UndecodableEvent, match=r"Declare an upcaster from it to .*SentLater, and take that class"):
            store.state(Parcel("p"))
        assert SentLater("p") != Sent("p")
