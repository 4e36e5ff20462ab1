"""The spans of one decision: the decision itself, and below it each read and each append that it makes.

Knows: the log that a decision uses, what a conflict is. Does not know: how a decision is made and repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import msgspec

from eventfold.concurrency.calls import Call
from eventfold.core.envelope import Receipt
from eventfold.errors import AppendConflict
from eventfold.log.context import Appender, Log
from eventfold.log.decided import Decided
from eventfold.ports.messages import AppendRequest, Outcome
from eventfold.telemetry.reads import TracedReads
from eventfold.telemetry.spans import BATCH_SIZE, OpenSpan, Spans, written

ATTEMPTS, ATTEMPT = "eventfold.attempts", "eventfold.attempt"
CONFLICT = "conflict"  # name of the span events of a decision


class DecisionSpans:
    """A decision in progress: `with spans: await decide(spans.log, …)`.

    Other decisions over the same states wait while this one reads and appends. So the spans of these calls are ended
    after the decision, with the times at which they ended: no exporter makes others wait.
    """

    def __init__(self, spans: Spans, span: OpenSpan, log: Log) -> None:
        self.spans, self.span = spans, span
        self.conflicts = 0
        self._open: list[OpenSpan] = []
        self.log = msgspec.structs.replace(
            log,
            engine=TracedReads(log.engine, lambda: self.later(spans.read())),
            appender=TracedAppender(log.appender, spans.append, self),
        )

    def later(self, span: OpenSpan | None) -> OpenSpan | None:
        """Take over a span that is to be ended after the decision."""
        if span is not None:
            span.ends_later = True
            self._open.append(span)
        return span

    def note(self, outcome: Outcome) -> None:
        """Add an event to the decision's span if an append met a conflict."""
        if isinstance(outcome, AppendConflict):
            self.conflicts += 1
            self.span.event(CONFLICT, {ATTEMPT: self.conflicts})

    def done(self, decided: Decided[Any]) -> None:
        """Set what came of the decision."""
        receipt = decided.receipt
        self.span.set({ATTEMPTS: decided.attempts, **({} if receipt is None else written(receipt))})

    def __enter__(self) -> DecisionSpans:
        self.span.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._open:
            each.end()
        if isinstance(error, AppendConflict):
            self.span.set({ATTEMPTS: self.conflicts})
        self.span.__exit__(kind, error, trace)


class TracedAppender:
    """An appender that makes a span of each append, from when its caller waits for the outcome.

    `decision`: the decision that appends; None for other callers.
    """

    def __init__(
        self, appender: Appender, begin: Callable[[], OpenSpan | None], decision: DecisionSpans | None = None
    ) -> None:
        self._appender, self._begin, self._decision = appender, begin, decision

    def append_alone(self, request: AppendRequest) -> None:
        """Nothing: the span of an append begins with its wait, and needs a request that is queued."""

    def enqueue(self, request: AppendRequest, call: Call) -> Any:
        """See Appender.enqueue."""
        return self._appender.enqueue(request, call)

    async def outcome(self, ticket: Any) -> Outcome:
        """See Appender.outcome."""
        decision, span = self._decision, self._begin()
        if span is None:
            return await self._appender.outcome(ticket)
        if decision is not None:
            decision.later(span)
        with span:
            outcome = await self._appender.outcome(ticket)
            if isinstance(outcome, Receipt):
                count = outcome.last - outcome.first + 1
                span.set(written(outcome) | ({BATCH_SIZE: count} if count > 1 else {}))
            else:
                span.fail(outcome)
        if decision is not None:
            decision.note(outcome)
        return outcome
