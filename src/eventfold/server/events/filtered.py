"""Events by a line of the filter language: its plan within what a caller may see, within bounds, page by page.

Knows: plans, spans, what a caller may see. Does not know: HTTP, how events are encoded.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Query
from eventfold.log.context import Log
from eventfold.log.read import Bounds, span_of
from eventfold.ports.messages import Span
from eventfold.search.cover import LAST_POSITION, Segment
from eventfold.search.find import Budget, find
from eventfold.search.names import EngineNames, Names
from eventfold.search.plan import Plan, make_plan
from eventfold.search.subject import Subject
from eventfold.server.events.pages import FoundPage
from eventfold.server.scopes import Caller
from eventfold.server.visibility import check_payload

STREAM_BUDGET = Budget(hits=1_000, seconds=0.1, events=20_000)  # of one step, after which other calls take turns
RELATIVE_TIME = re.compile(r"\d\s?[smhdw]\b")


class CallerNames:
    """The names that a narrowed caller may learn of: those of its own scope. Any key of a tag may be asked for."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def types(self) -> list[str]:
        """See Names."""
        return sorted(self._caller.types)

    async def tags(self, prefix: str, limit: int) -> list[str]:
        """See Names."""
        return sorted(tag for tag in self._caller.tags if tag.startswith(prefix))[:limit]

    async def tag_keys(self, prefix: str, limit: int) -> list[str]:
        """See Names."""
        return [prefix] if prefix else []


async def plan_for(caller: Caller, log: Log, text: str, query: Query, *, live: bool = False) -> Plan:
    """Return the plan of a filter, of the events that match `query` too, which is what the caller may see.

    For a narrowed caller it names no types and tags of others: what a prefix means is tested on the events. Raises
    InvalidFilter, and Forbidden if payloads decide and the caller may not see them.
    """
    names: Names = CallerNames(caller) if caller.is_narrowed else EngineNames(log.engine)
    plan = await make_plan(
        log.engine,
        text,
        now=datetime.now(UTC),
        names=names,
        within=query if query.items else None,
        live=live or caller.is_narrowed,
    )
    if plan.reads_payloads:
        check_payload(caller)
    return plan


def is_repeatable(text: str, plan: Plan) -> bool:
    """Whether the same question at the same head has the same answer: it names no moment relative to now, and no event
    is tested, which ends a page after some time.
    """
    return plan.test is None and not RELATIVE_TIME.search(text)


class Bounded(msgspec.Struct, frozen=True):
    """A plan that was cut to (after, until]."""

    plan: Plan
    after: int
    until: int


async def within(log: Log, plan: Plan, bounds: Bounds) -> Bounded:
    """Return the plan for the events within the bounds of a read. Raises what `Store.read` raises for them."""
    span = await span_of(log, bounds)
    until = LAST_POSITION if span.until is None else span.until
    cut = [Segment(max(each.after, span.after), min(each.until, until), each.query) for each in plan.segments]
    plan = msgspec.structs.replace(plan, segments=tuple(each for each in cut if each.after < each.until))
    if span.occurred_since is None and span.occurred_until is None:
        return Bounded(plan, span.after, until)
    inner = plan.test

    def test(subject: Subject) -> bool:
        return _occurred_within(subject.stored, span) and (inner is None or inner(subject))

    return Bounded(msgspec.structs.replace(plan, test=test), span.after, until)


def _occurred_within(stored: StoredEvent, span: Span) -> bool:
    moment = stored.time if stored.occurred is None else stored.occurred
    return (span.occurred_since is None or moment >= span.occurred_since) and (
        span.occurred_until is None or moment <= span.occurred_until
    )


async def find_page(log: Log, bounded: Bounded, limit: int, *, backwards: bool, budget: Budget) -> FoundPage:
    """Return a page of at most `limit` events, and fewer if the budget ended."""
    while True:
        epoch = log.engine.epoch
        found = await find(
            log.engine,
            bounded.plan,
            backwards=backwards,
            budget=msgspec.structs.replace(budget, hits=max(limit, 1)),
            clock=time.monotonic,
        )
        if log.engine.epoch == epoch:
            break
    start, end = bounded.after, max(bounded.until, bounded.after)
    if backwards:
        start, end = bounded.until + 1, bounded.after + 1
    if limit == 0:
        return FoundPage([], bool(found.events), start)
    return FoundPage(found.events, found.next is not None, end if found.next is None else found.next.position)


class FilteredReader:
    """A read of a plan, page by page: `await next_stored()` until it returns None. See `Reader`."""

    def __init__(self, log: Log, plan: Plan, limit: int | None, *, backwards: bool) -> None:
        self._log, self._plan, self._backwards = log, plan, backwards
        self._left, self._after = limit, None
        self._done = False

    async def next_stored(self) -> Sequence[StoredEvent] | None:
        """Return the next matching events; None at the end."""
        while not self._done and self._left != 0:
            hits = STREAM_BUDGET.hits if self._left is None else min(self._left, STREAM_BUDGET.hits)
            found = await find(
                self._log.engine,
                self._plan,
                after=self._after,
                backwards=self._backwards,
                budget=msgspec.structs.replace(STREAM_BUDGET, hits=hits),
                clock=time.monotonic,
            )
            self._done = found.next is None
            self._after = None if found.next is None else found.next.position
            if self._left is not None:
                self._left -= len(found.events)
            if found.events:
                return found.events
        return None
