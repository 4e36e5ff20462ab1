"""The spans of work that follows events: `project` for a page of a read model, `react` and `effect` for one event.

The events may have been written days before and elsewhere, so these spans link to those of their writers.
Knows: definitions and pages of read models. Does not know: threads, when a page is read.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from operator import attrgetter
from typing import Any

import msgspec
from opentelemetry.trace import SpanKind

from eventfold.core.envelope import StoredEvent
from eventfold.core.event import Recorded
from eventfold.log.context import Log
from eventfold.processes.effects import Effect
from eventfold.projections.definition import Handler, ProjectionDefinition, ProjectionLike, SubscriptionSpec
from eventfold.projections.observer import Committed
from eventfold.telemetry.context import links_to_writers
from eventfold.telemetry.decisions import TracedAppender
from eventfold.telemetry.spans import EVENTS, FIRST, LAST, OpenSpan, Spans

LAG, POSITION, EVENT_TYPE = "eventfold.lag_seconds", "eventfold.position", "eventfold.type"
_position = attrgetter("position")


class TracedWork:
    """The observer (projections/observer.py) that makes these spans."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans

    def log(self, log: Log) -> Log:
        """Return the log with spans around the appends of processes and timers."""
        return msgspec.structs.replace(log, appender=TracedAppender(log.appender, self._spans.append))

    def definition(self, projection: ProjectionLike, definition: ProjectionDefinition) -> ProjectionDefinition:
        """Return the definition with a span around each event of a process, an effect or a subscription."""
        if definition.kind != "effects":
            return definition
        is_process = isinstance(projection, SubscriptionSpec) and not isinstance(
            getattr(projection.handle, "__self__", None), Effect
        )
        name = f"{'react' if is_process else 'effect'} {definition.name}"
        handlers = tuple(self._traced(each, name, carries=is_process) for each in definition.handlers)
        return msgspec.structs.replace(definition, handlers=handlers)

    def _traced(self, handler: Handler, name: str, *, carries: bool) -> Handler:
        """Return a handler with a span. `carries`: whether what it appends gets the context of the span.

        An effect calls user code. That may append the same event again after a failure, with the same id, by a store
        without traces: with the context of another span it would be another event.
        """
        call, recorded_wanted = handler.call, handler.recorded

        def traced(recorded: Recorded[Any], *rest: Any) -> Any:
            given = recorded if recorded_wanted else recorded.event
            span = self._begin(name, (recorded.stored,))
            if span is None:
                return call(given, *rest)
            stored = recorded.stored
            span.carries = carries
            with span:
                span.set({POSITION: stored.position, EVENT_TYPE: stored.type, LAG: _seconds_since(stored)})
                return call(given, *rest)

        return handler if handler.batch else msgspec.structs.replace(handler, call=traced, recorded=True)

    def page(
        self, definition: ProjectionDefinition, events: Sequence[StoredEvent], lease: Committed
    ) -> AbstractContextManager[None]:
        """Return a span around the commit of a page of rows."""
        if definition.kind == "effects":
            return nullcontext()
        span = self._begin(f"project {definition.name}", events)
        return nullcontext() if span is None else _page(span, events, lease)

    def _begin(self, name: str, events: Sequence[StoredEvent]) -> OpenSpan | None:
        span = self._spans.begin(name, SpanKind.CONSUMER)
        if span is not None and span.is_recording:
            span.link(links_to_writers(events))
        return span


@contextmanager
def _page(span: OpenSpan, events: Sequence[StoredEvent], lease: Committed) -> Generator[None]:
    span.carries = False
    with span:
        yield
        checkpoint = lease.checkpoint
        count = len(events) if checkpoint is None else bisect_right(events, checkpoint.position, key=_position)
        if span.is_recording and count:
            last = events[count - 1]
            lag = _seconds_since(last)
            span.set({FIRST: events[0].position, LAST: last.position, EVENTS: count, LAG: lag})


def _seconds_since(stored: StoredEvent) -> float:
    """Return the seconds since an event was recorded, by the clock of this process; not below 0."""
    return max(0, time.time_ns() // 1_000 - stored.time) / 1e6
