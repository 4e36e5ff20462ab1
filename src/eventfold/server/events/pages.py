"""One page of events: read in one epoch, and where the next one begins.

Knows: spans and pages of engines. Does not know: HTTP, callers.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from eventfold.aio import AsyncStore
from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Cursor, Query
from eventfold.log.context import Log
from eventfold.log.read import Bounds, refuse_future, span_of


class FoundPage(msgspec.Struct):
    """The events of a page; `next` is the position to continue after (backwards: before) if there are `more`.

    By a filter also how many events were looked at, how many payloads could not be looked into, how it was answered.
    """

    events: Sequence[StoredEvent]
    more: bool
    next: int
    looked_at: int | None = None
    undecodable: int = 0
    answered: str | None = None


async def read_page(log: Log, query: Query, bounds: Bounds, limit: int) -> FoundPage:
    """Return the first `limit` events of a read, or fewer if they are large. Raises what `Store.read` raises."""
    while True:
        epoch = log.engine.epoch
        span = msgspec.structs.replace(await span_of(log, bounds), limit=max(limit, 1))
        page = await log.engine.read(query, span)
        if log.engine.epoch == epoch:
            break
    refuse_future(page, span)
    events = page.events[:limit]
    if len(events) < len(page.events):
        more = True
        onward = events[-1].position if events else _start(span.after, span.until, span.backwards)
    else:
        more = page.more
        onward = page.scanned if more or span.backwards else max(page.scanned, span.after)
    return FoundPage(events, more, onward)


async def cursor_after(store: AsyncStore, log: Log, page: FoundPage) -> Cursor:
    """Return the cursor at which a page ends."""
    if page.events and page.events[-1].position == page.next:
        return Cursor(log.engine.store_id, log.engine.epoch, page.next, page.events[-1].id.hex())
    return await store.cursor(page.next)


def _start(after: int, until: int | None, backwards: bool) -> int:
    return after if not backwards else (until or 0) + 1
