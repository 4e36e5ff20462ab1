"""The log as a list: the oracle for every engine, written as plainly as the promises.

Knows: queries and what they match. Does not know: engines, bytes, speed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import NamedTuple

import eventfold as ef
from eventfold.core.query import Query
from eventfold.errors import AppendConflict, EventIdReused, PositionBeyondHead
from eventfold.testing.conformance.events import Deposited, Noted, Withdrawn, draft

Clauses = Sequence[tuple[Query, int]]


class Written(NamedTuple):
    """A planned event: class, account, amount, an id or None, and when it occurred (µs) or None."""

    kind: type[ef.Event]
    account: str
    amount: int
    number: int | None = None
    occurred: int | None = None

    @property
    def type(self) -> str:
        """Return the event's stored name."""
        return {Deposited: "conformance.deposited", Withdrawn: "conformance.withdrawn", Noted: "conformance.noted"}[
            self.kind
        ]

    @property
    def tags(self) -> tuple[str, ...]:
        """Return the event's tags."""
        return () if self.kind is Noted else (f"account:{self.account}",)

    def draft(self) -> ef.Draft:
        """Return the event as a user appends it."""
        from eventfold.core.envelope import from_micros

        event = (
            Noted(f"{self.account}{self.amount}")
            if self.kind is Noted
            else self.kind(self.account, Decimal(self.amount))
        )
        occurred = None if self.occurred is None else from_micros(self.occurred)
        return (
            ef.Draft(event, occurred=occurred) if self.number is None else draft(event, self.number, occurred=occurred)
        )


class Entry(NamedTuple):
    """An event with its position."""

    position: int
    first: int
    last: int
    time: int
    event: Written


class Outcome(NamedTuple):
    """The expected outcome of an append: an error, or its positions and whether it was a repeat."""

    error: type[Exception] | None
    first: int = 0
    last: int = 0
    repeated: bool = False


class Oracle:
    """A list of events, and the promises about it."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.log: list[Entry] = []
        self.keys: dict[str, tuple[int, int]] = {}
        self._clock = clock

    @property
    def head(self) -> int:
        """Return the last position."""
        return len(self.log)

    def append(self, events: Sequence[Written], unless: Clauses = (), key: str | None = None) -> Outcome:
        """Append: check the key, then the ids, then the condition, then write."""
        if key is not None and key in self.keys:
            return Outcome(None, *self.keys[key], True)
        numbers = [event.number for event in events if event.number is not None]
        known = {entry.event.number: entry for entry in self.log if entry.event.number in numbers}
        if len(set(numbers)) < len(numbers):
            return Outcome(EventIdReused)
        if known:
            found = self._again(events, [known.get(event.number) for event in events])
            if key is not None and found.error is None:  # a repeat claims its key in the same commit
                self.keys[key] = (found.first, found.last)
            return found
        for query, after in unless:
            if after > self.head:
                return Outcome(PositionBeyondHead)
            if self.select(query, after):
                return Outcome(AppendConflict)
        first, last = self.head + 1, self.head + len(events)
        time = max(self._clock(), self.log[-1].time if self.log else 0)
        self.log += [Entry(first + n, first, last, time, event) for n, event in enumerate(events)]
        if key is not None:
            self.keys[key] = (first, last)
        return Outcome(None, first, last)

    def _again(self, events: Sequence[Written], entries: Sequence[Entry | None]) -> Outcome:
        found = [entry for entry in entries if entry is not None]
        whole = len(found) == len(events) and [e.event for e in found] == list(events)
        if whole and [e.position for e in found] == list(range(found[0].first, found[0].last + 1)):
            return Outcome(None, found[0].first, found[0].last, True)
        return Outcome(EventIdReused)

    def select(self, query: Query, after: int = 0, until: int | None = None) -> list[Entry]:
        """Return the entries in (after, until] that a query matches."""
        end = self.head if until is None else until
        return [e for e in self.log if after < e.position <= end and query.matches(e.event.type, e.event.tags)]

    def whole(self, position: int) -> int:
        """Return the last position of the append that wrote the given one."""
        return self.log[position - 1].last if 0 < position <= self.head else position

    def at(self, time: int) -> int:
        """Return the last position recorded at or before a time."""
        return max((entry.position for entry in self.log if entry.time <= time), default=0)

    def balance(self, account: str, until: int) -> int:
        """Return an account's balance at a position."""
        entries = [e.event for e in self.select(Query.of(tags=f"account:{account}"), 0, until)]
        return sum(e.amount if e.kind is Deposited else -e.amount for e in entries)
