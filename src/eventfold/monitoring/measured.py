"""Stores that are measured: the methods and results of `Store` and `AsyncStore`, and a recorder that counts.

Knows: which methods of a store belong to which kind of read. Does not know: what is counted where (recorder.py).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from time import perf_counter
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast, overload

import msgspec

from eventfold.aio import AsyncStore
from eventfold.errors import AppendConflict, InvalidInput
from eventfold.log.context import Log
from eventfold.log.decided import Decided
from eventfold.monitoring.engine import CommittingAppender, MeasuredLogs, ReadKind
from eventfold.monitoring.labels import check_name
from eventfold.monitoring.recorder import Recorder, TraceId
from eventfold.ports.target import Target
from eventfold.processes.effects import Effect
from eventfold.projections.admin import ProjectionAdmin
from eventfold.store import Store
from eventfold.wiring import Opening

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


def _name_of(function: Callable[..., Any]) -> str:
    """The name of a decision in the code. Never its repr, which may contain arguments."""
    name = getattr(function, "__qualname__", None) or getattr(getattr(function, "func", None), "__qualname__", None)
    return name if isinstance(name, str) else type(function).__name__


def _observed(work: Sequence[Any], recorder: Recorder) -> list[Any]:
    """The work of a runner, with effects whose calls are counted."""

    def call(each: Effect, argument: Any) -> Any:
        try:
            result = each.function(argument)
        except Exception:
            recorder.called(each.name, "failed")
            raise
        recorder.called(each.name, "delivered")
        return result

    return [
        msgspec.structs.replace(each, function=partial(call, each)) if isinstance(each, Effect) else each
        for each in work
    ]


class DecisionTiming:
    """The time and attempts of one decision, which are recorded at its end: `with timing as note: note(decided)`."""

    __slots__ = ("_attempts", "_most", "_name", "_recorder", "_started")

    def __init__(self, recorder: Recorder, function: Callable[..., Any], most: int) -> None:
        self._recorder, self._name, self._most, self._attempts = recorder, _name_of(function), most, 1

    def __enter__(self) -> Callable[[Decided[Any]], None]:
        self._started = perf_counter()
        return self._note

    def _note(self, decided: Decided[Any]) -> None:
        self._attempts = decided.attempts

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Exception):
            attempts = self._most if isinstance(error, AppendConflict) else self._attempts
            self._recorder.decided(self._name, attempts, perf_counter() - self._started)


class MeasuredStore(Store):
    """A store that is measured, made by `measured`. It shares everything with the store that it was made of."""

    def __init__(self, store: Store, recorder: Recorder) -> None:
        self.__dict__.update(store.__dict__)
        self.recorder = recorder
        self.unmeasured = store.projections  # for what reads the state of the store, which is not the work of its user
        self._logs = MeasuredLogs(self._log, cast(CommittingAppender, self._log.appender), recorder)
        self._log = self._logs.of("page")
        self._views: dict[ReadKind, Store] = {}  # with the options that were used last
        self._projections = self._projections.over(self._logs.of("scan"))

    def _as(self, kind: ReadKind) -> Store:
        """Return a store whose reads count as this kind, with the current options.

        If another wrapper has put its log into this store, that one is used, and its reads count as pages.
        """
        log = self._logs.of(kind) if self._log is self._logs.of("page") else self._log
        view = self._views.get(kind)
        if view is None or view._options is not self._options or view._log is not log:
            view = Store.__new__(Store)
            view.__dict__.update(self.__dict__)
            view._log, view.engine = log, log.engine
            self._views[kind] = view
        return view

    def decide(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Decided[R]:
        """See Store.decide."""
        with self.timing(function) as note:
            decided = self._as("state").decide(function, *args, **kwargs)
            note(decided)
            return decided

    def timing(self, function: Callable[..., Any]) -> DecisionTiming:
        """Return the timing of one decision: for `decide`, and for stores that wrap this one."""
        return DecisionTiming(self.recorder, function, self._options.attempts)

    @contextmanager
    def lock(self, *asked: Any, timeout: float = 10.0, owner: str | None = None) -> Generator[None, None, None]:
        """See Store.lock."""
        started, has_waited = perf_counter(), False
        try:
            with super().lock(*asked, timeout=timeout, owner=owner):
                self.recorder.locked(perf_counter() - started)
                has_waited = True
                yield
        finally:
            if not has_waited:
                self.recorder.locked(perf_counter() - started)

    def state(self, question: Any, **bounds: Any) -> Any:
        """See Store.state."""
        return self._as("state").state(question, **bounds)

    def history(self, question: Any, **bounds: Any) -> Any:
        """See Store.history."""
        return self._as("state").history(question, **bounds)

    def follow(self, *args: Any, **options: Any) -> Any:
        """See Store.follow."""
        return self._as("follow").follow(*args, **options)

    def run(self, *work: Any, **options: Any) -> Any:
        """See Store.run."""
        return super().run(*_observed(work, self.recorder), **options)

    def run_until_idle(self, *work: Any, **options: Any) -> None:
        """See Store.run_until_idle."""
        super().run_until_idle(*_observed(work, self.recorder), **options)


class MeasuredOpening(Opening):
    """The opening of an AsyncStore, whose log is measured as soon as it is open."""

    def __init__(self, inner: Opening, recorder: Recorder) -> None:
        self.url, self.recorder, self._inner_opening = inner.url, recorder, inner
        self._measured: MeasuredLogs | None = None
        self._of: Log | None = None
        self._pages: Log  # the measured log of `_of`
        self._over: tuple[ProjectionAdmin, ProjectionAdmin] | None = None

    def logs(self, log: Log) -> MeasuredLogs:
        """Return the measured logs of an open log."""
        if self._measured is None or self._of is not log:
            self._measured = MeasuredLogs(log, cast(CommittingAppender, log.appender), self.recorder)
            self._pages, self._of = self._measured.of("page"), log
        return self._measured

    def opened(self) -> Log:
        """See Opening.opened."""
        return self.logs(self._inner_opening.opened()).of("page")

    async def log(self) -> Log:
        """See Opening.log."""
        log = await self._inner_opening.log()
        return self._pages if log is self._of else self.logs(log).of("page")

    async def admin(self) -> ProjectionAdmin:
        """See Opening.admin."""
        admin = await self._inner_opening.admin()
        if self._over is None or self._over[0] is not admin:
            logs = MeasuredLogs(admin.log, cast(CommittingAppender, admin.log.appender), self.recorder)
            self._over = admin, admin.over(logs.of("scan"))
        return self._over[1]

    @asynccontextmanager
    async def own_target(self) -> AsyncGenerator[Target | None]:
        """See Opening.own_target."""
        async with self._inner_opening.own_target() as target:
            yield target

    async def close(self) -> None:
        """See Opening.close."""
        await self._inner_opening.close()


class _KindOpening(MeasuredOpening):
    """The same opening, whose reads count as another kind."""

    def __init__(self, whole: MeasuredOpening, kind: ReadKind) -> None:
        self.__dict__.update(whole.__dict__)
        self._whole = whole
        self._kind: ReadKind = kind

    def opened(self) -> Log:
        return self._whole.logs(self._whole._inner_opening.opened()).of(self._kind)

    async def log(self) -> Log:
        return self._whole.logs(await self._whole._inner_opening.log()).of(self._kind)

    async def admin(self) -> ProjectionAdmin:
        return await self._whole.admin()


class MeasuredAsyncStore(AsyncStore):
    """An AsyncStore that is measured, made by `measured`. It shares everything with the store that it was made of."""

    def __init__(self, store: AsyncStore, recorder: Recorder) -> None:
        self.__dict__.update(store.__dict__)
        self.recorder, self.unmeasured = recorder, store
        self._whole = MeasuredOpening(self._opening, recorder)
        self._opening = self._whole
        self._views: dict[ReadKind, AsyncStore] = {}  # with the options that were used last

    def _as(self, kind: ReadKind) -> AsyncStore:
        """Return a store whose reads count as this kind, with the current options. See MeasuredStore."""
        if self._opening is not self._whole:
            view = AsyncStore.__new__(AsyncStore)
            view.__dict__.update(self.__dict__)
            return view
        view = self._views.get(kind)
        if view is None or view._options is not self._options:
            view = AsyncStore.__new__(AsyncStore)
            view.__dict__.update(self.__dict__)
            view._opening = _KindOpening(self._whole, kind)
            self._views[kind] = view
        return view

    async def decide(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Decided[R]:
        """See Store.decide."""
        with self.timing(function) as note:
            decided = await self._as("state").decide(function, *args, **kwargs)
            note(decided)
            return decided

    def timing(self, function: Callable[..., Any]) -> DecisionTiming:
        """Return the timing of one decision: for `decide`, and for stores that wrap this one."""
        return DecisionTiming(self.recorder, function, self._options.attempts)

    @asynccontextmanager
    async def lock(self, *asked: Any, timeout: float = 10.0, owner: str | None = None) -> AsyncGenerator[None, None]:
        """See Store.lock."""
        started, has_waited = perf_counter(), False
        try:
            async with super().lock(*asked, timeout=timeout, owner=owner):
                self.recorder.locked(perf_counter() - started)
                has_waited = True
                yield
        finally:
            if not has_waited:
                self.recorder.locked(perf_counter() - started)

    async def state(self, question: Any, **bounds: Any) -> Any:
        """See Store.state."""
        return await self._as("state").state(question, **bounds)

    def history(self, question: Any, **bounds: Any) -> Any:
        """See Store.history."""
        return self._as("state").history(question, **bounds)

    def follow(self, *args: Any, **options: Any) -> Any:
        """See Store.follow."""
        return self._as("follow").follow(*args, **options)

    def run(self, *work: Any, **options: Any) -> Any:
        """See Store.run."""
        return super().run(*_observed(work, self.recorder), **options)

    async def run_until_idle(self, *work: Any, **options: Any) -> None:
        """See Store.run_until_idle."""
        await super().run_until_idle(*_observed(work, self.recorder), **options)


@overload
def measured(store: Store, name: str = "default", *, trace_id: TraceId | None = None) -> Store: ...
@overload
def measured(store: AsyncStore, name: str = "default", *, trace_id: TraceId | None = None) -> AsyncStore: ...
def measured(
    store: Store | AsyncStore, name: str = "default", *, trace_id: TraceId | None = None
) -> Store | AsyncStore:
    """Return the same store, and count what is done with it: `store = monitoring.measured(ef.Store("bank.db"))`.

    `name` is the label `store` of its metrics. Use the returned store; what the given one does is not counted, but for
    its commits. `trace_id` returns the id of the current trace, 32 hex digits, or None: it is kept with some durations.
    A store that is measured already is returned as it is. Raises InvalidInput for a name that is no text of at most 255
    characters, and for a store that is wrapped otherwise: measure it first.
    """
    if isinstance(store, MeasuredStore | MeasuredAsyncStore):
        return store
    if type(store) is Store:
        return MeasuredStore(store, Recorder(check_name(name), trace_id))
    if type(store) is AsyncStore:
        return MeasuredAsyncStore(store, Recorder(check_name(name), trace_id))
    raise InvalidInput(
        f"{type(store).__name__} is not a Store or an AsyncStore as eventfold makes it.",
        "Measure the store first, and wrap what `measured` returns.",
    )
