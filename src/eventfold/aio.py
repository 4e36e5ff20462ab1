"""The public class for async code: `AsyncStore`, with the methods and arguments of `Store` (store.py), awaited.

Knows: the public methods. Does not know: how any of them is implemented.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import date
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar
from uuid import UUID

import msgspec

from eventfold.concurrency import CommitSignal, in_thread, run
from eventfold.core.aggregate import Aggregate
from eventfold.core.envelope import MAX_EVENTS_PER_APPEND, NewEvent, Receipt, Staged
from eventfold.core.event import Recorded
from eventfold.core.query import Cursor, Query
from eventfold.core.registry import Registry
from eventfold.core.renamed import refuse_old_attributes, refuse_old_keywords
from eventfold.core.state import State, Step
from eventfold.engines.addresses import without_secrets
from eventfold.log.append import (
    Asked,
    Unless,
    append,
    append_encoded,
    append_next,
    check_batches,
    query_of,
)
from eventfold.log.context import Command, Log, Options
from eventfold.log.copy import Copied, Progress, refuse_no_store, with_proof
from eventfold.log.copy import copy as copy_log
from eventfold.log.copy import verify as verify_log
from eventfold.log.cursors import cursor_after, known_position, position_of
from eventfold.log.decide import decide
from eventfold.log.decided import Decided
from eventfold.log.follow import LogFollower
from eventfold.log.lock import acquire, release
from eventfold.log.lock import names_of as lock_names
from eventfold.log.lock_holders import LockSet, whoami
from eventfold.log.lookups import counts_of, tag_keys_of, tag_names_of, tags_of
from eventfold.log.read import Bounds, History, Reader, event_of, resolve_position, state_at, tag_of
from eventfold.log.state_cache import StateCache
from eventfold.ports.engine import Engine
from eventfold.ports.messages import TagCount, TypeCount
from eventfold.ports.services import require
from eventfold.ports.target import Target
from eventfold.projections.admin import ProjectionAdmin
from eventfold.projections.async_admin import AsyncProjectionAdmin
from eventfold.projections.catalog import Named
from eventfold.projections.catch_up import CATCH_UP_TIMEOUT_S
from eventfold.projections.classes import Projection
from eventfold.projections.definition import ProjectionLike
from eventfold.projections.follower_progress import FollowerProgress
from eventfold.projections.followers import AsyncFollower
from eventfold.projections.handover import Handover
from eventfold.projections.pace import MAX_PAUSE_S
from eventfold.projections.rows_async import AsyncSelection
from eventfold.projections.view import View, view
from eventfold.searches import AsyncSearch
from eventfold.selection import Filter, Rows, Selection
from eventfold.store import EVERYTHING, context, with_options
from eventfold.transactions import AsyncJoining, confirm
from eventfold.wiring import Opening

if TYPE_CHECKING:
    from eventfold.alerts.async_admin import AsyncAlertAdmin
    from eventfold.processes.async_admin import AsyncProcessAdmin
    from eventfold.processes.runner import AsyncProcessRunner, Clock, Work

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=State)
A = TypeVar("A", bound=Aggregate)
M = TypeVar("M", bound=Projection)
St = TypeVar("St", bound="AsyncStore")


@refuse_old_attributes("Store")
class AsyncStore:
    """A log of events, for async code. Its arguments and errors are described at `Store`.

    It is opened by `async with`, or by its first call. Concurrent appends share one commit; no call blocks the event
    loop.
    """

    def __init__(
        self,
        url: str | Engine,
        *,
        create: bool = True,
        cache: int = 1_000,
        snapshots: int = 1_000,
        inline: Sequence[ProjectionLike] = (),
        target: str | Target | None = None,
        **options: Any,
    ) -> None:
        self.registry = Registry()
        self._options = Options()
        self._opening = Opening(
            url,
            StateCache(cache, snapshots),
            create=create,
            options=options,
            registry=self.registry,
            inline=inline,
            target=target,
        )

    @property
    def engine(self) -> Engine:
        """The engine, for tools. Raises StoreClosed before the store is open."""
        return self._opening.opened().engine

    @property
    def log(self) -> Log:
        """The log, for tools that append requests of the engine's port. Raises StoreClosed before the store is open."""
        return self._opening.opened()

    async def open(self: St) -> St:
        """Open the store now instead of at the first call, and return it. Raises what `Store(…)` raises."""
        await self._opening.log()
        return self

    # Writing

    async def append(
        self, *events: Any, unless: Unless = None, after: int | Cursor = 0, key: str | None = None
    ) -> Receipt:
        """See Store.append. If it is cancelled before its commit starts, it writes nothing; later, it may be written.

        Both raise a plain `asyncio.CancelledError`: to learn the outcome, repeat the append with the same event ids or
        the same `key`.
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
        """See Store.decide. The function is a plain `def`, not a coroutine function."""
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

    def with_authorization(self: St, by: Callable[[Command], None]) -> St:
        """See Store.with_authorization. `by` is a plain `def`, not a coroutine function."""
        view = copy.copy(self)
        view._options = msgspec.structs.replace(self._options, authorise=by)
        return view

    def in_transaction(self, connection: Any) -> AsyncJoining:
        """See Store.in_transaction: for psycopg's AsyncConnection and SQLAlchemy's AsyncConnection and AsyncSession."""
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
        log, hold = await self._opening.log(), LockSet(lock_names(asked), owner or whoami())
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
        """See Store.read: `async for recorded in store.read(…)`.

        **Events come in the order in which they were recorded, also with `occurred_since` and `occurred_until`.**
        """
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

    def search(self, filter: str = "", *, backwards: bool = True, within: Query | None = None) -> AsyncSearch:
        """See Store.search; the methods of the search are awaited."""
        return AsyncSearch(self._opening.log, filter, backwards, within)

    async def state(self, question: S, *, at: int | date | None = None, occurred_until: date | None = None) -> S:
        """See Store.state. **Events are folded in the order of recording, even with `occurred_until`.**"""
        return await state_at(await self._opening.log(), question, at, occurred_until)

    async def history(self, question: S, *, after: int = 0, until: int | date | None = None) -> AsyncIterator[Step[S]]:
        """See Store.history."""
        history = History(await self._opening.log(), question, after, until)
        while (steps := await history.next_steps()) is not None:
            for step in steps:
                yield step

    def follow(
        self, query: Query = EVERYTHING, *, name: str | None = None, after: int | Cursor | str = 0, raw: bool = False
    ) -> AsyncFollower:
        """See Store.follow: `async with store.follow(…) as follower`. Raises StoreClosed before the store is open."""

        async def keeping() -> FollowerProgress:
            return (await self._opening.admin()).follower_progress(name or "", query, after)

        log = self._opening.opened()
        kept = None if name is None else keeping
        return AsyncFollower(LogFollower(log, query, after, raw), CommitSignal(log.engine.watch), kept)

    async def count(self, query: Query = EVERYTHING, *, after: int = 0, until: int | date | None = None) -> int:
        """See Store.count."""
        log = await self._opening.log()
        start = await known_position(log, after, "after")
        return await log.engine.count(
            query_of(query), start, None if until is None else await resolve_position(log, until)
        )

    async def counts(self, query: Query, bounds: Sequence[int | date]) -> list[int]:
        """See Store.counts."""
        return await counts_of(await self._opening.log(), query_of(query), bounds)

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
        return await (await self._opening.log()).engine.receipt_of(key)

    async def types(self) -> list[TypeCount]:
        """See Store.types."""
        return await (await self._opening.log()).engine.types()

    async def tags(self, prefix: str = "", *, limit: int = 1_000, after: str = "") -> list[TagCount]:
        """See Store.tags."""
        return await tags_of(await self._opening.log(), prefix, limit, after)

    async def tag_names(self, prefix: str = "", *, limit: int = 1_000, after: str = "") -> list[str]:
        """See Store.tag_names."""
        return await tag_names_of(await self._opening.log(), prefix, limit, after)

    async def tag_keys(self, prefix: str = "", *, limit: int = 1_000, after: str = "") -> list[str]:
        """See Store.tag_keys."""
        return await tag_keys_of(await self._opening.log(), prefix, limit, after)

    async def tag(self, tag: str) -> TagCount:
        """See Store.tag."""
        return await tag_of(await self._opening.log(), tag)

    async def stats(self) -> dict[str, Any]:
        """See Store.stats."""
        return await (await self._opening.log()).engine.stats()

    # Read models

    async def project(
        self, *projections: ProjectionLike, timeout: float = CATCH_UP_TIMEOUT_S, progress: Progress | None = None
    ) -> None:
        """See Store.project."""
        admin = await self._opening.admin()
        await in_thread(lambda: admin.project(*projections, timeout=timeout, progress=progress))

    async def wait(self, projection: Named, position: int | None = None, timeout: float = CATCH_UP_TIMEOUT_S) -> int:
        """See Store.wait."""
        return await in_thread((await self._opening.admin()).wait, projection, position, timeout)

    async def rows(
        self,
        projection: type[M],
        /,
        *filters: Filter | Mapping[str, Any] | None,
        order: str | Sequence[str] = (),
        limit: int | None = None,
        after: str | None = None,
        wait: int | None = None,
        generation: int | None = None,
        **fields: Any,
    ) -> Rows[M]:
        """See Store.rows."""
        admin = await self._opening.admin()
        return await in_thread(
            lambda: admin.select(projection, filters, fields, order, generation, wait).rows(limit, after)
        )

    def select(
        self,
        projection: type[M],
        /,
        *filters: Filter | Mapping[str, Any] | None,
        order: str | Sequence[str] = (),
        wait: int | None = None,
        generation: int | None = None,
        **fields: Any,
    ) -> AsyncSelection[M]:
        """See Store.select. It waits for `wait` when one of its methods is called."""

        async def select() -> Selection[M]:
            admin = await self._opening.admin()
            return await in_thread(lambda: admin.select(projection, filters, fields, order, generation, wait))

        return AsyncSelection(select)

    async def view(
        self,
        projection: type[M],
        *,
        at: int | date | None = None,
        occurred_until: date | None = None,
        since: View[M] | None = None,
    ) -> View[M]:
        """See Store.view."""
        admin = await self._opening.admin()
        return await in_thread(lambda: run(view(admin.log, projection, at, since, occurred_until)))

    @property
    def projections(self) -> AsyncProjectionAdmin:
        """See Store.projections."""

        async def admin() -> ProjectionAdmin:
            return (await self._opening.admin()).using(self._options)

        return AsyncProjectionAdmin(admin)

    # Processes and effects

    @property
    def processes(self) -> AsyncProcessAdmin:
        """See Store.processes."""
        from eventfold.processes.async_admin import AsyncProcessAdmin

        return AsyncProcessAdmin(self.projections)

    @property
    def alerts(self) -> AsyncAlertAdmin:
        """See Store.alerts."""
        from eventfold.alerts.async_admin import AsyncAlertAdmin

        return AsyncAlertAdmin(self.projections, self._options)

    def run(self, *work: Work, clock: Clock | None = None, max_pause: float = MAX_PAUSE_S) -> AsyncProcessRunner:
        """See Store.run: `async with store.run(Payment): …`."""
        from eventfold.processes.runner import AsyncProcessRunner, wall_clock

        return AsyncProcessRunner(self._opening.admin, work, clock or wall_clock, max_pause)

    async def run_until_idle(
        self, *work: Work, clock: Clock | None = None, timeout: float = CATCH_UP_TIMEOUT_S
    ) -> None:
        """See Store.run_until_idle."""
        from eventfold.processes.runner import run_until_idle, wall_clock

        await in_thread(run_until_idle, await self._opening.admin(), work, clock or wall_clock, timeout)

    # Maintenance

    @refuse_old_keywords
    async def copy_to(
        self, target: AsyncStore, *, keep_identity: bool = False, verify: bool = True, progress: Progress | None = None
    ) -> Copied:
        """See Store.copy_to."""
        refuse_no_store(AsyncStore, target)
        here, there = (await self._opening.log()).engine, (await target._opening.log()).engine
        async with self._opening.own_target() as old, target._opening.own_target() as new:
            moving = await in_thread(lambda: Handover(old, new, (here, there), succeeds=keep_identity))

            async def begin() -> None:
                await in_thread(moving.begin)

            copied = await copy_log(
                here, there, keep_identity=keep_identity, progress=progress, before_succession=begin
            )
            copied = await in_thread(moving.finish, copied)
        return with_proof(copied, await verify_log(here, there, progress)) if verify else copied

    async def backup(self, path: str) -> None:
        """See Store.backup."""
        engine = (await self._opening.log()).engine
        await in_thread(require(engine, "backup"), path)

    async def close(self) -> None:
        """See Store.close."""
        await self._opening.close()

    async def __aenter__(self: St) -> St:
        return await self.open()

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        url = self._opening.url
        return f"{type(self).__name__}({(without_secrets(url) if isinstance(url, str) else url)!r})"


def opened_log(store: AsyncStore) -> Coroutine[Any, Any, Log]:
    """Return the log of a store, opened if need be: for the server, which passes on pages and whole conditions.

    To be awaited.
    """
    return store._opening.log()  # pyright: ignore[reportPrivateUsage] (one module)


def opened_admin(store: AsyncStore) -> Coroutine[Any, Any, ProjectionAdmin]:
    """Return the administration of projections of a store, for tools, opened if needed. It blocks: use it in a thread.

    Awaited.
    """
    return store._opening.admin()  # pyright: ignore[reportPrivateUsage] (one module)
