"""One page of the events that match a plan, within a budget, and how many the index would return.

A page ends with its last hit, or where the budget ended; its cursor goes on exactly there.
Knows: pages of an engine, plans. Does not know: clocks (one is passed), sync or async callers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Protocol

import msgspec

from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Cursor
from eventfold.ports.engine import Engine
from eventfold.ports.messages import Span
from eventfold.search.cover import LAST_POSITION
from eventfold.search.plan import Plan
from eventfold.search.subject import Subject

FIRST_EVENTS, MOST_EVENTS = 256, 4_096  # read at once: few in the beginning, since most hits may be near
BATCH_SECONDS = 0.02  # a batch that took longer is followed by a smaller one, so that a page ends in time
EVENTS_BETWEEN_CLOCKS = 256
FIRST_COUNTED, MOST_COUNTED = 20_000, 5_000_000  # positions counted at once

Clock = Callable[[], float]  # seconds


class Offload(Protocol):
    """Calls a function elsewhere, and returns its result."""

    async def __call__(self, work: Callable[[Sequence[StoredEvent]], bool], batch: Sequence[StoredEvent], /) -> bool:
        """Call it."""
        ...


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """When a page ends: after `hits` events, or while it scans after `seconds` or `events`, whichever is first.

    At least one batch of events is read. `seconds` None: without a limit of time.
    """

    hits: int = 50
    seconds: float | None = 0.15
    events: int | None = 200_000


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A page of events that match a filter.

    `events`    in reading order: ascending positions, or descending if backwards.
    `next`      the cursor that goes on directly after what was looked at; None: there is no more.
    `looked_at` how many events were read for the page.
    `reached`   the last event that was looked at; None if none was.
    `undecodable`
                how many payloads could not be looked into, since they are encrypted or no JSON.
    """

    events: list[StoredEvent]
    next: Cursor | None
    looked_at: int
    reached: StoredEvent | None
    undecodable: int


class _Scan:
    """The state of a page while it is filled."""

    def __init__(self, plan: Plan, budget: Budget, clock: Clock) -> None:
        self.events: list[StoredEvent] = []
        self.looked_at = self.undecodable = 0
        self.reached: StoredEvent | None = None
        self._test, self._budget, self._clock = plan.test, budget, clock
        self._end = None if budget.seconds is None or plan.test is None else clock() + budget.seconds
        self._most = None if plan.test is None else budget.events

    def take(self, batch: Sequence[StoredEvent]) -> bool:
        """Look at the events of a batch, until the page ends. Returns whether it ended before the end of the batch."""
        if self._test is None:
            return self._take_all(batch)
        found, hits = self.events, self._budget.hits
        if self._most is not None and len(batch) > self._most - self.looked_at:
            whole, batch = batch, batch[: self._most - self.looked_at]
            return self.take(batch) or len(batch) < len(whole)
        for number, stored in enumerate(batch, 1):
            subject = Subject(stored)
            if self._test(subject):
                found.append(stored)
            self.undecodable += subject.was_undecodable
            if len(found) >= hits or (not number % EVENTS_BETWEEN_CLOCKS and self._is_late()):
                self.looked_at, self.reached = self.looked_at + number, stored
                return number < len(batch)
        if batch:
            self.looked_at, self.reached = self.looked_at + len(batch), batch[-1]
        return False

    def _take_all(self, batch: Sequence[StoredEvent]) -> bool:
        left = self._budget.hits - len(self.events)
        taken = list(batch[:left])
        if taken:
            self.events += taken
            self.looked_at, self.reached = self.looked_at + len(taken), taken[-1]
        return len(taken) < len(batch)

    def is_full(self) -> bool:
        """Whether the page has ended."""
        is_spent = self._most is not None and self.looked_at >= self._most
        return len(self.events) >= self._budget.hits or is_spent or self._is_late()

    def _is_late(self) -> bool:
        return self._end is not None and self._clock() >= self._end


async def find(
    engine: Engine, plan: Plan, span: Span, *, budget: Budget, clock: Clock, offload: Offload | None = None
) -> Found:
    """Return the next page of events within a span that match, in its direction; its limit has no meaning.

    `clock` returns seconds that never decrease. `offload` runs the tests of a batch, for example in a thread, so that
    an event loop can do other work meanwhile.
    """
    scan = _Scan(plan, budget, clock)
    has_more = False
    if budget.hits > 0:
        async with aclosing(_batches(engine, plan, span, budget.hits, clock)) as batches:
            async for batch, is_last in batches:
                ended = scan.take(batch) if offload is None or plan.test is None else await offload(scan.take, batch)
                has_more = ended or (scan.is_full() and not is_last)
                if has_more:
                    break
    last, onward = scan.reached, None
    if has_more and last is not None:
        onward = Cursor(engine.store_id, engine.epoch, last.position, last.id.hex())
    return Found(events=scan.events, next=onward, looked_at=scan.looked_at, reached=last, undecodable=scan.undecodable)


async def _batches(
    engine: Engine, plan: Plan, span: Span, hits: int, clock: Clock
) -> AsyncGenerator[tuple[Sequence[StoredEvent], bool], None]:
    """The events of a plan's segments in reading order, in batches, each with whether it is the last."""
    backwards, end = span.backwards, LAST_POSITION if span.until is None else span.until
    segments = plan.segments[::-1] if backwards else plan.segments
    size = min(max(1, hits), MOST_EVENTS) if plan.test is None else FIRST_EVENTS
    for number, segment in enumerate(segments, 1):
        low, high = max(segment.after, span.after), min(segment.until, end)
        while low < high:
            began = clock()
            part = msgspec.structs.replace(span, after=low, until=high, limit=size)
            page = await engine.read(segment.query, part)
            yield page.events, not page.more and number == len(segments)
            if not page.more:
                break
            low, high = (low, page.scanned - 1) if backwards else (page.scanned, high)
            is_quick = clock() - began < BATCH_SECONDS  # with what was done with the batch
            size = min(size * 2, MOST_EVENTS) if is_quick else max(FIRST_EVENTS, size // 2)


class Counted(msgspec.Struct, frozen=True):
    """How many events: exactly, or at least so many if the time was over (`is_all` False)."""

    count: int
    is_all: bool

    def __str__(self) -> str:
        return f"{self.count:,}" if self.is_all else f"more than {self.count:,}"


async def count_indexed(engine: Engine, plan: Plan, *, seconds: float | None, clock: Clock) -> Counted:
    """Return how many events the index returns for a plan, newest first, as far as `seconds` allow."""
    end = None if seconds is None else clock() + seconds
    head = (await engine.head()).position
    count, width = 0, FIRST_COUNTED if seconds is not None else head
    for segment in reversed(plan.segments):
        high = min(segment.until, head)
        while high > segment.after:
            if end is not None and clock() >= end:
                return Counted(count, False)
            low = max(segment.after, high - width)
            count += await engine.count(segment.query, low, high)
            high, width = low, min(width * 2, MOST_COUNTED)
    return Counted(count, True)


async def count_matching(engine: Engine, plan: Plan, *, clock: Clock) -> int:
    """Return how many events match, however long it takes."""
    if plan.test is None:
        return (await count_indexed(engine, plan, seconds=None, clock=clock)).count
    matching = 0
    async with aclosing(_batches(engine, plan, Span(), MOST_EVENTS, clock)) as batches:
        async for batch, _ in batches:
            matching += sum(map(plan.test, map(Subject, batch)))
    return matching
