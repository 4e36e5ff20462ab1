"""Spans: begun, made current, and ended, whatever a user's tracer, sampler or exporter does.

An error of telemetry is logged, and the call goes on without a span.
Knows: OpenTelemetry's API. Does not know: stores.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextvars import Token
from types import TracebackType
from typing import Any

from opentelemetry import context as otel
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    TracerProvider,
    get_tracer,
    set_span_in_context,
)

from eventfold.core.envelope import Receipt
from eventfold.errors import EventfoldError
from eventfold.log.context import CONTEXT, Context
from eventfold.projections.page import HandlerFailed
from eventfold.telemetry.context import context_of

SYSTEM, NAMESPACE, OPERATION, BATCH_SIZE = (
    "db.system.name",
    "db.namespace",
    "db.operation.name",
    "db.operation.batch.size",
)  # of the semantic conventions for databases, which are stable
ERROR_TYPE = "error.type"
EVENTS, SCANNED, FIRST, LAST = "eventfold.events", "eventfold.scanned", "eventfold.first", "eventfold.last"
REPEATED = "eventfold.repeated"
Attributes = dict[str, Any]
_failed_before: list[str] = []


class Spans:
    """The spans of one store. `name`: of the store, as spans show it."""

    def __init__(self, name: str, provider: TracerProvider | None = None) -> None:
        self.name = name
        self._tracer: Tracer = get_tracer("eventfold", tracer_provider=provider)
        self.append, self.read = self.client("append", f"append {name}"), self.client("read", f"read {name}")

    def client(self, operation: str, name: str) -> Callable[[], OpenSpan | None]:
        """Return a function that begins a span of a call to the store; it returns None while nothing is traced."""
        start, kind = self._tracer.start_span, SpanKind.CLIENT
        attributes = self._attributes(operation)

        def begin() -> OpenSpan | None:
            try:
                span = start(name, None, kind, attributes)
                if span is INVALID_SPAN:  # usual while no provider is set
                    return None
                return OpenSpan(span) if span.get_span_context().is_valid else None
            except Exception as error:  # noqa: BLE001 (of a sampler, or another part of the user's SDK)
                note_failure("beginning a span", error)
                return None

        return begin

    def state(self, name: str) -> OpenSpan | None:
        """Begin the span of a state that is folded. `name`: of its class. Returns None while nothing is traced."""
        return self.begin(f"state {name}", SpanKind.CLIENT, self._attributes("state"))

    def _attributes(self, operation: str) -> Attributes:
        return {SYSTEM: "eventfold", NAMESPACE: self.name, OPERATION: operation}

    def begin(
        self,
        name: str,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes | None = None,
    ) -> OpenSpan | None:
        """Begin a span below the current one. Returns None while nothing is traced."""
        try:
            span = self._tracer.start_span(name, None, kind, attributes)
            return OpenSpan(span) if span.get_span_context().is_valid else None
        except Exception as error:  # noqa: BLE001 (of a sampler, or another part of the user's SDK)
            note_failure("beginning a span", error)
            return None


class OpenSpan:
    """A span that has begun: `with span: …` makes it current, also for what is appended inside, and ends it.

    `carries`: whether events appended inside get its context. With `ends_later` the block leaves the span open, with
    the time of its end, until `end` is called: for blocks that others wait for, which no exporter may make longer.
    """

    __slots__ = ("_context", "_current", "_end_time", "carries", "ends_later", "is_recording", "span")
    _context: Token[Context | None] | None
    _current: Token[otel.Context]

    def __init__(self, span: Span, *, carries: bool = True, ends_later: bool = False) -> None:
        self.span, self.carries, self.ends_later = span, carries, ends_later
        self.is_recording = span.is_recording()
        self._end_time: int | None = None

    def __enter__(self) -> OpenSpan:
        self._context = CONTEXT.set(context_of(self.span.get_span_context())) if self.carries else None
        self._current = otel.attach(set_span_in_context(self.span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        otel.detach(self._current)
        if self._context is not None:
            CONTEXT.reset(self._context)
        if error is not None:
            self.fail(error)
        self._end_time = time.time_ns() if self.ends_later else None
        if not self.ends_later:
            self.end()

    def set(self, attributes: Attributes) -> None:
        """Set attributes."""
        if self.is_recording:
            self._guarded("setting attributes", self.span.set_attributes, attributes)

    def event(self, name: str, attributes: Attributes) -> None:
        """Add an event of the span."""
        if self.is_recording:
            self._guarded("adding an event of a span", self.span.add_event, name, attributes)

    def link(self, writers: Sequence[Link]) -> None:
        """Add links."""
        for each in writers:
            self._guarded("adding a link", self.span.add_link, each.context)

    def fail(self, error: BaseException) -> None:
        """Mark the span as failed, by the code of an error or the name of its class.

        The message of an error is left out, since it may quote a payload, a tag or a filter.
        """
        self._guarded("setting attributes", self.span.set_attribute, ERROR_TYPE, error_type(error))
        self._guarded("setting a status", self.span.set_status, Status(StatusCode.ERROR))

    def end(self) -> None:
        """End the span, at the time when its block ended."""
        self._guarded("ending a span", self.span.end, self._end_time)

    @staticmethod
    def _guarded(what: str, call: Callable[..., Any], *args: Any) -> None:
        try:
            call(*args)
        except Exception as error:  # noqa: BLE001 (of an exporter, or another part of the user's SDK)
            note_failure(what, error)


def written(receipt: Receipt) -> Attributes:
    """Return the attributes of events that were written now, or had been written before."""
    return {FIRST: receipt.first, LAST: receipt.last, REPEATED: receipt.repeated}


def error_type(error: BaseException) -> str:
    """Return the code of an error of the library, or the name of the class of another one."""
    if isinstance(error, HandlerFailed):
        error = error.error
    return error.code if isinstance(error, EventfoldError) else type(error).__qualname__


def note_failure(what: str, error: Exception) -> None:
    """Log an error of telemetry once for each kind: its causes repeat with every call."""
    kind = f"{what} {type(error).__qualname__}"
    if kind not in _failed_before:
        _failed_before.append(kind)
        logging.getLogger("eventfold").warning("Telemetry failed while %s, and goes on: %r", what, error)
