"""A Store whose calls make spans: `TracedStore`, made by `traced(store)`.

Knows: which calls have spans. Does not know: what their spans contain, how the calls are implemented.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import date
from typing import Any, ParamSpec, TypeVar

import msgspec

from eventfold.concurrency import run
from eventfold.core.envelope import MAX_EVENTS_PER_APPEND, NewEvent, Receipt
from eventfold.core.event import Recorded
from eventfold.core.query import Cursor, Query
from eventfold.core.state import State, Step
from eventfold.log.append import Unless, check_batches
from eventfold.log.decided import Decided
from eventfold.store import EVERYTHING, Store
from eventfold.telemetry.calls import timing_of, traced_append, traced_append_next, traced_decide, traced_state
from eventfold.telemetry.reads import TracedReads
from eventfold.telemetry.spans import Spans
from eventfold.telemetry.transactions import TracedJoining
from eventfold.telemetry.views import is_measured, same_store, traced_class
from eventfold.telemetry.work import TracedWork

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=State)


class TracedStore(Store):
    """A Store with traces. Its arguments and errors are described at `Store`; see `telemetry.traced`.

    `reading` is the same store with an engine that makes a span of each page; `plain` the class of the given store.
    """

    spans: Spans
    reading: Store
    plain: type[Store]

    @staticmethod
    def of(store: Store, spans: Spans) -> TracedStore:
        """Return the same store with these spans; it is also of the class of the store, which may be the user's own."""
        plain = store.plain if isinstance(store, TracedStore) else type(store)
        view = same_store(store, traced_class(plain, TracedStore))
        view.spans, view.plain = spans, plain
        view.reading = same_store(store, plain if is_measured(plain) else Store)
        view.reading._log = msgspec.structs.replace(store._log, engine=TracedReads(store._log.engine, spans.read))
        view._projections = store._projections.observed_by(TracedWork(spans))
        return view

    def append(self, *events: Any, unless: Unless = None, after: int | Cursor = 0, key: str | None = None) -> Receipt:
        """See Store.append."""
        if (span := self.spans.append()) is None:
            return super().append(*events, unless=unless, after=after, key=key)
        plain = super().append

        async def once() -> Receipt:
            return plain(*events, unless=unless, after=after, key=key)

        return run(traced_append(span, self._log, len(events), once))

    def append_encoded(
        self, *events: NewEvent, unless: Unless = None, after: int | Cursor = 0, key: str | None = None
    ) -> Receipt:
        """See Store.append_encoded."""
        if (span := self.spans.append()) is None:
            return super().append_encoded(*events, unless=unless, after=after, key=key)
        plain = super().append_encoded

        async def once() -> Receipt:
            return plain(*events, unless=unless, after=after, key=key)

        return run(traced_append(span, self._log, len(events), once))

    def extend(
        self,
        events: Iterable[Any],
        *,
        batch: int = MAX_EVENTS_PER_APPEND,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """See Store.extend."""
        check_batches(self._options, batch)
        count, rest = 0, iter(events)
        while written := run(traced_append_next(self.spans, self._log, self._options, rest, batch)):
            count += written
            if progress is not None:
                progress(count)
        return count

    def decide(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Decided[R]:
        """See Store.decide."""
        timing = timing_of(self, function)
        return run(traced_decide(self.spans, self._log, self._options, function, args, kwargs, timing))

    def in_transaction(self, connection: Any) -> TracedJoining:
        """See Store.in_transaction."""
        options = msgspec.structs.replace(self._options, connection=connection)
        return TracedJoining(self._log, options, self.spans)

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
    ) -> Iterator[Recorded[Any]]:
        """See Store.read."""
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

    def state(self, question: S, *, at: int | date | None = None, occurred_until: date | None = None) -> S:
        """See Store.state."""
        return run(traced_state(self.spans, self._log, question, at, occurred_until))

    def history(self, question: S, *, after: int = 0, until: int | date | None = None) -> Iterator[Step[S]]:
        """See Store.history."""
        return self.reading.history(question, after=after, until=until)
