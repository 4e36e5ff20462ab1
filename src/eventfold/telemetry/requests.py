"""The spans of a server's requests: one each, of kind SERVER, which continues the trace of the caller.

Knows: the semantic conventions for HTTP. Does not know: how a server handles a request.
"""

from __future__ import annotations

from opentelemetry import context as otel
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    get_tracer,
    set_span_in_context,
)

from eventfold.telemetry.context import span_context_of, trace_fields
from eventfold.telemetry.spans import ERROR_TYPE, OpenSpan, note_failure

METHOD, ROUTE, STATUS = "http.request.method", "http.route", "http.response.status_code"
METHODS = frozenset("GET HEAD POST PUT DELETE OPTIONS PATCH QUERY CONNECT TRACE".split())
TRACER: Tracer = get_tracer("eventfold")


class RequestSpan:
    """The span of one request."""

    def __init__(self, method: str, span: OpenSpan) -> None:
        self._method, self._open = method, span

    def enter(self) -> None:
        """Make it current."""
        self._open.__enter__()

    def leave(self, route: str | None, status: int) -> None:
        """End it. `route`: the path in the table of routes, without values; `status`: 0 if no response was sent."""
        span = self._open.span
        if self._open.is_recording:
            if route is not None:
                span.update_name(f"{self._method} {route}")
                self._open.set({ROUTE: route})
            if status:
                self._open.set({STATUS: status})
            if status >= 500:
                self._open.set({ERROR_TYPE: str(status)})
                span.set_status(Status(StatusCode.ERROR))
        self._open.__exit__(None, None, None)


def continued(method: str, given: dict[str, str]) -> tuple[dict[str, str], RequestSpan | None]:
    """Return the trace context of a request, and its span.

    `given`: what the caller sent. If a span is current, as that of a middleware around the server is, it is the one of
    this request: no other is begun. No span either while no provider is set.
    """
    outer = get_current_span().get_span_context()
    if outer.is_valid:
        return trace_fields(outer), None
    parent = span_context_of(given)
    context = otel.Context() if parent is None else set_span_in_context(NonRecordingSpan(parent), otel.Context())
    name = method if method in METHODS else "_OTHER"
    try:
        span = OpenSpan(TRACER.start_span(name, context, SpanKind.SERVER, {METHOD: name}))
    except Exception as error:  # noqa: BLE001 (of a sampler, or another part of the user's SDK)
        note_failure("beginning a span", error)
        return given, None
    found = span.span.get_span_context()
    return (given, None) if not found.is_valid or found == parent else (given, RequestSpan(name, span))
