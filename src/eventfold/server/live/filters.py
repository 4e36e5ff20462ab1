"""Filters of live readers and consumers: which events they are read by, and what each must satisfy.

Knows: plans of the filter language, what a caller may see. Does not know: connections, deliveries.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Query
from eventfold.errors import InvalidQuery
from eventfold.log.context import Log
from eventfold.search.plan import Plan, make_plan
from eventfold.server.events.filtered import RELATIVE_TIME, plan_for
from eventfold.server.scopes import Caller
from eventfold.server.visibility import NOTHING

Test = Callable[[StoredEvent], bool]


class LiveFilter(msgspec.Struct, frozen=True):
    """What a reader asked for: `query` selects every event that it shows, and perhaps others; `test` decides (None:
    the query does). `key` is the same for filters that show the same events.
    """

    query: Query
    test: Test | None = None
    key: str = ""


async def live_filter(caller: Caller, log: Log, text: str, query: Query) -> LiveFilter:
    """Return a filter within a query, for events that are read live. Raises InvalidFilter, Forbidden.

    `query`: what was asked for by types and tags, of what the caller may see.
    """
    if not text.strip():
        return LiveFilter(query)
    plan = await plan_for(caller, log, text, query, live=True)
    moment = datetime.now(UTC).isoformat() if RELATIVE_TIME.search(plan.text) else ""  # another one each time
    key = msgspec.json.encode((plan.text, query, moment)).decode()
    return LiveFilter(_query_of(plan), plan.matches, key)


async def lasting_filter(log: Log, text: str, query: Query) -> LiveFilter:
    """Return the filter of a consumer, which is kept. Raises InvalidFilter, InvalidQuery on a time relative to now."""
    if not text.strip():
        return LiveFilter(query)
    plan = await make_plan(log.engine, text, now=datetime.now(UTC), within=query if query.items else None, live=True)
    if RELATIVE_TIME.search(plan.text):
        raise InvalidQuery(
            "The filter of a consumer names a time relative to now, which changes its meaning with every start.",
            "Name a date or a moment, such as since:2026-11-29; or say where it starts by `from`.",
        )
    return LiveFilter(_query_of(plan), plan.matches, plan.text)


def _query_of(plan: Plan) -> Query:
    return NOTHING if plan.query is None else plan.query
