"""The JetStream engine: the log is a replicated stream, and each host has a complete copy of it to read from.

Knows: which part answers which call of the port. Does not know: streams (session.py), the copy (an engine itself).
Failure domain: a majority of the nodes of the cluster. An acknowledged append survives the loss of any one of three.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

from eventfold.concurrency import in_thread
from eventfold.concurrency.offload import WorkerThreads
from eventfold.concurrency.run import run
from eventfold.concurrency.waiting import Waiters
from eventfold.core.envelope import Receipt
from eventfold.core.query import Query
from eventfold.engines.jetstream.appends import Appending
from eventfold.engines.jetstream.following import run_each
from eventfold.engines.jetstream.options import parse_address
from eventfold.engines.jetstream.published_index import Description
from eventfold.engines.jetstream.services import (
    JetStreamLocks,
    JetStreamLookups,
    JetStreamMaintenance,
    JetStreamReplication,
    JetStreamSnapshots,
)
from eventfold.engines.jetstream.session import OpenReplica, Session
from eventfold.ports.engine import Engine
from eventfold.ports.messages import AppendRequest, Capabilities, Head, Outcome, Page, Span, TagCount, TypeCount
from eventfold.ports.refusals import closed_error
from eventfold.ports.services import Services, require

T = TypeVar("T")
WAIT_S = 0.5  # between checks of whether the store was closed, by a caller that waits
READERS = 4  # threads that read the replica for an event loop


class JetStreamEngine:
    """One log in one stream of a cluster; any number of processes on any number of hosts may use it at once.

    `mode`: whether calls block ("sync") or run on the caller's event loop ("async"). `open_replica` opens the local
    copy at a path. For the options see `JetStreamOptions`. Opening never creates a stream; `services.creation` does.
    """

    name = "jetstream"
    default_target = None

    def __init__(
        self,
        url: str,
        *,
        open_replica: OpenReplica,
        mode: Literal["sync", "async"] = "sync",
        session: Session | None = None,
        **options: Any,
    ) -> None:
        address, self.options = parse_address(url, options)
        self._url, self._given, self._open_replica = url, options, open_replica
        self._session = session or Session(address, self.options, open_replica)
        self._session.enter()
        self._is_sync = mode == "sync"
        self._readers = None if self._is_sync else WorkerThreads("reader", run_each, READERS)
        self._closed = False
        self.capabilities = Capabilities(
            suspends=mode == "async", blocks=mode == "sync", durable=self.options.durability == "checked"
        )
        self.services = Services(
            lookups=JetStreamLookups(self),
            snapshots=JetStreamSnapshots(self, self._session),
            locks=JetStreamLocks(self, self._session),
            replication=JetStreamReplication(self, self._session),
            maintenance=JetStreamMaintenance(self, self._session),
            creation=self._create,
            blocking=None if self._is_sync else self,
        )

    def __repr__(self) -> str:
        return f"JetStreamEngine({self._session.address.where!r})"

    @property
    def store_id(self) -> str:
        """See the port."""
        return self._session.identity.store_id

    @property
    def epoch(self) -> int:
        """See the port."""
        return self._session.identity.epoch

    # Running calls: see services.Calls

    async def on_loop(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine on the session's loop, and wait in the way of this mode."""
        if self._closed:
            raise closed_error()
        if self._is_sync:
            return self._session.loop.run(work)
        return await self._session.loop.call(work)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Call a function that blocks: in the calling thread, or beside the caller's event loop."""
        return work() if self._is_sync else await in_thread(work)

    async def on_replica(self, work: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine of the replica, when it has what the consistency of this store demands."""
        following = await self.on_loop(self._session.current)
        replica = following.replica
        if self._readers is None:
            return run(work(replica))
        return await self._readers.enqueue(lambda: work(replica)).future

    # Opening and closing

    async def open(self) -> None:
        """See the port. Raises StoreNotFound without the stream, StoreUnsafe, StoreDamaged, StoreUnavailable."""
        try:
            await self.on_loop(self._session.open)
        except BaseException:
            await self.close()
            raise

    async def _create(self) -> bool:
        """See Services.creation. Called on an engine that is not open. Needs an account that may create streams."""
        try:
            return await self.on_loop(self._session.create)
        finally:
            await self.close()

    @property
    def index_folder(self) -> str:
        """The folder of the local index, once the engine is open."""
        return os.path.dirname(os.path.abspath(self._session.following.path))

    async def copy_index(self, path: str) -> None:
        """Write a copy of the local index, with everything that was committed before, to a path where nothing is."""
        await self.on_replica(lambda replica: require(replica, "replica").copy_to(path))

    async def publish_index(self, path: str, last: Head, *, to: str | None = None, keep: int = 2) -> Description:
        """Publish a copy of the index, whose head is `last`, for new hosts; the newest `keep` ones are kept.

        `to`: a folder; None: the bucket of the store, which is created if there is none, with an operator's account.
        """
        return await self.on_loop(lambda: self._session.publish_index(path, last, to, keep))

    async def close(self) -> None:
        """See the port."""
        if self._closed:
            return
        self._closed = True
        if self._readers is None:
            self._session.leave()
            return
        await in_thread(self._readers.close)
        await in_thread(self._session.leave)

    async def share(self) -> None:
        """See BlockingEngines: both engines use one connection and one replica."""

    def blocking_engine(self) -> JetStreamEngine:
        """See BlockingEngines."""
        return JetStreamEngine(
            self._url, open_replica=self._open_replica, mode="sync", session=self._session, **self._given
        )

    # Appending

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """See the port."""
        if self._closed:
            raise closed_error()
        if not requests:
            return []
        return self._append_blocking(requests) if self._is_sync else await self._append(requests)

    def _append_blocking(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """Append, and block until there are outcomes. An interrupt withdraws what is not on its way."""
        gate = Waiters()
        appending = Appending(requests, gate.wake)
        self._session.loop.call_soon(partial(self._session.submit, appending))
        try:
            while not appending.is_done:
                self._check_open()
                gate.wait(lambda: appending.is_done, WAIT_S)
        except BaseException:
            appending.withdraw()
            raise
        return appending.result()

    async def _append(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """Do the same for a task of the caller's event loop."""
        here = asyncio.get_running_loop()
        ended: asyncio.Future[None] = here.create_future()
        appending = Appending(requests, partial(_call, here, ended))
        self._session.loop.call_soon(partial(self._session.submit, appending))
        try:
            await ended
        except BaseException:
            appending.withdraw()
            raise
        return appending.result()

    def _check_open(self) -> None:
        if self._session.is_closed:
            raise closed_error()

    async def receipt_of(self, key: str) -> Receipt | None:
        """See the port."""
        found = await self.on_replica(lambda replica: replica.receipt_of(key))
        return found or await self.on_loop(lambda: self._session.receipt_of(key))

    # Reading

    async def read(self, query: Query, span: Span) -> Page:
        """See the port."""
        return await self.on_replica(lambda replica: replica.read(query, span))

    async def head(self) -> Head:
        """See the port."""
        return await self.on_replica(lambda replica: replica.head())

    async def count(self, query: Query, after: int = 0, until: int | None = None) -> int:
        """See the port."""
        return await self.on_replica(lambda replica: replica.count(query, after, until))

    async def position_at(self, time: int) -> int:
        """See the port."""
        return await self.on_replica(lambda replica: replica.position_at(time))

    async def event_id(self, position: int) -> bytes | None:
        """See the port."""
        return await self.on_replica(lambda replica: replica.event_id(position))

    async def boundary(self, position: int) -> int:
        """See the port."""
        return await self.on_replica(lambda replica: replica.boundary(position))

    async def types(self) -> list[TypeCount]:
        """See the port."""
        return await self.on_replica(lambda replica: replica.types())

    async def tags(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[TagCount]:
        """See the port."""
        return await self.on_replica(lambda replica: replica.tags(prefix, limit, after))

    async def stats(self) -> dict[str, Any]:
        """See the port."""
        of_stream = await self.on_loop(self._session.stats)
        of_replica = await self.on_replica(lambda replica: replica.stats())
        return {**{f"index_{key}": value for key, value in of_replica.items()}, **of_stream, "engine": self.name}

    def watch(self, notify: Callable[[], None]) -> Callable[[], None]:
        """See the port."""
        if self._closed:
            raise closed_error()
        return self._session.watch(notify)


def _call(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    try:
        loop.call_soon_threadsafe(_resolve, future)
    except RuntimeError:  # the caller's loop has ended, and the task that waited
        return


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
