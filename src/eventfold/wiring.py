"""Builds the parts of a store from its addresses, and opens those of an `AsyncStore`.

Knows: which engine and which target an address means, which engine blocks. Does not know: the methods of a store.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from eventfold.concurrency import ThreadGroupCommit, ThreadRuntime, in_thread, run
from eventfold.core.registry import Registry
from eventfold.core.store_address import store_address
from eventfold.engines import open_engine
from eventfold.engines.addresses import without_secrets
from eventfold.errors import StoreClosed
from eventfold.log.context import Appender, Log, Runtime
from eventfold.log.lock_holders import LockTable
from eventfold.log.pipeline import DecisionPipeline
from eventfold.log.state_cache import StateCache
from eventfold.ports.engine import Engine
from eventfold.ports.services import require
from eventfold.ports.sink import Sink
from eventfold.ports.target import Target
from eventfold.projections.admin import ProjectionAdmin
from eventfold.projections.catalog import ProjectionCatalog
from eventfold.projections.definition import ProjectionLike
from eventfold.targets import open_target, own_target

if TYPE_CHECKING:
    from eventfold.concurrency.loop import OwnLoop


class ClosingAppender(Appender, Protocol):
    """An appender that may have threads of its own."""

    def close(self) -> None:
        """End its threads."""
        ...


def log_of(engine: Engine, registry: Registry, cache: StateCache, appender: Appender, runtime: Runtime) -> Log:
    """Return the log of an open engine."""
    return Log(
        engine=engine,
        registry=registry,
        cache=cache,
        appender=appender,
        runtime=runtime,
        pipeline=DecisionPipeline(cache, appender.enqueue, runtime.mutex(), runtime.promise),
        lock_table=LockTable(runtime.mutex()),
    )


def log_of_threads(engine: Engine, registry: Registry, cache: StateCache) -> Log:
    """Return the log of an open engine whose calls block, for callers in threads."""
    return log_of(
        engine, registry, cache, ThreadGroupCommit(engine, gathers=engine.capabilities.blocks), ThreadRuntime()
    )


def open_log(url: str | Engine, cache: StateCache, *, create: bool, options: dict[str, Any]) -> Log:
    """Open the engine at an address, for callers in threads. Raises what `Store(…)` raises."""
    engine = open_engine(url, "sync", create, options)
    run(engine.open())
    return log_of_threads(engine, Registry(), cache)


def _definitions(found: Any, log: Log) -> list[ProjectionLike]:
    """Return the definitions to run for a class, an effect or an address MODULE:NAME. Raises InvalidProjection."""
    from eventfold.processes.work import definitions  # here, so that a store that runs nothing does not import it

    return definitions(found, log)


def projection_admin(
    log: Log, target: str | Target | None = None, *, lease: float = 10.0, url: str | Engine = ""
) -> ProjectionAdmin:
    """Return the administration of a store's projections, for a log whose calls block.

    `target` is the address where rows and checkpoints are stored, or a target; by default the engine's default target.
    `lease` is in seconds. `url` is the address of the store, for messages.
    """
    engine = log.engine

    def open_at(address: str | Sink | None, own: Callable[[], Target]) -> Target:
        return own_target(engine, target) if address is None else open_target(engine, address, own)

    has_own_target = bool(target or engine.default_target)
    named = store_address(url, target, without_secrets)
    catalog = ProjectionCatalog(
        log, open_at, has_own_target=has_own_target, resolve=_definitions, lease=lease, address=named
    )
    return ProjectionAdmin(catalog)


class Opening:
    """The parts of an AsyncStore. Each is opened once, by the first call that needs it, also with concurrent calls."""

    def __init__(
        self,
        url: str | Engine,
        cache: StateCache,
        *,
        create: bool,
        options: dict[str, Any],
        registry: Registry,
        inline: Sequence[ProjectionLike],
        target: str | Target | None,
    ) -> None:
        from eventfold.concurrency.loop import AsyncOnce  # here: it imports asyncio, which sync code does not need

        self.url, self._inline, self._target = url, inline, target
        self._create, self._options = create, options
        self._registry, self._cache = registry, cache
        self._log: Log | None = None
        self._admin: ProjectionAdmin | None = None
        self._log_once: AsyncOnce[Log] = AsyncOnce()
        self._admin_once: AsyncOnce[ProjectionAdmin] = AsyncOnce()
        self._own_loop: OwnLoop | None = None
        self._appender: ClosingAppender | None = None
        self._blocking: Engine | None = None
        self._suspending: Engine | None = None

    def opened(self) -> Log:
        """Return the log. Raises StoreClosed if it is not open yet."""
        if self._log is None:
            raise StoreClosed(
                f"The store {self.url!r} is not open yet.",
                "First enter `async with AsyncStore(…)`, or await store.open().",
            )
        return self._log

    async def log(self) -> Log:
        """Return the log; the first call opens it."""
        if self._log is None:
            from eventfold.concurrency.loop import current_loop

            current_loop()
            self._log = await self._log_once.get(self._open)
        if self._own_loop is not None:
            self._own_loop.refuse_others()
        return self._log

    async def _open(self) -> Log:
        from eventfold.concurrency.loop import DirectCommit, LoopGroupCommit, LoopRuntime, OwnLoop
        from eventfold.concurrency.offload import Offload, OffloadedGroupCommit

        engine = open_engine(self.url, "async", self._create, self._options)
        self._blocking, self._suspending = (None, engine) if engine.capabilities.suspends else (engine, None)
        if engine.capabilities.suspends:
            self._own_loop = OwnLoop()
            await engine.open()
            self._appender = LoopGroupCommit(engine)
        elif engine.capabilities.blocks:
            await in_thread(run, engine.open())
            self._appender, engine = OffloadedGroupCommit(engine), Offload(engine)
        else:
            await engine.open()
            self._appender = DirectCommit(engine)
        if self._inline:
            try:
                await self._add_inline(engine)
            except BaseException:
                await self._end(engine)
                raise
        return log_of(engine, self._registry, self._cache, self._appender, LoopRuntime())

    async def _add_inline(self, engine: Engine) -> None:
        """Register the inline read models. If the engine suspends, a blocking engine then makes the commits."""
        from eventfold.concurrency import OffloadedGroupCommit

        admin = await self._make_admin()
        await in_thread(admin.inline, *self._inline)
        if engine.capabilities.suspends:
            assert self._blocking is not None
            self._appender = OffloadedGroupCommit(self._blocking)

    async def admin(self) -> ProjectionAdmin:
        """Return the administration of projections; the first call opens it."""
        await self.log()
        return await self._make_admin()

    async def _make_admin(self) -> ProjectionAdmin:
        return await self._admin_once.get(self._new_admin)

    async def _new_admin(self) -> ProjectionAdmin:
        """Create the administration. Projections run in threads, which need a blocking engine: this or another one."""
        engine = self._blocking or await self._second_engine()
        if self._blocking is None:
            await in_thread(run, engine.open())
            self._blocking = engine
        self._admin = projection_admin(log_of_threads(engine, self._registry, self._cache), self._target, url=self.url)
        return self._admin

    async def _second_engine(self) -> Engine:
        """Return a blocking engine for the same store, from the store's address or from the suspending engine."""
        assert self._suspending is not None
        if isinstance(self.url, str):
            blocking = self._suspending.services.blocking
            if blocking is None:
                return open_engine(self.url, "sync", False, self._options)
            await blocking.share()  # both engines share the number of connections that pool= allows
            return blocking.blocking_engine()
        return require(self._suspending, "blocking").blocking_engine()

    @asynccontextmanager
    async def own_target(self) -> AsyncGenerator[Target | None]:
        """The target where the store keeps checkpoints; None if its engine has no target.

        If the store's engine suspends and no administration is open, a target is opened for this use only: the second
        engine of an administration would remember the store's identity, which a copy may change.
        """
        engine = (await self.log()).engine
        if self._admin is not None or not engine.capabilities.suspends:
            yield (await self.admin()).catalog.own_target()
        elif self._target or engine.default_target:
            found = own_target(engine, self._target)
            try:
                yield found
            finally:
                await in_thread(found.close)
        else:
            yield None

    async def close(self) -> None:
        """Close the parts that are open."""
        if self._log is not None:
            await self._end(self._log.engine)

    async def _end(self, engine: Engine) -> None:
        if self._admin is not None:
            await in_thread(self._admin.close)
        if self._appender is not None:
            await in_thread(self._appender.close)
        if engine.capabilities.suspends and self._blocking is not None:
            await in_thread(run, self._blocking.close())
        await engine.close()
