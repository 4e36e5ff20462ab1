"""Appends and decisions in a transaction of the user, with spans: what `in_transaction` of a traced store returns.

Knows: which calls have spans. Does not know: when the transaction is committed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from eventfold.concurrency import run
from eventfold.core.envelope import NewEvent, Staged
from eventfold.core.query import Cursor
from eventfold.log.append import Unless
from eventfold.log.context import Log, Options
from eventfold.log.decided import Decided
from eventfold.telemetry.calls import traced_append, traced_decide
from eventfold.telemetry.spans import Spans
from eventfold.transactions import AsyncJoining, Joining

P = ParamSpec("P")
R = TypeVar("R")


class TracedJoining(Joining):
    """A Joining whose calls make spans. They end before the COMMIT, which the span of an append cannot show."""

    def __init__(self, log: Log, options: Options, spans: Spans) -> None:
        super().__init__(log, options)
        self._spans = spans

    def append(self, *events: Any, unless: Unless = None, after: int | Cursor = 0, key: str | None = None) -> Staged:
        """See Joining.append."""
        if (span := self._spans.append()) is None:
            return super().append(*events, unless=unless, after=after, key=key)
        plain = super().append

        async def once() -> Staged:
            return plain(*events, unless=unless, after=after, key=key)

        return run(traced_append(span, self._log, len(events), once))

    def append_encoded(
        self, *events: NewEvent, unless: Unless = None, after: int | Cursor = 0, key: str | None = None
    ) -> Staged:
        """See Joining.append_encoded."""
        if (span := self._spans.append()) is None:
            return super().append_encoded(*events, unless=unless, after=after, key=key)
        plain = super().append_encoded

        async def once() -> Staged:
            return plain(*events, unless=unless, after=after, key=key)

        return run(traced_append(span, self._log, len(events), once))

    def decide(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Decided[R]:
        """See Joining.decide."""
        return run(traced_decide(self._spans, self._log, self._options, function, args, kwargs))


class AsyncTracedJoining(AsyncJoining):
    """The same as `TracedJoining`, for async connections."""

    def __init__(self, log: Callable[[], Awaitable[Log]], options: Options, spans: Spans) -> None:
        super().__init__(log, options)
        self._spans = spans

    async def append(
        self, *events: Any, unless: Unless = None, after: int | Cursor = 0, key: str | None = None
    ) -> Staged:
        """See Joining.append."""
        log = await self._log()
        if (span := self._spans.append()) is None:
            return await super().append(*events, unless=unless, after=after, key=key)
        plain = super().append
        return await traced_append(span, log, len(events), lambda: plain(*events, unless=unless, after=after, key=key))

    async def append_encoded(
        self, *events: NewEvent, unless: Unless = None, after: int | Cursor = 0, key: str | None = None
    ) -> Staged:
        """See Joining.append_encoded."""
        log = await self._log()
        if (span := self._spans.append()) is None:
            return await super().append_encoded(*events, unless=unless, after=after, key=key)
        plain = super().append_encoded
        return await traced_append(span, log, len(events), lambda: plain(*events, unless=unless, after=after, key=key))

    async def decide(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Decided[R]:
        """See Joining.decide."""
        return await traced_decide(self._spans, await self._log(), self._options, function, args, kwargs)
