"""The events and states of the concurrency tests: seats that can be taken once, a counter that counts up.

Knows: event classes. Does not know: threads, tasks, processes.
"""

from __future__ import annotations

from collections.abc import Iterable

import eventfold as ef
from eventfold.core.event import Recorded


class Taken(ef.Event, type="races.taken"):
    """A seat was taken, by one of several rivals."""

    seat: ef.Tag[int]
    by: str


class Counted(ef.Event, type="races.counted"):
    """A counter went up, to a number that occurs once."""

    counter: ef.Tag
    value: int
    by: str = ""


class Written(ef.Event, type="races.written"):
    """One of many events, identified by its writer and number."""

    writer: ef.Tag
    number: int


class Seat(ef.State):
    """Whether a seat is taken."""

    seat: ef.Tag[int]
    by: str = ""

    def evolve(self, event: Taken) -> None:
        """Apply one event."""
        self.by = event.by


class Counter(ef.State):
    """The value of a counter."""

    counter: ef.Tag
    value: int = 0

    def evolve(self, event: Counted) -> None:
        """Apply one event."""
        self.value = event.value


class SeatIsTaken(Exception):
    """A domain error."""


def take(seat: Seat, by: str) -> Taken:
    """Decide to take a seat; a seat can be taken once."""
    if seat.by:
        raise SeatIsTaken(seat.seat)
    return Taken(seat.seat, by)


def count_up(counter: Counter, by: str) -> Counted:
    """Decide to count up by one."""
    return Counted(counter.counter, counter.value + 1, by)


def seat(number: int) -> ef.Query:
    """Return the query for a seat's events."""
    return ef.Query.of(tags=f"seat:{number}")


def contiguous(events: Iterable[Recorded]) -> bool:
    """Return whether positions are 1, 2, 3 …, times never decrease, and each append is whole."""
    last, time = 0, None
    for recorded in events:
        whole = recorded.first <= recorded.position <= recorded.last
        if recorded.position != last + 1 or not whole or (time is not None and recorded.time < time):
            return False
        last, time = recorded.position, recorded.time
    return True


def each_once(events: Iterable[Recorded], writers: Iterable[str], each: int) -> bool:
    """Return whether every writer's numbers 0, 1, 2 … all exist, once, in their order."""
    numbers: dict[str, list[int]] = {writer: [] for writer in writers}
    for recorded in events:
        numbers[recorded.event.writer].append(recorded.event.number)
    return all(found == list(range(each)) for found in numbers.values())
