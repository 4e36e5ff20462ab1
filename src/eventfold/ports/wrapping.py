"""A base class for engines that wrap another engine: it forwards every call, and a subclass overrides some of them.

Knows: the port and its services. Does not know: any engine, what a subclass changes.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Sequence
from types import CoroutineType
from typing import Any, ParamSpec, Protocol, TypeVar

from eventfold.core.envelope import Receipt, Staged, StoredEvent
from eventfold.core.query import Query
from eventfold.core.snapshot import Snapshot
from eventfold.ports.engine import Engine
from eventfold.ports.inline import ExclusiveTransaction, InlineProjector, InlineRegistration
from eventfold.ports.integrity import Problem, Progress
from eventfold.ports.messages import AppendRequest, Capabilities, Head, Outcome, Page, Span, TagCount, TypeCount
from eventfold.ports.services import (
    InlineProjections,
    Judged,
    Locks,
    Lookups,
    Maintenance,
    ReindexResult,
    Replica,
    Replication,
    RestoreResult,
    Services,
    Snapshots,
    Transactions,
    UpgradeResult,
)

P = ParamSpec("P")
T = TypeVar("T")


class Wrapping:
    """An engine that forwards each call to the engine `inner`, and has its services.

    Override a method to change one call, or `call` to change every call that is a coroutine. To do the same for the
    services, override `services` with `wrap_services`.
    """

    def __init__(self, engine: Engine) -> None:
        self.inner = engine
        self.name: str = engine.name
        self.capabilities: Capabilities = engine.capabilities

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"

    @property
    def services(self) -> Services:
        """See Engine.services."""
        return self.inner.services

    @property
    def store_id(self) -> str:
        """See Engine.store_id."""
        return self.inner.store_id

    @property
    def epoch(self) -> int:
        """See Engine.epoch."""
        return self.inner.epoch

    @property
    def default_target(self) -> str | None:
        """See Engine.default_target."""
        return self.inner.default_target

    async def call(self, method: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **named: P.kwargs) -> T:
        """Call a method of the inner engine. Every forwarded coroutine passes through here."""
        return await method(*args, **named)

    async def open(self) -> None:
        """See Engine.open."""
        return await self.call(self.inner.open)

    async def close(self) -> None:
        """See Engine.close."""
        return await self.call(self.inner.close)

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """See Engine.append_many."""
        return await self.call(self.inner.append_many, requests)

    async def read(self, query: Query, span: Span) -> Page:
        """See Engine.read."""
        return await self.call(self.inner.read, query, span)

    async def head(self) -> Head:
        """See Engine.head."""
        return await self.call(self.inner.head)

    async def count(self, query: Query, after: int = 0, until: int | None = None) -> int:
        """See Engine.count."""
        return await self.call(self.inner.count, query, after, until)

    async def position_at(self, time: int) -> int:
        """See Engine.position_at."""
        return await self.call(self.inner.position_at, time)

    async def event_id(self, position: int) -> bytes | None:
        """See Engine.event_id."""
        return await self.call(self.inner.event_id, position)

    async def boundary(self, position: int) -> int:
        """See Engine.boundary."""
        return await self.call(self.inner.boundary, position)

    async def receipt_of(self, key: str) -> Receipt | None:
        """See Engine.receipt_of."""
        return await self.call(self.inner.receipt_of, key)

    async def types(self) -> list[TypeCount]:
        """See Engine.types."""
        return await self.call(self.inner.types)

    async def tags(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[TagCount]:
        """See Engine.tags."""
        return await self.call(self.inner.tags, prefix, limit, after)

    async def stats(self) -> dict[str, Any]:
        """See Engine.stats."""
        return await self.call(self.inner.stats)

    def watch(self, notify: Callable[[], None]) -> Callable[[], None]:
        """See Engine.watch."""
        return self.inner.watch(notify)


class Caller(Protocol):
    """A function that calls a method of a service, as `Wrapping.call` calls a method of an engine."""

    def __call__(
        self, method: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **named: P.kwargs
    ) -> CoroutineType[Any, Any, T]:
        """Call `method` with these arguments."""
        ...


def wrap_services(services: Services, call: Caller, call_locks: Caller | None = None) -> Services:
    """Return services whose coroutines pass through `call`, and those of locks through `call_locks` if it is given."""
    return Services(
        lookups=None if services.lookups is None else _Lookups(services.lookups, call),
        snapshots=None if services.snapshots is None else _Snapshots(services.snapshots, call),
        locks=None if services.locks is None else _Locks(services.locks, call_locks or call),
        replication=None if services.replication is None else _Replication(services.replication, call),
        replica=None if services.replica is None else _Replica(services.replica, call),
        inline=None if services.inline is None else _Inline(services.inline, call),
        transactions=None if services.transactions is None else _Transactions(services.transactions, call),
        maintenance=None if services.maintenance is None else _Maintenance(services.maintenance, call),
        creation=services.creation,
        backup=services.backup,
        blocking=services.blocking,
        lend=services.lend,
    )


class _Lookups:
    def __init__(self, inner: Lookups, call: Caller) -> None:
        self._inner, self._call = inner, call

    def position_of(self, id: bytes) -> CoroutineType[Any, Any, int | None]:
        return self._call(self._inner.position_of, id)

    def tag_keys(self, prefix: str = "", limit: int = 1000, after: str = "") -> CoroutineType[Any, Any, list[str]]:
        return self._call(self._inner.tag_keys, prefix, limit, after)

    def tag_names(self, prefix: str = "", limit: int = 1000, after: str = "") -> CoroutineType[Any, Any, list[str]]:
        return self._call(self._inner.tag_names, prefix, limit, after)

    def counts(self, query: Query, bounds: Sequence[int]) -> CoroutineType[Any, Any, list[int]]:
        return self._call(self._inner.counts, query, bounds)


class _Snapshots:
    def __init__(self, inner: Snapshots, call: Caller) -> None:
        self._inner, self._call = inner, call

    def get(self, key: str) -> CoroutineType[Any, Any, Snapshot | None]:
        return self._call(self._inner.get, key)

    def put(self, key: str, snapshot: Snapshot) -> CoroutineType[Any, Any, None]:
        return self._call(self._inner.put, key, snapshot)

    def delete_prefix(self, prefix: str = "") -> CoroutineType[Any, Any, int]:
        return self._call(self._inner.delete_prefix, prefix)


class _Locks:
    def __init__(self, inner: Locks, call: Caller) -> None:
        self._inner, self._call = inner, call

    def try_acquire(self, name: str, owner: str) -> CoroutineType[Any, Any, str | None]:
        return self._call(self._inner.try_acquire, name, owner)

    def release(self, name: str) -> CoroutineType[Any, Any, None]:
        return self._call(self._inner.release, name)


class _Replication:
    def __init__(self, inner: Replication, call: Caller) -> None:
        self._inner, self._call = inner, call

    def keys(self, after: str = "", limit: int = 1000) -> CoroutineType[Any, Any, list[tuple[str, int]]]:
        return self._call(self._inner.keys, after, limit)

    def import_events(
        self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]] = ()
    ) -> CoroutineType[Any, Any, None]:
        return self._call(self._inner.import_events, events, keys)

    def take_identity(self, store_id: str, epoch: int) -> CoroutineType[Any, Any, None]:
        return self._call(self._inner.take_identity, store_id, epoch)


class _Replica:
    def __init__(self, inner: Replica, call: Caller) -> None:
        self._inner, self._call = inner, call

    def judge(self, requests: Sequence[AppendRequest], now: int) -> CoroutineType[Any, Any, Judged]:
        return self._call(self._inner.judge, requests, now)

    def import_events(
        self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]] = ()
    ) -> CoroutineType[Any, Any, None]:
        return self._call(self._inner.import_events, events, keys)

    def copy_to(self, path: str) -> CoroutineType[Any, Any, None]:
        return self._call(self._inner.copy_to, path)


class _Inline:
    def __init__(self, inner: InlineProjections, call: Caller) -> None:
        self._inner, self._call = inner, call

    def set_projector(self, projector: InlineProjector) -> None:
        self._inner.set_projector(projector)

    def registrations(self) -> CoroutineType[Any, Any, list[InlineRegistration]]:
        return self._call(self._inner.registrations)

    def exclusive(self, work: Callable[[ExclusiveTransaction], Awaitable[None]]) -> CoroutineType[Any, Any, None]:
        return self._call(self._inner.exclusive, work)


class _Transactions:
    def __init__(self, inner: Transactions, call: Caller) -> None:
        self._inner, self._call = inner, call

    def stage(self, connection: Any, requests: Sequence[AppendRequest]) -> CoroutineType[Any, Any, list[Staged]]:
        return self._call(self._inner.stage, connection, requests)

    def staged(
        self, connection: Any, types: Sequence[str] | None = None, key: str | None = None
    ) -> CoroutineType[Any, Any, list[tuple[StoredEvent, str | None]]]:
        return self._call(self._inner.staged, connection, types, key)

    def confirm(self, staged: Staged) -> CoroutineType[Any, Any, Receipt | None]:
        return self._call(self._inner.confirm, staged)


class _Maintenance:
    def __init__(self, inner: Maintenance, call: Caller) -> None:
        self._inner, self._call = inner, call

    def check(self, progress: Progress = lambda _done, _all: None) -> Iterable[Problem] | AsyncIterable[Problem]:
        return self._inner.check(progress)

    def upgrade(self, copy: str | None = None, *, copies: bool = True) -> CoroutineType[Any, Any, UpgradeResult]:
        return self._call(self._inner.upgrade, copy, copies=copies)

    def restored(self) -> CoroutineType[Any, Any, RestoreResult]:
        return self._call(self._inner.restored)

    def reindex(self) -> CoroutineType[Any, Any, ReindexResult]:
        return self._call(self._inner.reindex)
