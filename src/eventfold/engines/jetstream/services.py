"""The services of a store in a cluster: look-ups, copying, and an operator's tasks. See ports/services.py.

Knows: which of them the replica answers. Does not know: how the stream is read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Query
from eventfold.core.snapshot import Snapshot
from eventfold.engines.jetstream.following import Following
from eventfold.engines.jetstream.session import Session
from eventfold.engines.jetstream.stream import Identity, update_identity
from eventfold.errors import NotSupported
from eventfold.ports.engine import Engine
from eventfold.ports.integrity import Problem, Progress
from eventfold.ports.refusals import import_gap
from eventfold.ports.services import ReindexResult, RestoreResult, UpgradeResult, require

T = TypeVar("T")
CHECKED_EVENTS = 2_000  # compared at once


class Calls(Protocol):
    """How an engine runs calls in its mode."""

    async def close(self) -> None:
        """Close the engine."""
        ...

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Call a function that blocks."""
        ...

    async def on_loop(self, work: Callable[[], Any]) -> Any:
        """Run a coroutine on the session's loop."""
        ...

    async def on_replica(self, work: Callable[[Engine], Any]) -> Any:
        """Run a coroutine of the replica when it has everything that the consistency demands."""
        ...


class JetStreamLookups:
    """See services.Lookups: the replica's."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def position_of(self, id: bytes) -> int | None:
        """See services.Lookups."""
        return await self._calls.on_replica(lambda replica: require(replica, "lookups").position_of(id))

    async def tag_keys(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[str]:
        """See services.Lookups."""
        return await self._calls.on_replica(lambda replica: require(replica, "lookups").tag_keys(prefix, limit, after))

    async def tag_names(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[str]:
        """See services.Lookups."""
        return await self._calls.on_replica(lambda replica: require(replica, "lookups").tag_names(prefix, limit, after))

    async def counts(self, query: Query, bounds: Sequence[int]) -> list[int]:
        """See services.Lookups."""
        return await self._calls.on_replica(lambda replica: require(replica, "lookups").counts(query, bounds))


class JetStreamSnapshots:
    """See services.Snapshots."""

    def __init__(self, calls: Calls, session: Session) -> None:
        self._calls, self._session = calls, session

    async def get(self, key: str) -> Snapshot | None:
        """See services.Snapshots."""
        return await self._calls.on_loop(lambda: self._session.snapshots.get(key))

    async def put(self, key: str, snapshot: Snapshot) -> None:
        """See services.Snapshots."""
        await self._calls.on_loop(lambda: self._session.snapshots.put(key, snapshot))

    async def delete_prefix(self, prefix: str = "") -> int:
        """See services.Snapshots."""
        return await self._calls.on_loop(lambda: self._session.snapshots.delete_prefix(prefix))


class JetStreamLocks:
    """See services.Locks. The locks of an engine are released when it is closed."""

    def __init__(self, calls: Calls, session: Session) -> None:
        self._calls, self._session = calls, session

    async def try_acquire(self, name: str, owner: str) -> str | None:
        """See services.Locks."""
        return await self._calls.on_loop(lambda: self._session.locks.try_acquire(name, owner))

    async def release(self, name: str) -> None:
        """See services.Locks."""
        await self._calls.on_loop(lambda: self._session.locks.release(name))


class JetStreamReplication:
    """See services.Replication."""

    def __init__(self, calls: Calls, session: Session) -> None:
        self._calls, self._session = calls, session

    async def keys(self, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        """See services.Replication."""
        of_log = await self._calls.on_replica(lambda replica: require(replica, "replication").keys(after, limit))
        assigned = [each for each in await self._calls.on_loop(self._session.assigned_keys) if each[0] > after]
        return sorted({**dict(assigned), **dict(of_log)}.items())[:limit]

    async def import_events(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]] = ()) -> None:
        """See services.Replication."""
        await self._calls.on_loop(lambda: self._session.import_events(events, keys))

    async def take_identity(self, store_id: str, epoch: int) -> None:
        """See services.Replication. Needs the account of an operator, who may update the stream."""
        await self._calls.on_loop(lambda: self._take_identity(Identity(store_id, epoch)))

    async def _take_identity(self, identity: Identity) -> None:
        session = self._session
        following = await session.current()
        if following.head:
            raise import_gap(following.head, 1)
        info = await session.reader.info(session.deadline())
        await update_identity(session.connection, session.address.names, info, identity)
        session.forget_identity()
        await session.connection.ready(session.deadline())


class JetStreamMaintenance:
    """See services.Maintenance: what an operator does to a store in a cluster."""

    def __init__(self, calls: Calls, session: Session) -> None:
        self._calls, self._session = calls, session

    async def check(self, progress: Progress = lambda _done, _all: None) -> AsyncIterator[Problem]:
        """Compare the local index with the stream, event by event, and everything in the index that is written twice.

        What a replica of the stream does not return is asked of its leader; if that has not got it either, the check
        ends with the error.
        """
        session = self._session
        following: Following = await self._calls.on_loop(session.current)
        after, until = 0, following.head
        while after < until:
            part = min(until, after + CHECKED_EVENTS)
            found: list[Problem] = await self._calls.on_loop(lambda a=after, b=part: session.compare(a, b))
            for problem in found:
                yield problem
            after = part
            progress(after, until)
        checked = require(following.replica, "maintenance").check(lambda _done, _all: None)
        assert isinstance(checked, Iterable)  # the replica's calls block
        for problem in await self._calls.in_thread(lambda: list(checked)):
            yield problem

    async def upgrade(self, copy: str | None = None, *, copies: bool = True) -> UpgradeResult:
        """Raises NotSupported: messages have one format."""
        raise NotSupported(
            "The messages of a stream have one format, and there is no older one.",
            "There is nothing to upgrade.",
            engine="jetstream",
        )

    async def reindex(self) -> ReindexResult:
        """Raises NotSupported: a new index is built by the next open."""
        raise NotSupported(
            "The index of a store in a cluster is a local file, which is built from the stream.",
            "Move the file away (eventfold stats names it), and open the store: a new one is built.",
            engine="jetstream",
        )

    async def restored(self) -> RestoreResult:
        """Begin a new epoch after a stream was restored, or has lost events. Needs the account of an operator.

        Called on an engine that is not open; it is closed afterwards.
        """
        try:
            return await self._calls.on_loop(self._session.begin_epoch)
        finally:
            await self._calls.close()
