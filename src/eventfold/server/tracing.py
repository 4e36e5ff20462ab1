"""The trace of a request: its header `traceparent` is continued, and the events that it appends carry it.

Where the process uses OpenTelemetry, each request also has a span. Then the events carry the context of that span.
Knows: headers, metadata. Does not know: OpenTelemetry (telemetry/requests.py does, imported if the process has it).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextvars import Token
from typing import TYPE_CHECKING

from starlette.types import Scope

from eventfold.core.codec import encode_metadata, with_metadata
from eventfold.core.envelope import NewEvent, check_new
from eventfold.core.trace_context import MARK, TRACEPARENT, TRACESTATE, parsed, trace_in, trace_metadata
from eventfold.log.context import CONTEXT, Context, context_with

if TYPE_CHECKING:
    from eventfold.telemetry.requests import RequestSpan

OPENTELEMETRY = "opentelemetry.trace"
PARENT_HEADER, STATE_HEADER = TRACEPARENT.encode(), TRACESTATE.encode()
ROUTE = "eventfold.route"  # key in the scope, see logs.py


class RequestTrace:
    """The trace of one request, from `trace_request` to `leave`."""

    def __init__(self, given: dict[str, str], span: RequestSpan | None) -> None:
        self._span = span
        self._token: Token[Context | None] | None = None
        if span is None:
            self._token = CONTEXT.set(context_with(given))
        else:
            span.enter()

    def leave(self, scope: Scope, status: int) -> None:
        """End it. `status`: of the response, 0 if none was sent."""
        if self._token is not None:
            CONTEXT.reset(self._token)
        if self._span is not None:
            self._span.leave(scope.get(ROUTE), status)


def trace_request(scope: Scope) -> RequestTrace | None:
    """Begin the trace of a request; None if it has none."""
    parents = [value for name, value in scope["headers"] if name == PARENT_HEADER]
    given: dict[str, str] = {}
    if len(parents) == 1:
        states = [value.decode("latin-1") for name, value in scope["headers"] if name == STATE_HEADER]
        given = trace_metadata(parents[0].decode("latin-1"), ",".join(states))
    if OPENTELEMETRY not in sys.modules:
        return RequestTrace(given, None) if given else None
    from eventfold.telemetry.requests import continued

    given, span = continued(scope["method"], given)
    return RequestTrace(given, span) if given or span is not None else None


def trace_ids() -> dict[str, str]:
    """Return `trace_id` and `span_id` of the present request, for log lines; empty if it has no trace."""
    current = CONTEXT.get()
    ids = None if current is None else parsed(trace_in(current.metadata).get(TRACEPARENT, ""))
    return {} if ids is None else {"trace_id": ids[0], "span_id": ids[1]}


def request_trace() -> dict[str, str]:
    """Return the trace context that events of the present request get; empty if they get none."""
    current = CONTEXT.get()
    return {} if current is None else trace_in(current.metadata)


def carrying(events: Sequence[NewEvent], trace: dict[str, str]) -> Sequence[NewEvent]:
    """Return events with a trace context; those that have one already keep it. Raises InvalidEvent."""
    if not trace:
        return events
    encoded = encode_metadata(trace)
    return [each if MARK in (each.metadata or b"") else check_new(with_metadata(each, encoded)) for each in events]
