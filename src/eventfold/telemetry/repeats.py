"""Appends that were made before: repeated under the trace context of the first time.

An append may be repeated with the same event ids, and is then written once. Metadata is part of what is compared, and
the trace context of a repeat is another one: the events would not be the same.
Knows: where the first context is stored. Does not know: spans, how an append is repeated.
"""

from __future__ import annotations

from eventfold.core.query import Query
from eventfold.core.trace_context import trace_of
from eventfold.errors import EventIdReused
from eventfold.log.context import Context, Log
from eventfold.ports.messages import Span
from eventfold.telemetry.context import context_with_trace, current_trace


async def context_of_first(log: Log, refusal: EventIdReused) -> Context | None:
    """Return the context under which the stored event of a refused append was written, to repeat the append once.

    None if that is the present context, so that the events differ in something else, or if the event is not found.
    """
    position = refusal.fields.get("position")
    if not isinstance(position, int) or position < 1:
        return None
    page = await log.engine.read(Query(), Span(after=position - 1, until=position))
    first = trace_of(page.events[0].metadata) if page.events else None
    return None if first is None or first == current_trace() else context_with_trace(first)
