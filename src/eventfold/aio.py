"""Room: the façade for async users: `AsyncStore`, the twin of `Store`: same names, same arguments, awaited.

Knows: what a user may ask. Does not know: how any of it is done.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import date
from typing import Any, Concatenate, ParamSpec, TypeVar, cast
from uuid import UUID

import msgspec

from eventfold import concurrency
from eventfold.concurrency import Bell, Offload, TaskCombiner, in_thread, run
from eventfold.concurrency.once import Once
from eventfold.concurrency.own_loop import OwnLoop, current_loop
from eventfold.core.aggregate import Aggregate
from eventfold.core.codec import Registry
from eventfold.core.envelope import MAX_EVENTS_PER_APPEND, NewEvent, Receipt, Staged
from eventfold.core.event import Recorded
from eventfold.core.query import Cursor, Query
from eventfold.core.state import State, Step
from eventfold.engines import open_engine
from eventfold.errors import NotSupported, StoreClosed
from eventfold.log.append import (
    Asked,
    Unless,
    append,
    append_encoded,
    append_next,
    check_batches,
    known_position,
    position_of,
    query_of,
)
from eventfold.log.context import Command, Log, Options
from eventfold.log.copy import Copied, Progress, with_proof
from eventfold.log.copy import copy as copy_log
from eventfold.log.copy import verify as verify_log
from eventfold.log.decide import decide
from eventfold.log.decided import Decided
from eventfold.log.follow import Following, cursor_after
from eventfold.log.lock import acquire, release
from eventfold.log.lock import names_of as lock_names
from eventfold.log.lock_holders import Hold, Holds
from eventfold.log.pipeline import Chains
from eventfold.log.read import Bounds, History, Reader, event_of, moment, state_at, tag_of
from eventfold.log.state_cache import StateCache
from eventfold.ports.engine import Engine, TagCount, TypeCount
from eventfold.ports.target import Target
from eventfold.process.door import AsyncWorking, definitions
from eventfold.projection.plan import Kept
from eventfold.running.desk import Desk
from eventfold.running.finding import own_target_of
from eventfold.running.follower import AsyncFollower
from eventfold.running.keeping import Keeping
from eventfold.running.progress import Handover
from eventfold.store import EVERYTHING, context, refuse_backup, refuse_no_store, whoami, with_options
from eventfold.targets import default_target, own_target
from eventfold.transactions import AsyncJoining, confirm

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=State)
A = TypeVar("A", bound=Aggregate)
St = TypeVar("St", bound="AsyncStore")


class AsyncStore(AsyncWorking):
    """A log of events, for async code. Arguments and errors are those of `Store`, where they are described.

    Opened by `async with`, or by its first call. Concurrent appends share one commit; no call blocks the loop.
    """

    def __init__(
        self,
        url: str | Engine,
        *,
        create: bool = True,
        cache: int = 1_000,
        snapshots: int = 1_000,
        inline: Sequence[Kept] = (),
        target: str | None = None,
        **options: Any,
    ) -> None:
        self.registry = Registry()
        self._options = Options()
        self._opening = _Opening(url, create, options, self.registry, StateCache(cache, snapshots), inline, target)

    @property
    def engine(self) -> Engine:
        """The engine underneath, for tools; there once the store is open."""
        return self._opening.opened().engine

    async def _desk(self) -> Desk:
        return await self._opening.desk()

    async def open(self: St) -> St:
        """Open the store now rather than at the first call. Raises what `Store(…)` raises."""
        await self._opening.log()
        return self

    # Writing

    async def append(
        self, *events: Any, unless: Unless = None, after: int | Cursor = 0, key: str | None = None
    ) -> Receipt:
        """See Store.append. Cancelled before its turn it has written nothing; after it, it may be written.

        The cancellation is a plain `asyncio.CancelledError` in either case: to learn the outcome, repeat the append
        with the same event ids or the same `key`.
        """
        return await append(await self._opening.log(), self._options, events, unless, after, key)

    async def append_encoded(
        self, *events: NewEvent, unless: Unless = None, after: int | Cursor = 0, key: str | None = None
    ) -> Receipt:
        """See Store.append_encoded."""
        return await append_encoded(await self._opening.log(), self._options, events, unless, after, key)

    async def extend(
        self,
        events: Iterable[Any],
        *,
        batch: int = MAX_EVENTS_PER_APPEND,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """See Store.extend."""
        check_batches(self._options, batch)
        count, rest = 0, iter(events)
        while written := await append_next(await self._opening.log(), self._options, rest, batch):
            count += written
            if progress is not None:
                progress(count)
        return count

    async def decide(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Decided[R]:
        """See Store.decide. The function is a plain one: it decides, it does not wait."""
        return await decide(await self._opening.log(), self._options, function, args, kwargs)

    async def change(
        self, method: Callable[Concatenate[A, P], R], aggregate: A, /, *args: P.args, **kwargs: P.kwargs
    ) -> Decided[R]:
        """See Store.change."""
        return await self.decide(method, aggregate, *args, **kwargs)

    def using(self: St, *, attempts: int | None = None, command_id: str | None = None, **metadata: Any) -> St:
        """See Store.using."""
        view = copy.copy(self)
        view._options = with_options(self._options, attempts, command_id, metadata)
        return view

    def authorised(self: St, by: Callable[[Command], None]) -> St:
        """See Store.authorised. A plain function: it decides, it does not wait."""
        view = copy.copy(self)
        view._options = msgspec.structs.replace(self._options, authorise=by)
        return view

    def joining(self, connection: Any) -> AsyncJoining:
        """See Store.joining: for psycopg's AsyncConnection and SQLAlchemy's AsyncConnection and AsyncSession."""
        return AsyncJoining(self._opening.log, msgspec.structs.replace(self._options, connection=connection))

    async def confirm(self, staged: Staged) -> Receipt | None:
        """See Store.confirm."""
        return await confirm(await self._opening.log(), staged)

    def context(self, **metadata: Any) -> AbstractContextManager[None]:
        """See Store.context. A plain `with`, not `async with`."""
        return context(metadata)

    @asynccontextmanager
    async def lock(self, *asked: Asked, timeout: float = 10.0, owner: str | None = None) -> AsyncGenerator[None, None]:
        """See Store.lock: `async with store.lock(…)`."""
        log, hold = await self._opening.log(), Hold(lock_names(asked), owner or whoami())
        try:
            await acquire(log, hold, timeout)
            yield
        finally:
            await release(log, hold)

    # Reading

    async def read(
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
        """See Store.read: `async for recorded in store.read(…)`, **in the order recorded, also with `occurred_…`.**"""
        bounds = Bounds(
            after=after,
            until=until,
            since=since,
            occurred_since=occurred_since,
            occurred_until=occurred_until,
            limit=limit,
            backwards=backwards,
        )
        reader = Reader(await self._opening.log(), query, bounds, raw)
        while (page := await reader.next_page()) is not None:
            for recorded in page:
                yield recorded

    async def event(self, id: UUID | str, *, raw: bool = False) -> Recorded[Any] | None:
        """See Store.event."""
        return await event_of(await self._opening.log(), id, raw)

    async def state(self, question: S, *, at: int | date | None = None, occurred_until: date | None = None) -> S:
        """See Store.state. **Folded in the order in which events were recorded, also with `occurred_until`.**"""
        return await state_at(await self._opening.log(), question, at, occurred_until)

    async def history(self, question: S, *, after: int = 0, until: int | date | None = None) -> AsyncIterator[Step[S]]:
        """See Store.history."""
        history = History(await self._opening.log(), question, Bounds(until=until))
        while (steps := await history.next_steps()) is not None:
            for step in steps:
                if step.recorded.position > after:
                    yield step

    def follow(
        self, query: Query = EVERYTHING, *, name: str | None = None, after: int | Cursor | str = 0, raw: bool = False
    ) -> AsyncFollower:
        """See Store.follow. The store must be open; `async with store.follow(…) as follower`."""

        async def keeping() -> Keeping:
            return (await self._opening.desk()).keeping(name or "", query, after)

        log = self._opening.opened()
        kept = None if name is None else keeping
        return AsyncFollower(Following(log, query, after, raw), Bell(log.engine.watch), kept)

    async def count(self, query: Query = EVERYTHING, *, after: int = 0, until: int | date | None = None) -> int:
        """See Store.count."""
        log = await self._opening.log()
        start = await known_position(log, after)
        return await log.engine.count(query_of(query), start, None if until is None else await moment(log, until))

    async def head(self) -> int:
        """See Store.head."""
        return (await (await self._opening.log()).engine.head()).position

    async def cursor(self, position: int | None = None) -> Cursor:
        """See Store.cursor."""
        log = await self._opening.log()
        return await cursor_after(log, await self.head() if position is None else position)

    async def verify(self, cursor: Cursor | str) -> int:
        """See Store.verify."""
        cursor = Cursor.parse(cursor) if isinstance(cursor, str) else cursor
        return await position_of(await self._opening.log(), cursor)

    async def receipt(self, key: str) -> Receipt | None:
        """See Store.receipt."""
        return await (await self._opening.log()).engine.request(key)

    async def types(self) -> list[TypeCount]:
        """See Store.types."""
        return await (await self._opening.log()).engine.types()

    async def tags(self, prefix: str = "", *, limit: int = 1_000, after: str = "") -> list[TagCount]:
        """See Store.tags."""
        return await (await self._opening.log()).engine.tags(prefix, limit, after)

    async def tag(self, tag: str) -> TagCount:
        """See Store.tag."""
        return await tag_of(await self._opening.log(), tag)

    async def stats(self) -> dict[str, Any]:
        """See Store.stats."""
        return await (await self._opening.log()).engine.stats()

    # Keeping

    async def copy_to(
        self, target: AsyncStore, *, succeed: bool = False, verify: bool = True, progress: Progress | None = None
    ) -> Copied:
        """See Store.copy_to."""
        refuse_no_store(AsyncStore, target)
        here, there = (await self._opening.log()).engine, (await target._opening.log()).engine
        async with self._opening.own_target() as old, target._opening.own_target() as new:
            moving = await in_thread(lambda: Handover(old, new, (here, there), succeeds=succeed))

            async def begin() -> None:
                await in_thread(moving.begin)

            copied = await copy_log(here, there, succeed=succeed, progress=progress, before_succession=begin)
            copied = await in_thread(moving.finish, copied)
        return with_proof(copied, await verify_log(here, there, progress)) if verify else copied

    async def backup(self, path: str) -> None:
        """See Store.backup."""
        engine = (await self._opening.log()).engine
        await asyncio.to_thread(getattr(engine, "backup", None) or refuse_backup(engine), path)

    async def close(self) -> None:
        """See Store.close."""
        await self._opening.close()

    async def __aenter__(self: St) -> St:
        return await self.open()

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._opening.url!r})"


class _Opening:
    """A store that opens once, whoever asks first, however many ask at once."""

    def __init__(
        self,
        url: str | Engine,
        create: bool,
        options: dict[str, Any],
        registry: Registry,
        cache: StateCache,
        inline: Sequence[Kept],
        target: str | None,
    ) -> None:
        self.url, self._inline, self._target = url, inline, target
        self._create, self._options = create, options
        self._registry, self._cache = registry, cache
        self._log: Log | None = None
        self._once: Once[Log] = Once()
        self._desk_once: Once[Desk] = Once()
        self._own_loop: OwnLoop | None = None
        self._close: Callable[[], None] | None = None
        self._blocking: Engine | None = None
        self._suspending: Engine | None = None
        self._desk: Desk | None = None

    def opened(self) -> Log:
        if self._log is None:
            raise StoreClosed(
                f"The store {self.url!r} is not open yet.",
                "Enter `async with AsyncStore(…)`, or await store.open(), first.",
            )
        return self._log

    async def log(self) -> Log:
        if self._log is None:
            current_loop()
            self._log = await self._once.get(self._open)
        if self._own_loop is not None:
            self._own_loop.refuse_others()
        return self._log

    async def _open(self) -> Log:
        engine = open_engine(self.url, "async", self._create, self._options)
        self._blocking, self._suspending = (None, engine) if engine.capabilities.suspends else (engine, None)
        if engine.capabilities.suspends:
            self._own_loop = OwnLoop()
            await engine.open()
            combiner: Any = concurrency.LoopCombiner(engine)
        elif engine.capabilities.blocks:
            await asyncio.to_thread(run, engine.open())
            combiner, engine = TaskCombiner(engine), cast("Engine", Offload(engine))
        else:
            await engine.open()
            combiner = concurrency.Alone(engine)
        self._close = combiner.close
        if self._inline:
            try:
                combiner = await self._folded(engine, combiner)
            except BaseException:
                await self._end(engine)
                raise
        return Log(
            *(engine, self._registry, self._cache),
            *(combiner.submit, combiner.offer, concurrency.sleep_on_loop, concurrency.wait_on_loop),
            chains=Chains(concurrency.Mutex(), concurrency.Promise),
            holds=Holds(concurrency.Mutex()),
        )

    async def _folded(self, engine: Engine, combiner: Any) -> Any:
        """What appends go through where read models are folded within them: an engine that blocks, on a thread."""
        desk = await self._make_desk()
        await asyncio.to_thread(desk.inline, *self._inline)
        if not engine.capabilities.suspends:
            return combiner
        assert self._blocking is not None
        combiner = TaskCombiner(self._blocking)
        self._close = combiner.close
        return combiner

    @asynccontextmanager
    async def own_target(self) -> AsyncGenerator[Target | None]:
        """Where the store keeps progress; None where its engine has no place for it.

        Opened for this use alone where read models need an engine of their own, which would take note of the identity.
        """
        engine = (await self.log()).engine
        if self._desk is not None or not engine.capabilities.suspends:
            yield own_target_of(await self.desk())
        elif self._target or default_target(engine):
            found = own_target(engine, self._target)
            try:
                yield found
            finally:
                await in_thread(found.close)
        else:
            yield None

    async def desk(self) -> Desk:
        """See Store.projections."""
        await self.log()
        return await self._make_desk()

    async def _make_desk(self) -> Desk:
        """Projections are run by threads, so they see the log by an engine that blocks: this one, or a second."""
        return await self._desk_once.get(self._new_desk)

    async def _new_desk(self) -> Desk:
        engine = self._blocking or await self._second_engine()
        if self._blocking is None:
            await asyncio.to_thread(run, engine.open())
            self._blocking = engine
        combiner = concurrency.ThreadCombiner(engine)
        log = Log(
            *(engine, self._registry, self._cache),
            *(combiner.submit, combiner.offer, concurrency.sleep_here, concurrency.wait_here),
            chains=Chains(concurrency.Mutex(), concurrency.Promise),
            holds=Holds(concurrency.Mutex()),
        )
        self._desk = Desk(log, self._target, resolve=definitions)
        return self._desk

    async def _second_engine(self) -> Engine:
        """An engine that blocks, on the same store: by the store's address, or by the engine that was given."""
        share = getattr(self._suspending, "share", None)
        if isinstance(self.url, str) and share is not None:  # the connections that pool= allows are for both
            await share()
            return cast("Any", self._suspending).blocking()
        if isinstance(self.url, str):
            return open_engine(self.url, "sync", False, self._options)
        blocking: Callable[[], Engine] | None = getattr(self.url, "blocking", None)
        if blocking is None:
            raise NotSupported(
                f"Read models are run by threads, and the {self.url.name} engine given here only works on a loop.",
                "Open the store by its address; or give the engine a method blocking() that returns one that blocks.",
                engine=self.url.name,
                capability="blocking",
            )
        return blocking()

    async def close(self) -> None:
        if self._log is not None:
            await self._end(self._log.engine)

    async def _end(self, engine: Engine) -> None:
        if self._desk is not None:
            await asyncio.to_thread(self._desk.close)
        if self._close is not None:
            await asyncio.to_thread(self._close)
        if engine.capabilities.suspends and self._blocking is not None:
            await asyncio.to_thread(run, self._blocking.close())
        await engine.close()
