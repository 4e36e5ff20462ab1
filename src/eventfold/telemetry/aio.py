"""An AsyncStore whose calls make spans: `TracedAsyncStore`, made by `traced(store)`.

Knows: which calls have spans. Does not know: what their spans contain, how the calls are implemented.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from datetime import date
from typing import Any, ParamSpec, TypeVar

import msgspec
from opentelemetry.trace import TracerProvider

from eventfold.aio import AsyncStore
from eventfold.core.envelope import MAX_EVENTS_PER_APPEND, NewEvent, Receipt
from eventfold.core.event import Recorded
from eventfold.core.query import Cursor, Query
from eventfold.core.state import State, Step
from eventfold.log.append import Unless, check_batches
from eventfold.log.decided import Decided
from eventfold.store import EVERYTHING
from eventfold.telemetry.calls import timing_of, traced_append, traced_append_next, traced_decide, traced_state
from eventfold.telemetry.names import name_of_url
from eventfold.telemetry.opening import TracedOpening
from eventfold.telemetry.spans import Spans
from eventfold.telemetry.transactions import AsyncTracedJoining
from eventfold.telemetry.views import is_measured, same_store, traced_class
from eventfold.telemetry.work import TracedWork

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=State)


class TracedAsyncStore(AsyncStore):
    """An AsyncStore with traces. Its arguments and errors are described at `Store`; see `telemetry.traced`.

    `reading` is the same store with an engine that makes a span of each page; `plain` the class of the given store.
    """

    spans: Spans
    reading: AsyncStore
    plain: type[AsyncStore]

    @staticmethod
    def of(store: AsyncStore, name: str | None, provider: TracerProvider | None) -> TracedAsyncStore:
        """Return the same store with spans; it is also of the class of the store, which may be the user's own."""
        opening = store._opening
        spans = Spans(name or name_of_url(opening.url), provider)
        plain = store.plain if isinstance(store, TracedAsyncStore) else type(store)
        view = same_store(store, traced_class(plain, TracedAsyncStore))
        view.spans, view.plain = spans, plain
        view.reading = same_store(store, plain if is_measured(plain) else AsyncStore)
        view.reading._opening = TracedOpening(opening, reads=spans)
        view._opening = TracedOpening(opening, work=TracedWork(spans))
        return view

    async def append(
        self, *events: Any, unless: Unless = None, after: int | Cursor = 0, key: str | None = None
    ) -> Receipt:
        """See AsyncStore.append."""
        log = await self._opening.log()
        if (span := self.spans.append()) is None:
            return await super().append(*events, unless=unless, after=after, key=key)
        plain = super().append
        return await traced_append(span, log, len(events), lambda: plain(*events, unless=unless, after=after, key=key))

    async def append_encoded(
        self, *events: NewEvent, unless: Unless = None, after: int | Cursor = 0, key: str | None = None
    ) -> Receipt:
        """See AsyncStore.append_encoded."""
        log = await self._opening.log()
        if (span := self.spans.append()) is None:
            return await super().append_encoded(*events, unless=unless, after=after, key=key)
        plain = super().append_encoded
        return await traced_append(span, log, len(events), lambda: plain(*events, unless=unless, after=after, key=key))

    async def extend(
        self,
        events: Iterable[Any],
        *,
        batch: int = MAX_EVENTS_PER_APPEND,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """See AsyncStore.extend."""
        check_batches(self._options, batch)
        log, count, rest = await self._opening.log(), 0, iter(events)
        while written := await traced_append_next(self.spans, log, self._options, rest, batch):
            count += written
            if progress is not None:
                progress(count)
        return count

    async def decide(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Decided[R]:
        """See AsyncStore.decide."""
        timing = timing_of(self, function)
        return await traced_decide(self.spans, await self._opening.log(), self._options, function, args, kwargs, timing)

    def in_transaction(self, connection: Any) -> AsyncTracedJoining:
        """See AsyncStore.in_transaction."""
        options = msgspec.structs.replace(self._options, connection=connection)
        return AsyncTracedJoining(self._opening.log, options, self.spans)

    def read(
        self,
        query: Query = EVERYTHING,
        *,
        after: int | Cursor = 0,
        until: int | date | None = None,
        since: date | None = None,
        occurred_since: date | None = None,
        occurred_until: date | None = None,
        limit: int | None = None,
        backwards: bool = False,
        raw: bool = False,
    ) -> AsyncIterator[Recorded[Any]]:
        """See AsyncStore.read."""
        return self.reading.read(
            query,
            after=after,
            until=until,
            since=since,
            occurred_since=occurred_since,
            occurred_until=occurred_until,
            limit=limit,
            backwards=backwards,
            raw=raw,
        )

    async def state(self, question: S, *, at: int | date | None = None, occurred_until: date | None = None) -> S:
        """See AsyncStore.state."""
        return await traced_state(self.spans, await self._opening.log(), question, at, occurred_until)

    def history(self, question: S, *, after: int = 0, until: int | date | None = None) -> AsyncIterator[Step[S]]:
        """See AsyncStore.history."""
        return self.reading.history(question, after=after, until=until)
