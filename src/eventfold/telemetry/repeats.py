"""Appends that were made before: repeated under the trace context of the first time. See log/first_trace.py.

Knows: which context an append has now. Does not know: spans, how an append is repeated.
"""

from __future__ import annotations

from eventfold.errors import EventIdReused
from eventfold.log.context import Context, Log
from eventfold.log.first_trace import first_trace
from eventfold.telemetry.context import context_with_trace, current_trace


async def context_of_first(log: Log, refusal: EventIdReused) -> Context | None:
    """Return the context under which the stored event of a refused append was written, to repeat the append once.

    None if that is the present context, so that the events differ in something else, or if the event is not found.
    """
    first = await first_trace(log, refusal)
    return None if first is None or first == current_trace() else context_with_trace(first)
