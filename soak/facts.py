"""The events, states, read models, processes and effects that every round uses.

Knows: handlers, and the file that makes one fail. Does not know: faults, processes of the system.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import eventfold as ef
from eventfold.processes import decide, effect

SEATS = 6
EVERY = 5  # the process greets every fifth holder of a seat


class Noted(ef.Event, type="soak-noted"):
    """One of `size` events of one append."""

    writer: ef.Tag
    op: str
    index: int
    size: int
    pad: str = ""


class SeatTaken(ef.Event, type="soak-seat-taken"):
    """The seat has its `number`-th holder, counted from 1."""

    seat: ef.Tag
    number: int
    op: str


class Greeted(ef.Event, type="soak-greeted"):
    """The process greeted the `number`-th holder of the seat."""

    seat: ef.Tag
    number: int


class Seat(ef.State):
    """How often a seat was taken: the invariant is that numbers are 1, 2, 3, …"""

    seat: ef.Tag
    count: int = 0

    def evolve(self, event: SeatTaken) -> None:
        """Apply the event."""
        self.count += 1


class Greetings(ef.State):
    """How many greetings there were at a seat."""

    seat: ef.Tag
    count: int = 0

    def evolve(self, event: Greeted) -> None:
        """Apply the event."""
        self.count += 1


def take(seat: Seat, op: str) -> list[ef.Event]:
    """Take the next number of one seat."""
    return [SeatTaken(seat.seat, seat.count + 1, op)]


def take_two(first: Seat, second: Seat, op: str) -> list[ef.Event]:
    """Take the next numbers of two seats."""
    return [SeatTaken(first.seat, first.count + 1, op), SeatTaken(second.seat, second.count + 1, op)]


def greet(greetings: Greetings, number: int) -> list[ef.Event]:
    """Greet, without a check for an earlier greeting: the process must not ask twice."""
    return [Greeted(greetings.seat, number)]


class PerWriter(ef.Projection, name="soak_per_writer"):
    """The number of events of each writer, and the sum of their indexes."""

    writer: str
    events: int = 0
    total: int = 0

    def evolve(self, event: Noted) -> None:
        """Apply the event."""
        self.events += 1
        self.total += event.index


class PerSeat(ef.Projection, name="soak_per_seat", partitions=2):
    """Holders of each seat, in two partitions."""

    seat: str
    count: int = 0
    last: int = 0

    def evolve(self, event: SeatTaken) -> None:
        """Apply the event."""
        self.count += 1
        self.last = event.number


class Fragile(ef.Projection, name="soak_fragile", on_error="park", attempts=1):
    """Parks events while the file named by SOAK_FAILING exists: work for operators."""

    seat: str
    count: int = 0

    def evolve(self, event: SeatTaken) -> None:
        """Apply the event, or fail."""
        if event.number % 3 == 1 and os.path.exists(os.environ.get("SOAK_FAILING", "")):
            raise ValueError("planted")
        self.count += 1


def elsewhere(address: str) -> type[ef.Projection]:
    """Return a read model in another database."""

    class Elsewhere(ef.Projection, name="soak_elsewhere", target=address):
        """Holders of each seat, stored in another database than the log."""

        seat: str
        count: int = 0

        def evolve(self, event: SeatTaken) -> None:
            """Apply the event."""
            self.count += 1

    return Elsewhere


class Greeting(ef.Process, name="soak_greeting", start="beginning"):
    """Greets every fifth holder of a seat."""

    seat: ef.Tag

    def evolve(self, event: SeatTaken) -> None:
        """Do nothing: the process has no state of its own."""

    def react(self, event: SeatTaken) -> Iterator[Any]:
        """Request one decision for every fifth holder."""
        if event.number % EVERY == 0:
            yield decide(greet, Greetings(self.seat), event.number)


@effect(start="beginning", name="soak_letter", first_delay=0.01, max_delay=0.05)
def letter(event: ef.Recorded[Greeted]) -> None:
    """Write a line into the file named by SOAK_LETTERS: the event's id, and the process."""
    written = os.open(os.environ["SOAK_LETTERS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(written, f"{event.id} {os.getpid()}\n".encode())
    finally:
        os.close(written)


def configure(folder: Path) -> None:
    """Set the files of a round for this process, and those that it forks."""
    os.environ["SOAK_FAILING"] = str(folder / "failing")
    os.environ["SOAK_LETTERS"] = str(folder / "letters")
