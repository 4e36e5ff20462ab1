"""Which instance an event belongs to, and which of its parts: none is taken for another."""

from __future__ import annotations

from typing import Any

import eventfold as ef
from eventfold.processes import after, cancel, decide
from eventfold.processes.definition import key_text
from eventfold.testing.clock import Clock


class LinesPlaced(ef.Event, type="instances-lines-placed"):
    """An event of an earlier version: all lines at once."""

    order: ef.Tag
    items: list[str]


class LinePlaced(ef.Event, type="instances-line-placed"):
    """One line."""

    order: ef.Tag
    item: str


class LineReserved(ef.Event, type="instances-line-reserved"):
    """A line was reserved."""

    order: ef.Tag
    item: ef.Tag


@ef.upcast
def each_line(old: LinesPlaced) -> list[LinePlaced]:
    """Split into several events of one class."""
    return [LinePlaced(old.order, item) for item in old.items]


class Shelf(ef.State):
    """The reserved lines of an item."""

    item: ef.Tag
    count: int = 0

    def evolve(self, event: LineReserved) -> None:
        """The fold."""
        self.count += 1


def reserve_line(shelf: Shelf, order: str) -> LineReserved:
    """Reserve the line."""
    return LineReserved(order, shelf.item)


class Reserving(ef.Process, start="beginning", name="instances_reserving"):
    """A process that reserves every line."""

    order: ef.Tag

    def evolve(self, event: LinePlaced) -> None:
        """Nothing is kept."""

    def react(self, event: LinePlaced) -> Any:
        """Decide once per line."""
        return decide(reserve_line, Shelf(event.item), self.order)


def test_every_part_of_a_split_event_is_reacted_to_once(store: ef.Store) -> None:
    """Three lines of one order in one old event are three reactions; delivered again they are none."""
    store.append(LinesPlaced("o-1", ["nut", "bolt", "nail"]), LinePlaced("o-1", "screw"))
    store.run_until_idle(Reserving)
    reserved = [r.event.item for r in store.read(ef.Query.of(types=[LineReserved]))]
    assert sorted(reserved) == ["bolt", "nail", "nut", "screw"]
    store.run_until_idle(Reserving)
    assert store.count(ef.Query.of(types=[LineReserved])) == 4


class Seated(ef.Event, type="instances-seated"):
    """A guest sat down."""

    guest: ef.Tag
    table: ef.Tag


class Left(ef.Event, type="instances-left"):
    """A guest left."""

    guest: ef.Tag
    table: ef.Tag


class BillDue(ef.Event, type="instances-bill-due"):
    """The bill is due."""

    guest: ef.Tag
    table: ef.Tag


class Sitting(ef.Process, start="beginning", name="instances_sitting"):
    """One instance for every guest at every table."""

    guest: ef.Tag
    table: ef.Tag

    def evolve(self, event: Seated) -> None:
        """Nothing is kept."""

    def react(self, event: Seated | Left) -> Any:
        """Bring the bill, unless the guest has left."""
        return cancel() if isinstance(event, Left) else after(BillDue(self.guest, self.table), hours=1)


def test_names_with_commas_are_not_taken_for_each_other(store: ef.Store, clock: Clock) -> None:
    """`Smith, Ann` at `3` leaves, and `Smith` at `Ann, 3` still gets the bill."""
    store.append(Seated("Smith, Ann", "3"), Seated("Smith", "Ann, 3"))
    store.run_until_idle(Sitting, clock=clock)
    store.append(Left("Smith, Ann", "3"))
    store.run_until_idle(Sitting, clock=clock)
    clock.advance(4_000)
    store.run_until_idle(Sitting, clock=clock)
    assert [r.event for r in store.read(ef.Query.of(types=[BillDue]))] == [BillDue("Smith", "Ann, 3")]


def test_a_key_is_shown_unquoted_where_it_is_unambiguous() -> None:
    """One field is shown unchanged, several with a comma between."""
    assert key_text(("Smith, Ann",)) == "Smith, Ann"
    assert key_text(("o-1", 7)) == "o-1, 7"
    assert len({key_text(k) for k in (("a, b", "c"), ("a", "b, c"), ("a\\", "b, c"), ("a\\, b", "c"))}) == 4
