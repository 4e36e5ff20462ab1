"""Keyed rows: the rules for their classes, and their tables, which equal the plain fold."""

from __future__ import annotations

import warnings
from datetime import UTC, date, datetime
from typing import Any

import pytest

import eventfold as ef
from eventfold.core.envelope import NewEvent
from eventfold.errors import InvalidInput, InvalidProjection, TargetUnavailable
from tests.projections.flights import CarrierMonth, Departed, flights, folded


def test_a_view_goes_as_far_as_the_business_had_come(store: ef.Store) -> None:
    """`occurred_until` is inclusive, a datetime or a day in UTC; not allowed from an earlier view on."""

    class Minutes(ef.Projection):
        carrier: str
        minutes: int = 0

        def evolve(self, event: Departed) -> None:
            self.minutes += event.delay

    for day in (1, 2, 3):
        at = datetime(2026, 1, day, 12, tzinfo=UTC)
        store.append(ef.Draft(Departed("a", 1, 10**day), occurred=at))

    def minutes(until: date | None, **more: Any) -> list[int]:
        return [row.minutes for row in store.view(Minutes, occurred_until=until, **more).values()]

    assert minutes(date(2026, 1, 2)) == minutes(datetime(2026, 1, 2, 12, tzinfo=UTC)) == [110]
    assert minutes(datetime(2026, 1, 2, 11, tzinfo=UTC)) == [10]
    assert minutes(None) == minutes(date(2026, 1, 3)) == [1110]
    assert minutes(date(2026, 1, 3), at=2) == [110]
    with pytest.raises(InvalidInput, match="since="):
        minutes(date(2026, 1, 2), since=store.view(Minutes))


def test_a_view_is_the_same_rows_without_a_table(store: ef.Store) -> None:
    """`store.view` folds in memory: the present, a past position, and on from an earlier view."""
    events = list(flights(300))
    store.extend(events, batch=100)
    view = store.view(CarrierMonth)
    assert sorted((r.carrier, r.month, r.flights, r.delay, r.cancelled) for r in view.values()) == folded(events)
    assert view["c0", 1].carrier == "c0"
    past = store.view(CarrierMonth, at=100)
    assert past.position == 100
    assert sum(r.flights + r.cancelled for r in past.values()) == 100
    later = store.view(CarrierMonth, since=past)
    assert sum(r.flights + r.cancelled for r in later.values()) == 300
    assert store.projections.list() == []


def test_classes_that_cannot_be_kept_are_refused_with_the_reason() -> None:
    """No key, no such field on the event, no annotation, None in a key, an unknown index: reported at the first use."""
    from eventfold.projections import projection_definition

    class NoKey(ef.Projection):
        count: int = 0

        def evolve(self, event: Departed) -> None: ...

    class OtherKey(ef.Projection):
        airport: str
        count: int = 0

        def evolve(self, event: Departed) -> None: ...

    class Untyped(ef.Projection):
        carrier: str

        def evolve(self, event) -> None: ...  # type: ignore[no-untyped-def]

    class NoneKey(ef.Projection):
        carrier: str | None

        def evolve(self, event: Departed) -> None: ...

    class OddIndex(ef.Projection, indexes=["planet"]):
        carrier: str

        def evolve(self, event: Departed) -> None: ...

    class NoHandler(ef.SqlProjection):
        def _private(self, event: Departed) -> None: ...

    class NoStart(ef.Subscription):
        def mail(self, event: Departed) -> None: ...

    class NoKeyToPark(ef.SqlProjection, on_error="park"):
        def take(self, event: Departed, tx: ef.Transaction) -> None: ...

    for cls, words in {
        NoKey: "no field without a default",
        OtherKey: "Departed has no field of that name",
        Untyped: "does not name the event classes",
        NoneKey: "part of the key and may be None",
        OddIndex: "index on planet",
        NoHandler: "none of its public methods takes an event",
        NoStart: "does not declare where it starts",
        NoKeyToPark: "does not declare the key of an event",
    }.items():
        with pytest.raises(InvalidProjection, match=words):
            projection_definition(cls)
    with pytest.raises(InvalidProjection, match="on_error"):
        type(ef.SqlProjection)("Odd", (ef.SqlProjection,), {}, on_error="explode")


def test_a_table_of_another_owner_is_not_changed(file_store: ef.Store) -> None:
    """A projection with the name of an existing table is refused, the table untouched."""

    class Event(ef.Projection, name="event"):
        carrier: str

        def evolve(self, event: Departed) -> None: ...

    file_store.append(Departed("a", 1, 1))
    with pytest.raises(TargetUnavailable, match="already has a table 'event'"):
        file_store.project(Event)
    assert file_store.count() == 1


def test_a_type_that_nothing_wrote_is_warned_of_with_near_matches(store: ef.Store) -> None:
    """A handler for a type that is not in the log, while a similar name is, is probably a slip."""

    class RowsDepartd(ef.Event):
        carrier: ef.Tag

    class Slip(ef.Projection):
        carrier: str

        def evolve(self, event: RowsDepartd) -> None: ...

    store.append_encoded(NewEvent.of("RowsDeparted", b"{}"))  # a type that no class of this process has
    with pytest.warns(UserWarning, match="RowsDepartd, which the log does not have; it has RowsDeparted"):
        store.project(Slip)


class Delivered(ef.Event, type="rows-delivered-2", aliases=["rows-delivered"]):
    """An event with an older name, under which all of them are written."""

    order: ef.Tag


class OldDelivered(ef.Event, type="rows-delivered"):
    """The same, under its older name."""

    order: ef.Tag


class Deliveries(ef.Projection, name="rows_deliveries"):
    """A read model that handles both."""

    order: str
    n: int = 0

    def evolve(self, event: Delivered) -> None:
        """Count."""
        self.n += 1


def test_one_written_name_of_a_type_is_enough(store: ef.Store) -> None:
    """If only an alias was written, or only the new name, there is no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.append(OldDelivered("o-1"))
        store.project(Deliveries)
        store.projections.remove(Deliveries)
    with ef.Store("memory:") as other, warnings.catch_warnings():
        warnings.simplefilter("error")
        other.append(Delivered("o-1"))
        other.project(Deliveries)
