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
from eventfold.search.plan import make_plan
from eventfold.server.events.filtered import plan_for, query_of_plan
from eventfold.server.scopes import Caller
from eventfold.server.visibility import visible_query

Test = Callable[[StoredEvent], bool]


class LiveFilter(msgspec.Struct, frozen=True):
    """What a reader asked for: `query` selects every event that it shows, and perhaps others; `test` decides (None:
    the query does). `key` is the same for filters that show the same events.
    """

    query: Query
    test: Test | None = None
    key: str = ""


async def live_filter(caller: Caller, log: Log, text: str, query: Query) -> LiveFilter:
    """Return a filter within a query, for events that are read live and that the caller may see.

    `query`: what was asked for by types and tags. Raises InvalidFilter, OutsideScope, Forbidden.
    """
    if not text.strip():
        return LiveFilter(visible_query(caller, query))
    plan = await plan_for(caller, log, text, query, live=True)
    moment = datetime.now(UTC).isoformat() if plan.depends_on_now else ""  # another one each time
    key = msgspec.json.encode((plan.text, query, moment)).decode()
    return LiveFilter(query_of_plan(plan), plan.matches, key)


async def lasting_filter(log: Log, text: str, query: Query) -> LiveFilter:
    """Return the filter of a consumer, which is kept. Raises InvalidFilter, InvalidQuery on a time relative to now."""
    if not text.strip():
        return LiveFilter(query)
    plan = await make_plan(log.engine, text, now=datetime.now(UTC), within=query if query.items else None, live=True)
    if plan.depends_on_now:
        raise InvalidQuery(
            "The filter of a consumer names a time relative to now, which changes its meaning with every start.",
            "Name a date or a moment, such as since:2026-11-29; or say where it starts by `from`.",
        )
    return LiveFilter(query_of_plan(plan), plan.matches, plan.text)
