"""Trace contexts as metadata: a span as the context of what is written inside it, and events as links to their writers.

Knows: W3C Trace Context, the context of appends. Does not know: when a span begins and ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from opentelemetry.trace import Link, SpanContext, TraceFlags, TraceState

from eventfold.core.envelope import StoredEvent
from eventfold.core.event_rows import EventRows
from eventfold.core.trace_context import TRACEPARENT, TRACESTATE, parsed, trace_in, trace_of
from eventfold.log.context import CONTEXT, Context, context_with

MAX_LINKS = 32


def trace_fields(span: SpanContext) -> dict[str, str]:
    """Return a valid span context as metadata."""
    fields = {TRACEPARENT: _traceparent(span)}
    return fields | {TRACESTATE: span.trace_state.to_header()} if span.trace_state else fields


def context_of(span: SpanContext) -> Context:
    """Return the context of appends inside a span: the current one, with the span as its trace context."""
    if CONTEXT.get() is None and not span.trace_state:  # usual, and a third of the time
        parent = _traceparent(span)
        return Context({TRACEPARENT: parent}, b'{"traceparent":"%b"}' % parent.encode())
    return context_with_trace(trace_fields(span))


def _traceparent(span: SpanContext) -> str:
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


def context_with_trace(trace: dict[str, str]) -> Context:
    """Return the current context with this trace context, or none, instead of its own."""
    return context_with({TRACEPARENT: None, TRACESTATE: None} | trace)


def current_trace() -> dict[str, str]:
    """Return the trace context that events appended now get; empty if they get none."""
    current = CONTEXT.get()
    return trace_in(current.metadata) if current is not None else {}


def span_context_of(trace: dict[str, str]) -> SpanContext | None:
    """Return a trace context of metadata as the context of a span elsewhere; None if there is none."""
    found = parsed(trace.get(TRACEPARENT, ""))
    if found is None:
        return None
    trace_id, span_id, flags = found
    state = TraceState.from_header([trace[TRACESTATE]]) if TRACESTATE in trace else None
    return SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)), state)


def links_to_writers(events: Sequence[StoredEvent]) -> list[Link]:
    """Return links to the spans that wrote some events: each once, in their order, at most 32."""
    links: list[Link] = []
    for metadata in dict.fromkeys(_metadata_of(events)):
        writer = span_context_of(trace_of(metadata))
        if writer is not None and all(writer != link.context for link in links):
            links.append(Link(writer))
            if len(links) == MAX_LINKS:
                break
    return links


def _metadata_of(events: Sequence[StoredEvent]) -> Iterable[bytes | None]:
    if isinstance(events, EventRows):  # without an envelope for each event
        return [row[8] for row in events.rows]
    return [event.metadata for event in events]
