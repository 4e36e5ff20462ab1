"""Events by a line of the filter language: its plan within what a caller may see, within bounds, page by page.

A filter of a narrowed caller is planned without a look into the log: neither an error nor the time of an answer depends
on names and events that the caller may not see.
Knows: plans, spans, what a caller may see. Does not know: HTTP, how events are encoded.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from eventfold.concurrency import in_thread
from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Query
from eventfold.errors import CursorMismatch
from eventfold.log.context import Log
from eventfold.log.read import Bounds, span_of
from eventfold.ports.messages import Span
from eventfold.ports.refusals import beyond_head
from eventfold.search.find import Budget, find
from eventfold.search.plan import Plan, make_plan, restricted
from eventfold.server.events.pages import FoundPage
from eventfold.server.scopes import Caller
from eventfold.server.visibility import NOTHING, check_payload, visible_query

STREAM_BUDGET = Budget(hits=1_000, seconds=0.1, events=20_000)  # of one step, after which other calls take turns


async def plan_for(caller: Caller, log: Log, text: str, query: Query, *, live: bool = False) -> Plan:
    """Return the plan of a filter within a query, for the events that the caller may see.

    `live`: for events that are written later. Raises InvalidFilter; OutsideScope as `visible_query` does; Forbidden if
    payloads decide and the caller may not see them.
    """
    plan = await make_plan(
        log.engine,
        text,
        now=datetime.now(UTC),
        within=query if query.items else None,
        live=live,
        is_blind=caller.is_narrowed,
    )
    if plan.reads_payloads:
        check_payload(caller)
    return restricted(plan, lambda each: visible_query(caller, each))


def query_of_plan(plan: Plan) -> Query:
    """Return the query by which the events of a plan are read."""
    found = plan.query
    return NOTHING if found is None else found


def is_repeatable(plan: Plan) -> bool:
    """Whether the same question at the same head has the same answer: it names no moment relative to now, and no event
    is tested, which ends a page after some time.
    """
    return plan.test is None and not plan.depends_on_now


class Bounded(msgspec.Struct, frozen=True):
    """A plan, and the span within which it is read; its `until` is a position."""

    plan: Plan
    span: Span


async def within(log: Log, plan: Plan, bounds: Bounds) -> Bounded:
    """Return the plan for the events within the bounds of a read. Raises what `Store.read` raises for them."""
    span = await span_of(log, bounds)
    head = (await log.engine.head()).position
    if not span.backwards and span.after > head:
        raise beyond_head(span.after, head)
    return Bounded(plan, msgspec.structs.replace(span, until=head if span.until is None else min(span.until, head)))


async def find_page(log: Log, bounded: Bounded, limit: int) -> FoundPage:
    """Return a page of at most `limit` events, and fewer if the budget ended."""
    plan, span = bounded.plan, bounded.span
    while True:
        epoch = log.engine.epoch
        budget = Budget(hits=max(limit, 1))
        found = await find(log.engine, plan, span, budget=budget, clock=time.monotonic, offload=in_thread)
        if log.engine.epoch == epoch:
            break
    start, end = span.after, max(span.until or 0, span.after)
    if span.backwards:
        start, end = (span.until or 0) + 1, span.after + 1
    if limit == 0:
        return FoundPage([], bool(found.events), start)
    onward = end if found.next is None else found.next.position
    more = found.next is not None
    return FoundPage(found.events, more, onward, found.looked_at, found.undecodable, plan.sentence())


class FilteredReader:
    """A read of a plan, page by page: `await next_stored()` until it returns None. See `Reader`."""

    def __init__(self, log: Log, bounded: Bounded, limit: int | None) -> None:
        self._log, self._plan, self._span = log, bounded.plan, bounded.span
        self._left, self._epoch = limit, log.engine.epoch
        self._done = False

    async def next_stored(self) -> Sequence[StoredEvent] | None:
        """Return the next matching events; None at the end. Raises CursorMismatch if the epoch has changed."""
        while not self._done and self._left != 0:
            hits = STREAM_BUDGET.hits if self._left is None else min(self._left, STREAM_BUDGET.hits)
            budget = msgspec.structs.replace(STREAM_BUDGET, hits=hits)
            found = await find(
                self._log.engine, self._plan, self._span, budget=budget, clock=time.monotonic, offload=in_thread
            )
            if self._log.engine.epoch != self._epoch:
                raise CursorMismatch(
                    "The store failed over or was restored while it was read.", "Read again from the beginning."
                )
            self._done = found.next is None
            if found.next is not None:
                place = found.next.position
                onward = {"until": place - 1} if self._span.backwards else {"after": place}
                self._span = msgspec.structs.replace(self._span, **onward)
            if self._left is not None:
                self._left -= len(found.events)
            if found.events:
                return found.events
        return None
