"""Searches for events by a line of text: `Search` and `AsyncSearch`, which `store.search(…)` returns.

Knows: the log, the clock. Does not know: the filter language (search does).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from eventfold.concurrency import in_thread, run
from eventfold.core.envelope import from_micros
from eventfold.core.event import Recorded
from eventfold.core.query import Cursor, Query
from eventfold.core.registry import raw_event
from eventfold.errors import InvalidQuery
from eventfold.log.append import query_of
from eventfold.log.context import Log
from eventfold.log.cursors import known_position, position_of
from eventfold.ports.messages import Span
from eventfold.search.completion import Completion, complete
from eventfold.search.find import Budget, Found, Offload, count_indexed, count_matching, find
from eventfold.search.names import EngineNames, Names
from eventfold.search.plan import Plan, make_plan

COUNT_SECONDS = 0.05  # how long events are counted for an explanation
UNLIMITED = Budget(hits=1_000, seconds=None, events=None)

After = Cursor | str | int | None


class FoundPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the events that a search found.

    `events`    in reading order, without their classes (RawEvent).
    `next`      the cursor that goes on exactly behind what was looked at; None: there is no more.
    `looked_at` how many events were read for the page; more than were found if a part of the filter is scanned.
    `reached`, `reached_time`
                position and time of the last of them; None if there was none.
    `undecodable`
                how many payloads could not be looked into, since they are encrypted or no JSON.
    `answered`  how the filter was answered: `index: carrier:UA → scan: data.delay>600`.
    """

    events: list[Recorded[Any]]
    next: Cursor | None
    looked_at: int
    reached: int | None
    reached_time: datetime | None
    undecodable: int
    answered: str


class AsyncSearch:
    """See Search; its methods are awaited."""

    def __init__(
        self,
        log: Callable[[], Awaitable[Log]],
        text: str,
        backwards: bool,
        within: Query | None = None,
        names: Names | None = None,
        offload: Offload | None = in_thread,
    ) -> None:
        self._log, self._text, self._backwards = log, text, backwards
        self._within = None if within is None else query_of(within)
        self._names, self._offload = names, offload

    async def plan(self, *, live: bool = False) -> Plan:
        """See Search.plan."""
        return await make_plan(
            (await self._log()).engine,
            self._text,
            now=datetime.now(UTC),
            names=self._names,
            within=self._within,
            live=live,
        )

    async def page(self, *, limit: int = 50, after: After = None, budget: Budget | None = None) -> FoundPage:
        """See Search.page."""
        if limit < 0:
            raise InvalidQuery(f"A page of {limit} events was asked for.", "A limit is not negative.")
        budget = msgspec.structs.replace(budget or Budget(), hits=limit)
        plan = await self.plan()
        return _page(plan, await self._find(plan, after, budget))

    async def _find(self, plan: Plan, after: After, budget: Budget) -> Found:
        log = await self._log()
        while True:
            epoch = log.engine.epoch
            span = _span(await _position(log, after), self._backwards)
            found = await find(log.engine, plan, span, budget=budget, clock=time.monotonic, offload=self._offload)
            if log.engine.epoch == epoch:  # otherwise what was read may be lost: read it again
                return found

    async def __aiter__(self) -> AsyncIterator[Recorded[Any]]:
        """Iterate over all events that match, page after page, without a limit of time."""
        plan, after = await self.plan(), None
        while True:
            found = await self._find(plan, after, UNLIMITED)
            for stored in found.events:
                yield Recorded(stored, raw_event(stored))
            after = found.next
            if after is None:
                return

    async def count(self) -> int:
        """See Search.count."""
        return await count_matching((await self._log()).engine, await self.plan(), clock=time.monotonic)

    async def explain(self) -> str:
        """See Search.explain."""
        plan, engine = await self.plan(), (await self._log()).engine
        return plan.sentence(str(await count_indexed(engine, plan, seconds=COUNT_SECONDS, clock=time.monotonic)))

    async def completions(self, *, limit: int = 20) -> list[Completion]:
        """See Search.completions."""
        names = self._names or EngineNames((await self._log()).engine)
        return await complete(names, self._text, limit)


class Search:
    """The events that a line of text describes. Nothing is read before a method asks.

    The text combines clauses: `type:Paid customer:42 since:7d data.amount>100 -actor:bot`. What the index of the log
    answers (types, tags, positions, times of recording, ids) is read by it; the rest is tested on these events.
    Payloads are compared as they were written, without classes and upcasters. A blank text is every event.
    `backwards`: pages begin with the newest event. `within`: only events that match this query are found, too.

    Every method raises InvalidFilter, which names the character and the nearest key.
    """

    def __init__(self, log: Log, text: str, backwards: bool, within: Query | None = None) -> None:
        async def opened() -> Log:
            return log

        self._search, self.is_backwards = AsyncSearch(opened, text, backwards, within, offload=None), backwards

    def plan(self, *, live: bool = False) -> Plan:
        """Return how it is answered. `live`: for events written later, with `plan.query` and `plan.matches`."""
        return run(self._search.plan(live=live))

    def page(self, *, limit: int = 50, after: After = None, budget: Budget | None = None) -> FoundPage:
        """Return a page of at most `limit` events, in the order of positions, the newest first if `backwards`.

        A page that scans also ends after 150 ms or 200,000 events (`budget`); it may then have few events or none, and
        its `next` goes on. `after` is exclusive: the `next` of an earlier page of this filter, or a position. Raises
        CursorMismatch, PositionBeyondHead.
        """
        return run(self._search.page(limit=limit, after=after, budget=budget))

    def __iter__(self) -> Iterator[Recorded[Any]]:
        """Iterate over all events that match, page after page, without a limit of time."""
        events = self._search.__aiter__()
        while True:
            try:
                yield run(_next(events))
            except StopAsyncIteration:
                return

    def count(self) -> int:
        """Return how many events match. If a part of the filter is scanned, this reads all that the index returns."""
        return run(self._search.count())

    def explain(self) -> str:
        """Return how the filter is answered: `index: carrier:UA · 175,309 → scan: data.delay>600`.

        The events of the index are counted for at most 50 ms.
        """
        return run(self._search.explain())

    def completions(self, *, limit: int = 20) -> list[Completion]:
        """Return how the last word of the text may go on: keys, types, tags of the log, by prefix."""
        return run(self._search.completions(limit=limit))


async def _position(log: Log, after: After) -> int | None:
    if after is None:
        return None
    if isinstance(after, str):
        after = Cursor.parse(after)
    return await position_of(log, after) if isinstance(after, Cursor) else await known_position(log, after, "after")


def _span(behind: int | None, backwards: bool) -> Span:
    """The part of the log behind a position, in reading order; None: all of it."""
    if behind is None:
        return Span(backwards=backwards)
    return Span(until=behind - 1, backwards=True) if backwards else Span(after=behind)


def _page(plan: Plan, found: Found) -> FoundPage:
    last = found.reached
    return FoundPage(
        events=[Recorded(stored, raw_event(stored)) for stored in found.events],
        next=found.next,
        looked_at=found.looked_at,
        reached=None if last is None else last.position,
        reached_time=None if last is None else from_micros(last.time),
        undecodable=found.undecodable,
        answered=plan.sentence(),
    )


def _next(events: AsyncIterator[Recorded[Any]]) -> Coroutine[Any, Any, Recorded[Any]]:
    async def step() -> Recorded[Any]:
        return await anext(events)

    return step()
