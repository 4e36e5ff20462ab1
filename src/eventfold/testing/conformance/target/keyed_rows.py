"""Keyed rows: the table of a read model is the plain fold of its log."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest

import eventfold as ef
from eventfold.errors import InvalidProjection
from eventfold.testing.conformance.target.flights import CarrierMonth, Departed, Split, flights, folded, proved, rows


class Paint(Enum):
    """A paint, by its value."""

    RED = "red"
    GREEN = "green"


class Painted(ef.Event, type="conformance.painted"):
    """Something was painted."""

    thing: ef.Tag[UUID]
    paint: Paint
    price: Decimal
    day: date
    parts: list[str]


THING = UUID(int=7)


class Thing(ef.Projection):
    """A read model with every kind of column."""

    thing: UUID
    paint: Paint = Paint.RED
    price: Decimal = Decimal(0)
    day: date | None = None
    seen: datetime | None = None
    parts: list[str] = []
    raw: bytes = b""
    glossy: bool = False
    weight: float = 0.0

    def evolve(self, event: Painted, recorded: ef.Recorded[Painted]) -> None:
        """Store the values of the event."""
        self.paint, self.price, self.day = event.paint, event.price, event.day
        self.seen = recorded.time
        self.parts = self.parts + event.parts
        self.raw, self.glossy, self.weight = b"\x00\xff", True, 1.5


def test_rows_are_the_plain_fold(store: ef.Store) -> None:
    """A table of keyed rows equals the result of a loop over the log, over pages and several runs."""
    events = list(flights(700))
    store.extend(events[:400], batch=7)
    store.project(CarrierMonth)
    store.extend(events[400:], batch=90)
    store.project(CarrierMonth)
    assert rows(store) == folded(events)
    assert proved(store)


def test_partitions_together_are_the_plain_fold(store: ef.Store) -> None:
    """A projection split by key has the same rows, and each partition's ledger is verified."""
    events = list(flights(500))
    store.extend(events, batch=50)
    store.project(Split)
    assert rows(store, Split) == folded(events)
    proofs = store.projections.verify(Split)
    assert len(proofs) == 3
    assert all(proof.proved for proof in proofs)
    assert sum(proof.counted for proof in proofs) == 500


def test_every_kind_of_column_round_trips(store: ef.Store) -> None:
    """Enums, decimals, dates, moments, UUIDs, lists, bytes are read as they were folded, also after a reload."""
    for part in ("a", "b"):
        store.append(Painted(THING, Paint.GREEN, Decimal("1.10"), date(2026, 1, 2), [part]))
        store.project(Thing)  # each time without cached rows
    (row,) = store.rows(Thing, thing=THING)
    assert row.thing == THING
    assert row.paint is Paint.GREEN
    assert row.price == Decimal("1.10")
    assert row.day == date(2026, 1, 2)
    assert row.seen is not None
    assert row.seen.astimezone(UTC) == list(store.read())[1].time
    assert (row.parts, row.raw, row.glossy, row.weight) == (["a", "b"], b"\x00\xff", True, 1.5)
    assert store.rows(Thing, paint=Paint.RED) == []


def test_rows_can_be_selected_by_any_column_in_any_order(store: ef.Store) -> None:
    """`rows` takes equal fields, an order and a limit; an unknown column is refused with the valid names."""
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


def test_a_key_may_be_computed_multiple_or_none(store: ef.Store) -> None:
    """`key` returns a tuple, a single value, a list of either, or None for an event without a row."""

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
    assert proved(store)  # the event without a row was handled, too


def test_a_row_that_is_not_kept_is_deleted_and_may_be_created_again(store: ef.Store) -> None:
    """`keep` decides after every event; a deleted row starts from the defaults when its key occurs again."""

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


def test_two_projections_of_one_name_are_refused(store: ef.Store) -> None:
    """They are refused in one call, and against the store's record."""

    class Twin(ef.Projection, name="conformance_carrier_month"):
        carrier: str

        def evolve(self, event: Departed) -> None: ...

    with pytest.raises(InvalidProjection, match="both called conformance_carrier_month"):
        store.project(CarrierMonth, Twin)
    store.project(CarrierMonth)
    with pytest.raises(InvalidProjection, match="is another class"):
        store.project(Twin)
