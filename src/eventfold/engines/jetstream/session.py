"""What a process has of one store: the connection, the replica, the writer, on an event loop in a thread of its own.

Several engines of one process may share it: one for callers that block and one for an event loop.
Knows: the order in which the parts are opened, checked and closed. Does not know: the port.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from eventfold.concurrency.loop_thread import LoopThread
from eventfold.concurrency.run import run
from eventfold.concurrency.wakeup import call_all
from eventfold.core.envelope import Receipt, StoredEvent, now_micros
from eventfold.core.mutex import Mutex
from eventfold.core.query import Query
from eventfold.engines.jetstream.appends import Appending, AppendQueue
from eventfold.engines.jetstream.buckets import create_buckets
from eventfold.engines.jetstream.connection import ClusterConnection
from eventfold.engines.jetstream.durability import VERIFY_AGAIN_S, verify_durability
from eventfold.engines.jetstream.failures import stale_index
from eventfold.engines.jetstream.following import Following
from eventfold.engines.jetstream.forwarding import Forwarding
from eventfold.engines.jetstream.index_bucket import IndexBucket
from eventfold.engines.jetstream.index_folder import Folder
from eventfold.engines.jetstream.locks import ClusterLocks
from eventfold.engines.jetstream.options import ClusterAddress, JetStreamOptions, default_index, index_of_epoch
from eventfold.engines.jetstream.published_index import Description, Packing, Place, publish, restore, restoring
from eventfold.engines.jetstream.reader import StreamReader
from eventfold.engines.jetstream.request_keys import RequestKeys
from eventfold.engines.jetstream.snapshots import ClusterSnapshots
from eventfold.engines.jetstream.stream import (
    Identity,
    StreamInfo,
    create_stream,
    identity_of,
    raw_info,
    stream_info,
    update_identity,
)
from eventfold.engines.jetstream.writer import Writer
from eventfold.errors import EventfoldError, ReplicaMismatch, StoreNotFound, StoreUnavailable
from eventfold.ports.engine import Engine
from eventfold.ports.integrity import Problem
from eventfold.ports.messages import Head, Span
from eventfold.ports.refusals import closed_error, import_gap, wrong_store
from eventfold.ports.services import ReplicaOf, RestoreResult

_log = logging.getLogger("eventfold")
OpenReplica = Callable[[str, ReplicaOf], Engine]
CHECK_AGAIN_S = 2.0  # between checks of the stream of an open store: it may be recreated while it is in use
ASK_AGAIN_S = 1.0  # how often the leader is asked while callers wait for commits: an announcement may be lost
AFTER_FAILURE_S = 0.25


class Session:
    """The parts of one store. All methods but those that say so are called on its loop."""

    def __init__(self, address: ClusterAddress, options: JetStreamOptions, open_replica: OpenReplica) -> None:
        self.address, self.options = address, options
        self.identity = Identity("", 0)
        self.loop = LoopThread("eventfold-nats", self._end)
        self._open_replica = open_replica
        self._mutex = Mutex()
        self._users = 0
        self._following: Following | None = None
        self._unseen: frozenset[str] = frozenset()  # nodes that did not answer when they were verified
        self._retired: list[Following] = []  # of earlier epochs: calls in progress may still read them
        self._watchers: list[Callable[[], None]] = []
        self._announced = 0
        self._notified = 0
        self._checking: asyncio.Task[None] | None = None
        self._following_task: asyncio.Task[None] | None = None
        self._barrier: asyncio.Task[int] | None = None
        self._next_barrier: asyncio.Task[int] | None = None
        self.is_closed = False

    # Opening and closing, by any thread

    def enter(self) -> None:
        """Count one more engine that uses this session."""
        self._mutex.run(self._enter)

    def _enter(self) -> None:
        self._users += 1

    def leave(self) -> None:
        """End the session with its last engine. Blocks until everything is closed."""
        if self._mutex.run(self._leave):
            self.is_closed = True
            self.loop.close()
            call_all(tuple(self._watchers))  # last: callers that wait learn of the close by their own calls

    def _leave(self) -> bool:
        self._users -= 1
        return self._users == 0

    # Opening and closing, on the loop

    def _build(self) -> None:
        self.connection = ClusterConnection(self.address, self.options, self._check)
        self.reader = StreamReader(self.connection, self.address.names)
        self.keys = RequestKeys(self.connection, self)
        self.writer = Writer(self.connection, self.address.names, self.reader, self, self.keys)
        self.locks = ClusterLocks(self.connection)
        self.snapshots = ClusterSnapshots(self.connection)
        self.appends = AppendQueue(self.writer, self.address.where)
        self.forwarding = Forwarding(self.connection, self._identity, self.appends.write_for_others)
        self.appends.forwarding = self.forwarding

    def _identity(self) -> Identity:
        return self.identity

    @property
    def following(self) -> Following:
        """The replica of the current epoch."""
        assert self._following is not None
        return self._following

    def deadline(self) -> float:
        """When a call that begins now fails."""
        return asyncio.get_running_loop().time() + self.options.timeout

    async def open(self) -> None:
        """Connect, check the store, and open the replica. Raises StoreUnavailable errors."""
        if not hasattr(self, "connection"):
            self._build()
        await self.connection.ready(self.deadline())
        self._checking = asyncio.get_running_loop().create_task(self._check_again())

    async def _check_again(self) -> None:
        """Check from time to time that the stream is the same, and that its nodes write to disk before they confirm.

        What is wrong is an error of the next call.
        """
        loop = asyncio.get_running_loop()
        verified = loop.time()
        while True:
            await asyncio.sleep(CHECK_AGAIN_S)
            if not self.connection.is_ready:  # it is checked when it is there again
                continue
            if loop.time() - verified > VERIFY_AGAIN_S:
                verified = loop.time()
                self.connection.invalidate()
            with contextlib.suppress(EventfoldError):
                await self.last_sequence(self.deadline())

    async def create(self) -> bool:
        """Create the store if there is none. Returns whether it was created."""
        connection = ClusterConnection(self.address, self.options, _nothing)
        try:
            client = await connection.ready(self.deadline())
            names, is_new = self.address.names, False
            try:
                info = await stream_info(connection, names, client=client)
            except StoreNotFound:
                await create_stream(connection, names, client)
                info, is_new = await stream_info(connection, names, client=client), True
            identity_of(info, self.address.where)
            await create_buckets(connection, names, info.replicas, client, self.deadline())
        finally:
            await connection.close()
        return is_new

    async def _check(self) -> None:
        """Check the store, after each connect. Raises StoreUnavailable errors."""
        connection = self.connection
        client = connection.client
        end = self.deadline()
        raw = await raw_info(connection, self.address.names, client=client, deadline=end)
        info = msgspec.convert(raw, StreamInfo)
        identity = identity_of(info, self.address.where)
        await self._verify_durability(raw)
        if self.identity.store_id not in ("", identity.store_id):
            raise wrong_store(self.address.where, self.identity.store_id, identity.store_id)
        if self._following is None or identity != self.identity:
            await self._open_at(identity)
        await self._check_replica(info, self.deadline())  # opening may have taken long

    async def _verify_durability(self, stream: dict[str, Any]) -> None:
        """Verify that every node of the stream writes to disk before it confirms. Raises StoreUnsafe."""
        options = self.options
        if options.durability == "unchecked":
            return
        monitoring = [url for url in (options.monitoring or "").split(",") if url]
        connection = self.connection
        self._unseen = await verify_durability(
            connection.client,
            stream,
            monitoring=monitoring,
            connect_system=connection.connect_system if options.system else None,
            tls=connection.trusted(),
        )

    async def _open_at(self, identity: Identity) -> None:
        """Open the replica of an epoch, beside that of the last one."""
        path = self.options.index or default_index(identity.store_id, identity.epoch)
        try:
            replica = await self._open_replica_at(path, identity)
        except ReplicaMismatch as error:
            if error.fields.get("store") != identity.store_id:
                raise
            _log.warning("%s It stays as it is.", error.what)
            path = index_of_epoch(path, identity.epoch)
            replica = await self._open_replica_at(path, identity)
        if self._following is not None:
            self._retired.append(self._following)
        self._following = Following(replica, self.reader, self._on_import, path, lambda: bool(self._watchers))
        self.identity = identity
        self._announced = self._notified = 0
        call_all(tuple(self._watchers))

    async def _open_replica_at(self, path: str, identity: Identity) -> Engine:
        replica = self._open_replica(path, ReplicaOf(identity.store_id, identity.epoch, self.address.where))
        with contextlib.ExitStack() as held:
            new = await asyncio.to_thread(held.enter_context, restoring(path))
            if new is not None:
                await self._restore(path, new, identity)
            await asyncio.to_thread(run, replica.open())
        return replica

    async def _restore(self, path: str, descriptor: int, identity: Identity) -> None:
        """Restore a published copy of the index, if there is one that is usable."""
        if self.options.copies == "none":
            return
        self.connection.wait_for_restore()
        client = self.connection.client

        async def id_at(position: int) -> bytes | None:
            found = await self.reader.from_leader(position, self.deadline(), client=client)
            return None if found is None else found[0].id

        places: list[Place] = [IndexBucket(self.connection, self.address.names, client)]
        if self.options.copies is not None:
            places.append(Folder(self.options.copies))
        await restore(places, path, descriptor, identity, id_at)

    async def publish_index(self, path: str, last: Head, to: str | None, keep: int) -> Description:
        """Publish a copy of the index, whose head is `last`, to a folder or the bucket. See published_index.publish."""

        def describe(packing: Packing) -> Description:
            return Description(
                store=self.identity.store_id, epoch=self.identity.epoch, position=last.position, event=last.id.hex(),
                bytes=packing.bytes, chunks=packing.count, packed=packing.packed, digest=packing.digest,
                made=now_micros(),
            )  # fmt: skip

        if to is not None:
            return await publish(Folder(to), path, describe, keep)
        bucket = IndexBucket(self.connection, self.address.names)
        await bucket.create()
        return await publish(bucket, path, describe, keep)

    async def _check_replica(self, info: StreamInfo, end: float) -> None:
        """Check that the last event of the replica is in the stream. Raises StoreDamaged."""
        following = self.following
        head = run(following.replica.head())
        if not head.position:
            return
        if (
            head.position > info.state.last_seq
        ):  # another process of this host may have imported more since it was asked
            client = self.connection.client
            info = await stream_info(self.connection, self.address.names, client=client, deadline=end)
        if head.position > info.state.last_seq:
            raise stale_index(following.path, self.address.where, head.position, info.state.last_seq)
        found = await self.reader.from_leader(head.position, end, client=self.connection.client)
        if found is None or found[0].id != head.id:
            raise stale_index(following.path, self.address.where, head.position, info.state.last_seq)
        following.head = head.position

    async def _end(self) -> None:
        """Close everything, on the loop."""
        if not hasattr(self, "connection"):
            return
        await self.locks.close()
        await self.forwarding.close()
        await self.appends.close()
        self.writer.close()
        for task in (self._checking, self._following_task, self._barrier, self._next_barrier):
            if task is not None:
                task.cancel()
        for following in (*self._retired, *([self._following] if self._following else [])):
            await following.close()
            run(following.replica.close())
        await self.connection.close()

    # Calls

    def submit(self, appending: Appending) -> None:
        """Queue requests to append."""
        if self._following is None:
            appending.end([], closed_error())
            return
        self.appends.submit(appending, self.deadline())

    async def current(self) -> Following:
        """Return the replica when it has everything that was committed anywhere before this call.

        With `consistency` local: what this process wrote. Raises StoreUnavailable errors.
        """
        if self.is_closed:
            raise closed_error()
        if self.options.consistency == "local":
            if not self.connection.is_ready:
                await self.open()
            await self.following.reach(self.following.expected, self.deadline())
            return self.following
        deadline = self.deadline()
        last = await self._leader_head()
        following = self.following
        await following.reach(last, deadline)
        return following

    async def _leader_head(self) -> int:
        """Return the last sequence of the leader, asked after this call began: one question for all who wait."""
        if self._barrier is None or self._barrier.done():
            self._barrier = asyncio.get_running_loop().create_task(self._ask_leader(None))
            return await asyncio.shield(self._barrier)
        if self._next_barrier is None or self._next_barrier.done():
            self._next_barrier = asyncio.get_running_loop().create_task(self._ask_leader(self._barrier))
        return await asyncio.shield(self._next_barrier)

    async def _ask_leader(self, before: asyncio.Task[int] | None) -> int:
        if before is not None:
            await asyncio.wait((before,))
            self._barrier, self._next_barrier = self._next_barrier, None
        return await self.last_sequence(self.deadline())

    async def last_sequence(self, deadline: float) -> int:
        """Ask the leader for the last sequence, and check that it is still the same store in the same epoch.

        Otherwise the store is checked as after a connect. Raises StoreUnavailable errors.
        """
        info = await self.reader.info(deadline)
        if not self._is_unchanged(info):
            self.connection.invalidate()
            await self.connection.ready(deadline)
            info = await self.reader.info(deadline)
        return info.state.last_seq

    def _is_unchanged(self, info: StreamInfo) -> bool:
        """Whether the stream is what it was when it was checked."""
        try:
            return identity_of(info, self.address.where) == self.identity
        except StoreUnavailable:  # the check raises it again, and so does every call until it is as it has to be
            return False

    async def stats(self) -> dict[str, Any]:
        """Return facts about the stream for an operator."""
        info = await self.reader.info(self.deadline())
        cluster = info.cluster
        return {
            "server": self.address.where,
            "node": self.connection.node,
            "stream": self.address.names.stream,
            "replicas": info.replicas,
            "leader": cluster.leader if cluster else self.connection.node,
            "replicas_behind": [each.name for each in cluster.replicas if not each.current] if cluster else [],
            "nodes_unverified": sorted(self._unseen),
            "events": info.state.last_seq,
            "stream_bytes": info.state.bytes,
            "durability": self.options.durability,
            "consistency": self.options.consistency,
            "index": self.following.path,
            "healed": self.reader.healed,
        }

    async def import_events(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]]) -> None:
        """Write events of another log at their positions. See services.Replication."""
        following = await self.current()
        head = following.head
        if events and events[0].position != head + 1:
            raise import_gap(head, events[0].position)
        rest = await self.writer.write_at(events, dict(keys), self.deadline())
        for key, first in rest.items():
            id = run(self.following.replica.event_id(first))
            await self.keys.assign(key, first, id or b"", self.deadline())

    async def receipt_of(self, key: str) -> Receipt | None:
        """Return the receipt of the append that a key was assigned to after it was written; None if there is none."""
        return (await self.keys.receipts([key], self.deadline())).get(key)

    async def assigned_keys(self) -> list[tuple[str, int]]:
        """Return the keys that were assigned to appends after they were written, ordered, with the first position."""
        return await self.keys.all(self.deadline())

    async def compare(self, after: int, until: int) -> list[Problem]:
        """Compare the replica with the stream in (after, until]."""
        problems: list[Problem] = []
        following = self.following
        async for piece in self.reader.ranges(after, until, self.deadline()):
            span = Span(after=piece[0][0].position - 1, until=piece[-1][0].position, limit=len(piece))
            indexed = (await asyncio.to_thread(run, following.replica.read(Query(), span))).events
            found = {event.position: event for event in indexed}
            problems += [
                Problem("The local index has another event here than the stream.", event.position)
                for event, _ in piece
                if found.get(event.position) != event
            ]
        return problems

    def forget_identity(self) -> None:
        """Accept another identity at the next check: this process has changed it."""
        self.identity = Identity("", 0)
        self.connection.invalidate()

    async def begin_epoch(self) -> RestoreResult:
        """Begin a new epoch: a later one than the stream has, and than it had before it was recreated."""
        connection = ClusterConnection(self.address, self.options, _nothing)
        try:
            client = await connection.ready(self.deadline())
            info = await stream_info(connection, self.address.names, client=client)
            now = identity_of(info, self.address.where)
            later = Identity(now.store_id, now.epoch + 1)
            await update_identity(connection, self.address.names, info, later, client=client)
        finally:
            await connection.close()
        return RestoreResult(now.store_id, now.epoch, later.epoch)

    # Notification of commits

    def watch(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Call `notify` after each commit. Any thread may call this, and the function that it returns."""
        self._watchers.append(notify)
        self.loop.call_soon(self._start_following)

        def stop() -> None:
            with contextlib.suppress(ValueError):
                self._watchers.remove(notify)

        return stop

    def _start_following(self) -> None:
        if self._following_task is None or self._following_task.done():
            self._wake = asyncio.Event()
            self._following_task = asyncio.get_running_loop().create_task(self._follow())

    def _on_import(self) -> None:
        """Notify of events that were imported, by this process's own commits or for a read."""
        if self._following is not None and self._following.head > self._notified:
            self._notified = self._following.head
            call_all(tuple(self._watchers))

    def _on_announcement(self, _: bytes, data: bytes, __: bytes) -> None:
        if data.isdigit():
            self._announced = max(self._announced, int(data))
            self._wake.set()

    async def _follow(self) -> None:
        """Import what is announced, and ask the leader from time to time, as long as the store is open."""
        await self.connection.subscribe(self.address.names.heads, self._on_announcement)
        while True:
            pause = ASK_AGAIN_S
            try:
                if self._announced <= self.following.head:
                    self._announced = max(self._announced, await self._leader_head())
                while self._announced > self._notified:
                    await self.following.reach(self._announced, self.deadline())
                    self._on_import()
                    await asyncio.sleep(0)  # what is there already is reached without a pause
            except EventfoldError:  # watchers learn the reason from their own reads
                call_all(tuple(self._watchers))
                pause = AFTER_FAILURE_S
                await asyncio.sleep(pause)  # the rest may fail at once, again and again
            while self._announced <= self.following.head:
                self._wake.clear()
                try:
                    await asyncio.wait_for(self._wake.wait(), pause)
                except TimeoutError:
                    break


async def _nothing() -> None:
    """A check of a store that is not there yet."""
