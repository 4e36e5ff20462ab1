"""The trace context under which an event was first written, for an append that is repeated in another trace.

An append may be repeated with the same event ids, and is then written once. Metadata is part of what is compared, and
the trace context of a repeat is another one: without the first context the events would not be the same.
Knows: what a refusal says of a stored event. Does not know: how an append is repeated.
"""

from __future__ import annotations

from eventfold.core.query import Query
from eventfold.core.trace_context import trace_of
from eventfold.errors import EventIdReused
from eventfold.log.context import Log
from eventfold.ports.messages import Span


async def first_trace(log: Log, refusal: EventIdReused) -> dict[str, str] | None:
    """Return the trace context of the stored event that a refusal names; empty if it has none, None if not found."""
    position = refusal.fields.get("position")
    if not isinstance(position, int) or position < 1:
        return None
    page = await log.engine.read(Query(), Span(after=position - 1, until=position))
    return trace_of(page.events[0].metadata) if page.events else None
