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
from eventfold.engines.jetstream.reader import Keyed, StreamReader
from eventfold.engines.jetstream.stream import Identity
from eventfold.ports.engine import Engine
from eventfold.ports.services import Replica, require

T = TypeVar("T")
IMPORTED_AT_ONCE = 64  # events: within about a millisecond


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

    def __init__(self, replica: Engine, reader: StreamReader, notify: Callable[[], None], path: str) -> None:
        self.replica, self.path = replica, path
        self.service: Replica = require(replica, "replica")
        self._reader, self._notify = reader, notify
        self._imports = _Imports()
        self.head = 0  # the replica has everything up to here
        self.expected = 0  # up to here another process has written appends of this one
        self._wanted = 0
        self._task: asyncio.Task[None] | None = None
        self._own: asyncio.Future[None] | None = None  # the import of the last append of this process

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
        await self._imports.run(partial(self.service.import_events, events, keys))
        self._imported(events[-1].position)

    async def add_own(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]]) -> None:
        """Import events that this process has written, directly after the head of the replica.

        A few are imported at once, which takes less time than to hand them to the thread; more of them beside the
        caller. An error is not raised: what is missing is read from the stream later.
        """
        if len(events) <= IMPORTED_AT_ONCE:
            with suppress(Exception):
                run(self.service.import_events(events, keys))
                self._imported(events[-1].position)
            return
        self._own = asyncio.ensure_future(self._import_own(events, keys))

    async def _import_own(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]]) -> None:
        await self._imports.run(partial(self.service.import_events, events, keys))
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
