"""The replica of the log on this host: bringing it up to a position of the stream.

The replica is a file that all processes of the host share. Each process imports what it is missing when it needs it;
what another process has imported already is skipped.
Knows: positions. Does not know: queries, appends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeVar

from eventfold.concurrency.offload import WorkerThreads
from eventfold.concurrency.run import run
from eventfold.core.envelope import StoredEvent
from eventfold.engines.jetstream.messages import whole_appends
from eventfold.engines.jetstream.pending import PendingEvents
from eventfold.engines.jetstream.reader import FEW, Keyed, StreamReader
from eventfold.engines.jetstream.stream import Identity
from eventfold.ports.engine import Engine
from eventfold.ports.messages import AppendRequest
from eventfold.ports.services import Judged, Replica, require

T = TypeVar("T")
IMPORTED_AT_ONCE = 64  # events: within about a millisecond
IMPORT_AFTER_S = 0.005  # of the first of them; any read imports them at once


class _Imports(WorkerThreads):
    """One thread that imports, in the order in which it is asked to."""

    def __init__(self) -> None:
        super().__init__("import", run_each)

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine of the replica in the thread. A cancelled caller does not wait, and the import goes on."""
        return await asyncio.shield(self.enqueue(work).future)


def run_each(batch: list[Any]) -> None:
    """Run queued coroutines of engines that block."""
    for job in batch:
        try:
            job.result = run(job.work())
        except BaseException as error:  # noqa: BLE001 (raised in the task that waits for it)
            job.error = error


class CurrentLog(Protocol):
    """The log of the current epoch."""

    @property
    def identity(self) -> Identity:
        """Which store it is, in which epoch."""
        ...

    @property
    def following(self) -> Following:
        """Its replica."""
        ...

    async def last_sequence(self, deadline: float) -> int:
        """Ask the leader for the last sequence of this store; afterwards, the epoch is current."""
        ...


class Following:
    """Brings the replica up to positions of the stream, once for all who wait."""

    def __init__(
        self,
        replica: Engine,
        reader: StreamReader,
        notify: Callable[[], None],
        path: str,
        is_watched: Callable[[], bool] = lambda: True,
    ) -> None:
        self.replica, self.path, self.is_watched = replica, path, is_watched
        self.service: Replica = require(replica, "replica")
        self._reader, self._notify = reader, notify
        self._imports = _Imports()
        self.head = 0  # the replica has everything up to here
        self.expected = 0  # up to here another process has written appends of this one
        self._wanted = 0
        self._task: asyncio.Task[None] | None = None
        self._own: asyncio.Future[None] | None = None  # the import of the last append of this process
        self._pending = PendingEvents()
        self._timer: asyncio.TimerHandle | None = None

    def read_head(self) -> int:
        """Read the head of the replica, to which other processes may have added."""
        self.head = max(self.head, run(self.replica.head()).position)
        return self.head

    async def reach(self, position: int, deadline: float) -> None:
        """Wait until the replica has everything up to a position of the stream. Raises StoreUnavailable errors."""
        await self.settled()
        while self.head < position and self.read_head() < position:
            self._wanted = max(self._wanted, position)
            if self._task is None or self._task.done():
                self._task = asyncio.get_running_loop().create_task(self._catch_up(deadline))
            await asyncio.shield(self._task)

    def expect(self, position: int) -> None:
        """Let reads of what this process wrote wait for a position."""
        self.expected = max(self.expected, position)

    async def settled(self) -> None:
        """Wait until what this process wrote is in the replica, or its import has failed: it is then read again."""
        self.import_pending()
        await self.written()

    async def written(self) -> None:
        """Wait for the import of more events than are kept as pending."""
        own = self._own
        if own is not None:
            with suppress(Exception):
                await asyncio.shield(own)
            if self._own is own:
                self._own = None

    async def _catch_up(self, deadline: float) -> None:
        rest: list[Keyed] = []  # of an append of which the end has not come yet
        after = self.head
        async for piece in self._reader.ranges(after, self._wanted, deadline):
            found = [*rest, *piece] if rest else list(piece)
            whole = whole_appends([event for event, _ in found])
            rest = found[whole:]
            if whole:
                await self._import(found[:whole])
        if rest:  # the head that was asked for is within an append: it is committed as a whole
            last = rest[-1][0].last
            async for piece in self._reader.ranges(rest[-1][0].position, last, deadline):
                rest += piece
            await self._import(rest)

    async def _import(self, found: Sequence[Keyed]) -> None:
        events = [event for event, _ in found]
        keys = [(key, event.first) for event, key in found if key is not None]
        if len(events) <= FEW and self._own is None:
            run(self.service.import_events(events, keys))  # it takes less time than to hand them to the thread
        else:
            await self._imports.run(partial(self.service.import_events, events, keys))
        self._imported(events[-1].position)

    def judge(self, requests: Sequence[AppendRequest], now: int) -> Judged:
        """Judge requests against the replica and what this process has written since. See services.Replica."""
        if self._pending.events:
            judged = self._pending.judge(self.service, requests, now)
            if judged is not None:
                return judged
            self.import_pending()
        return run(self.service.judge(requests, now))

    def add_own(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]]) -> None:
        """Import events that this process has written, directly after the head of the replica.

        A few are imported together with those of the next appends: when a read needs them, after IMPORT_AFTER_S, or
        while the next append is on its way if anyone waits for commits. More of them are imported beside the caller.
        An error is not raised: what is missing is read from the stream later.
        """
        if len(self._pending.events) + len(events) <= IMPORTED_AT_ONCE:
            self._pending.add(events, keys)
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(IMPORT_AFTER_S, self.import_pending)
            return
        self.import_pending()
        self._own = asyncio.ensure_future(self._import_own(events, keys))

    def import_soon(self) -> None:
        """Import what is pending after the caller has gone on, if anyone waits for commits."""
        if self._pending.events and self.is_watched():
            asyncio.get_running_loop().call_soon(self.import_pending)

    def import_pending(self) -> None:
        """Import what is pending, in this thread: some fifty microseconds."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        events, keys = self._pending.take()
        if not events:
            return
        try:
            run(self.service.import_events(events, keys))
        except Exception:  # noqa: BLE001 (reads wait for it, and read it from the stream)
            self.expect(events[-1].position)
        else:
            self._imported(events[-1].position)

    async def _import_own(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]]) -> None:
        try:
            await self._imports.run(partial(self.service.import_events, events, keys))
        except Exception:
            self.expect(events[-1].position)
            raise
        self._imported(events[-1].position)

    def _imported(self, position: int) -> None:
        self.head = max(self.head, position)
        self._notify()

    async def add_keys(self, keys: Sequence[tuple[str, int]]) -> None:
        """Import request keys that were assigned to earlier appends."""
        await self._imports.run(partial(self.service.import_events, (), keys))

    async def close(self) -> None:
        """End the import that runs, and its thread."""
        await self.settled()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await self._task
        self._imports.close()
