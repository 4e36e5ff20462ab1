"""Keyed rows: what a class of them means, and that its table is the plain fold."""

from __future__ import annotations

import warnings
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

import eventfold as ef
from eventfold.errors import InvalidInput, InvalidProjection, TargetUnavailable
from tests.projections.flights import CarrierMonth, Departed, Split, flights, folded, proved, rows


class Colour(Enum):
    """A colour, by its value."""

    RED = "red"
    GREEN = "green"


class Painted(ef.Event):
    """Something got a colour."""

    thing: ef.Tag[UUID]
    colour: Colour
    price: Decimal
    day: date
    parts: list[str]


THING = UUID(int=7)


class Thing(ef.Projection):
    """Every kind of column there is."""

    thing: UUID
    colour: Colour = Colour.RED
    price: Decimal = Decimal(0)
    day: date | None = None
    seen: datetime | None = None
    parts: list[str] = []
    raw: bytes = b""
    glossy: bool = False
    weight: float = 0.0

    def evolve(self, event: Painted, recorded: ef.Recorded[Painted]) -> None:
        """Take the paint."""
        self.colour, self.price, self.day = event.colour, event.price, event.day
        self.seen = recorded.time
        self.parts = self.parts + event.parts
        self.raw, self.glossy, self.weight = b"\x00\xff", True, 1.5


def test_rows_are_the_plain_fold(store: ef.Store) -> None:
    """A table of keyed rows is what a loop over the log gives, in pages and over several runs."""
    events = list(flights(700))
    store.extend(events[:400], batch=7)
    store.project(CarrierMonth)
    store.extend(events[400:], batch=90)
    store.project(CarrierMonth)
    assert rows(store) == folded(events)
    assert proved(store)


def test_partitions_together_are_the_plain_fold(store: ef.Store) -> None:
    """A projection split by key gives the same rows, and each partition's ledger is proved."""
    events = list(flights(500))
    store.extend(events, batch=50)
    store.project(Split)
    assert rows(store, Split) == folded(events)
    proofs = store.projections.verify(Split)
    assert len(proofs) == 3
    assert all(proof.proved for proof in proofs)
    assert sum(proof.counted for proof in proofs) == 500


def test_every_kind_of_column_comes_back_as_it_went(store: ef.Store) -> None:
    """Enums, decimals, dates, moments, UUIDs, lists, bytes: what was folded is what is read, also after a reload."""
    for part in ("a", "b"):
        store.append(Painted(THING, Colour.GREEN, Decimal("1.10"), date(2026, 1, 2), [part]))
        store.project(Thing)  # each time with nothing in memory
    (row,) = store.rows(Thing, thing=THING)
    assert row.thing == THING
    assert row.colour is Colour.GREEN
    assert row.price == Decimal("1.10")
    assert row.day == date(2026, 1, 2)
    assert row.seen is not None
    assert row.seen.astimezone(UTC) == list(store.read())[1].time
    assert (row.parts, row.raw, row.glossy, row.weight) == (["a", "b"], b"\x00\xff", True, 1.5)
    assert store.rows(Thing, colour=Colour.RED) == []


def test_rows_are_asked_by_any_column_in_any_order(store: ef.Store) -> None:
    """`rows` takes equal fields, an order, a limit; an unknown column is told with those there are."""
    for order in (3, [3], ["carrier", None]):
        with pytest.raises(InvalidProjection, match="cannot be sorted by"):
            store.rows(CarrierMonth, order=order)  # type: ignore[arg-type]
    store.extend(flights(200))
    store.project(CarrierMonth)
    best = store.rows(CarrierMonth, month=3, order=["-flights", "carrier"], limit=2)
    every = sorted(store.rows(CarrierMonth, month=3), key=lambda r: (-r.flights, r.carrier))
    assert best == every[:2]
    with pytest.raises(InvalidProjection, match="have no column planet"):
        store.rows(CarrierMonth, planet=1)


def test_a_key_may_be_computed_be_several_or_be_none(store: ef.Store) -> None:
    """`key` gives a tuple, a single value, a list of either, or None for an event that concerns no row."""

    class ByEnd(ef.Projection, name="by_end"):
        end: str
        count: int = 0

        @staticmethod
        def key(event: Departed) -> list[str] | None:
            return None if event.delay < 0 else [event.carrier, f"month-{event.month}", event.carrier]

        def evolve(self, event: Departed) -> None:
            self.count += 1

    store.append(Departed("x", 1, 5), Departed("x", 2, 0), Departed("y", 1, -1))
    store.project(ByEnd)
    assert {row.end: row.count for row in store.rows(ByEnd)} == {"x": 2, "month-1": 1, "month-2": 1}
    assert proved(store)  # the event without a row was taken, too


def test_a_row_that_is_not_kept_is_deleted_and_may_begin_anew(store: ef.Store) -> None:
    """`keep` decides after every event; what is gone starts from the defaults when its key comes again."""

    class Late(ef.Projection):
        carrier: str
        minutes: int = 0

        def evolve(self, event: Departed) -> None:
            self.minutes += event.delay

        def keep(self) -> bool:
            return self.minutes > 0

    store.append(Departed("a", 1, 5), Departed("b", 1, 5), Departed("a", 1, -5))
    store.project(Late)
    assert [(row.carrier, row.minutes) for row in store.rows(Late)] == [("b", 5)]
    store.append(Departed("a", 1, 7), Departed("b", 1, -5))
    store.project(Late)
    assert [(row.carrier, row.minutes) for row in store.rows(Late)] == [("a", 7)]


def test_a_view_goes_as_far_as_the_business_had_come(store: ef.Store) -> None:
    """`occurred_until`, inclusive, a datetime or a day in UTC; not from an earlier view on."""

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
    """`store.view` folds in memory: now, at a moment of the past, and from an earlier view on."""
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
    """No key, no such field on the event, no annotation, None in a key, an unknown index: told when it is used."""
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
        OtherKey: "Departed has no such field",
        Untyped: "does not say which events",
        NoneKey: "part of the key and may be None",
        OddIndex: "index on planet",
        NoHandler: "no public method of it takes an event",
        NoStart: "does not say where it starts",
        NoKeyToPark: "does not say what an event's key is",
    }.items():
        with pytest.raises(InvalidProjection, match=words):
            projection_definition(cls)
    with pytest.raises(InvalidProjection, match="on_error"):
        type(ef.SqlProjection)("Odd", (ef.SqlProjection,), {}, on_error="explode")


def test_two_projections_of_one_name_are_refused(store: ef.Store) -> None:
    """In one call, and against what the store knows already."""

    class Twin(ef.Projection, name="carrier_month"):
        carrier: str

        def evolve(self, event: Departed) -> None: ...

    with pytest.raises(InvalidProjection, match="both called carrier_month"):
        store.project(CarrierMonth, Twin)
    store.project(CarrierMonth)
    with pytest.raises(InvalidProjection, match="has the same name and is not the same"):
        store.project(Twin)


def test_a_table_that_is_somebody_elses_is_left_alone(file_store: ef.Store) -> None:
    """A projection called like a table that is there already is refused, the table untouched."""

    class Event(ef.Projection, name="event"):
        carrier: str

        def evolve(self, event: Departed) -> None: ...

    file_store.append(Departed("a", 1, 1))
    with pytest.raises(TargetUnavailable, match="has a table 'event' already"):
        file_store.project(Event)
    assert file_store.count() == 1


def test_a_type_that_nothing_wrote_is_warned_of_with_near_matches(store: ef.Store) -> None:
    """A handler for a type that is not in the log, beside one of nearly the same name, is probably a slip."""

    class Departd(ef.Event):
        carrier: ef.Tag

    class Slip(ef.Projection):
        carrier: str

        def evolve(self, event: Departd) -> None: ...

    store.append(Departed("a", 1, 1))
    with pytest.warns(UserWarning, match="Departd, which nothing has written yet; the log has Departed"):
        store.project(Slip)


class Delivered(ef.Event, type="rows-delivered-2", aliases=["rows-delivered"]):
    """Has an older name, under which all that is written is written."""

    order: ef.Tag


class OldDelivered(ef.Event, type="rows-delivered"):
    """The same, under its older name."""

    order: ef.Tag


class Deliveries(ef.Projection, name="rows_deliveries"):
    """Takes both."""

    order: str
    n: int = 0

    def evolve(self, event: Delivered) -> None:
        """Count."""
        self.n += 1


def test_one_written_name_of_a_type_is_enough(store: ef.Store) -> None:
    """An alias that was written, or the new name where only that was, is nothing to be warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.append(OldDelivered("o-1"))
        store.project(Deliveries)
        store.projections.remove(Deliveries)
    with ef.Store("memory:") as other, warnings.catch_warnings():
        warnings.simplefilter("error")
        other.append(Delivered("o-1"))
        other.project(Deliveries)
