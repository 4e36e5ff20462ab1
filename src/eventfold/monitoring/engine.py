"""What a log uses, wrapped so that it is measured: the engine, the appender, the cache of states.

Each wrapper calls the wrapped object and then the recorder; a store that is not measured has none of them.
Knows: the ports, recorders. Does not know: stores, what is done with the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Literal, Protocol
from weakref import ref

import msgspec

from eventfold.concurrency.calls import Call
from eventfold.concurrency.group_commit import Appends
from eventfold.core.query import Query
from eventfold.core.state import State
from eventfold.log.context import Appender, Log
from eventfold.log.pipeline import DecisionPipeline
from eventfold.log.state_cache import StateCache
from eventfold.monitoring.recorder import Recorder
from eventfold.ports.engine import Engine
from eventfold.ports.messages import AppendRequest, Outcome, Page, Span
from eventfold.ports.wrapping import Wrapping

ReadKind = Literal["page", "state", "follow", "scan"]
HIT, CAUGHT_UP, MISS = ("hit",), ("caught_up",), ("miss",)


class MeasuredEngine(Wrapping):
    """An engine whose reads are counted, as reads of one kind; and the watchers that followers have, while they have.

    It is the outer one: what it measures is the time that a caller waits.
    """

    def __init__(self, engine: Engine, recorder: Recorder, kind: ReadKind) -> None:
        super().__init__(engine)
        self._recorder, self._kind, self._follows = recorder, (kind,), kind == "follow"

    async def read(self, query: Query, span: Span) -> Page:
        """See Engine.read."""
        started = perf_counter()
        page = await self.inner.read(query, span)
        self._recorder.read(self._kind, len(page.events), perf_counter() - started)
        return page

    def watch(self, notify: Callable[[], None]) -> Callable[[], None]:
        """See Engine.watch."""
        end = self.inner.watch(notify)
        if not self._follows:
            return end
        self._recorder.followed(1)
        is_open = [True]

        def stop() -> None:
            if is_open:
                is_open.clear()
                self._recorder.followed(-1)
            end()

        return stop


class MeasuredCommits:
    """The engine of an appender: each commit is counted, with the outcomes and types of its requests.

    A store that was measured twice has two recorders. Each counts for as long as its measured store is used.
    """

    def __init__(self, inner: Appends) -> None:
        self.inner = inner
        self._recorders: list[ref[Recorder]] = []

    def count_in(self, recorder: Recorder) -> None:
        """Count from now on in this recorder too."""
        kept = [each for each in self._recorders if each() not in (None, recorder)]
        self._recorders = [*kept, ref(recorder)]

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """See Engine.append_many."""
        started = perf_counter()
        try:
            outcomes = await self.inner.append_many(requests)
        except Exception as error:
            for each in self._recorders:
                if (recorder := each()) is not None:
                    recorder.not_committed(len(requests), error)
            raise
        seconds = perf_counter() - started
        for each in self._recorders:
            if (recorder := each()) is not None:
                recorder.committed(requests, outcomes, seconds)
        return outcomes


class CommittingAppender(Appender, Protocol):
    """An appender that commits by an engine, which may be replaced."""

    engine: Appends


class MeasuredAppender:
    """An appender: the time from queueing to the outcome is observed."""

    def __init__(self, inner: Appender, recorder: Recorder) -> None:
        self._inner, self._recorder = inner, recorder

    def append_alone(self, request: AppendRequest) -> Outcome | None:
        """See Appender.append_alone."""
        started = perf_counter()
        outcome = self._inner.append_alone(request)
        if outcome is not None:
            self._recorder.appended(perf_counter() - started)
        return outcome

    def enqueue(self, request: AppendRequest, call: Call) -> Any:
        """See Appender.enqueue."""
        return self._inner.enqueue(request, call)

    async def outcome(self, ticket: Any) -> Outcome:
        """See Appender.outcome."""
        started = perf_counter()
        outcome = await self._inner.outcome(ticket)
        self._recorder.appended(perf_counter() - started)
        return outcome


class MeasuredCache(StateCache):
    """A cache of states whose look-ups are counted: another view of the entries of `inner`.

    `of_decisions`: for the pipeline, which takes a state that it finds without reading the log; one that it does not
    find is looked up again for the read, and counted there.
    """

    def __init__(self, inner: StateCache, recorder: Recorder, *, of_decisions: bool) -> None:
        super().__init__(inner.size, inner.snapshots)
        self._inner, self._recorder, self._of_decisions = inner, recorder, of_decisions

    def get(self, key: Any, epoch: int) -> tuple[State, int] | None:
        """See StateCache.get."""
        found = self._inner.get(key, epoch)
        if not self._of_decisions:
            self._recorder.cached(MISS if found is None else CAUGHT_UP)
        return found

    def get_trusted(self, key: Any, epoch: int) -> tuple[State, int] | None:
        """See StateCache.get_trusted."""
        found = self._inner.get_trusted(key, epoch)
        if found is not None:
            self._recorder.cached(HIT)
        return found

    def distrust(self) -> None:
        """See StateCache.distrust."""
        self._inner.distrust()

    def put(self, key: Any, state: State, position: int, epoch: int) -> None:
        """See StateCache.put."""
        self._inner.put(key, state, position, epoch)

    def count_folded(self, key: Any, events: int | None) -> int:
        """See StateCache.count_folded."""
        return self._inner.count_folded(key, events)

    def clear(self) -> None:
        """See StateCache.clear."""
        self._inner.clear()


class MeasuredLogs:
    """The same log for each kind of read. They share the appender, the cache and the pipeline of decisions."""

    def __init__(self, log: Log, appender: CommittingAppender, recorder: Recorder) -> None:
        commits = appender.engine
        if not isinstance(commits, MeasuredCommits):
            commits = appender.engine = MeasuredCommits(commits)
        commits.count_in(recorder)
        decisions = MeasuredCache(log.cache, recorder, of_decisions=True)
        runtime = log.runtime
        self._engine, self._recorder = log.engine, recorder
        self._base = msgspec.structs.replace(
            log,
            cache=MeasuredCache(log.cache, recorder, of_decisions=False),
            appender=MeasuredAppender(appender, recorder),
            pipeline=DecisionPipeline(decisions, appender.enqueue, runtime.mutex(), runtime.promise),
        )
        self._logs: dict[ReadKind, Log] = {}

    def of(self, kind: ReadKind) -> Log:
        """Return the log whose reads count as this kind."""
        found = self._logs.get(kind)
        if found is None:
            engine = MeasuredEngine(self._engine, self._recorder, kind)
            found = self._logs[kind] = msgspec.structs.replace(self._base, engine=engine)
        return found
