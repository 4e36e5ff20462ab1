"""All live streams of a server: the shared reader of each store, the limits, and what happens to streams with time.

Knows: readers, heartbeats, shutdown. Does not know: how a stream is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from eventfold.aio import AsyncStore
from eventfold.errors import EventfoldError
from eventfold.server.live import sse
from eventfold.server.live.reader import Reader
from eventfold.server.live.tail import LogTail
from eventfold.server.places import without_places
from eventfold.server.running import Running
from eventfold.server.settings import Settings

READS_AT_ONCE = 4  # pages read at a time for readers that catch up
SWEEP_S = 1.0
CHECKS_IN_SWEEP = 200
LAST_BYTES_S = 5.0  # for which the server waits, when it stops, until the last bytes of all streams are written


class Hub:
    """The live streams of one server, on one event loop.

    When `running.stopping` is set, every stream is ended with `bye`, and no new one begins. `at_drop` is called with
    the code of the reason for which a stream was dropped.
    """

    def __init__(
        self, settings: Settings, running: Running, at_drop: Callable[[str], None] = lambda _reason: None
    ) -> None:
        self.settings = settings.live
        self._at_drop = at_drop
        self.reads = asyncio.Semaphore(READS_AT_ONCE)
        self.readers: set[Reader] = set()
        self._running = running
        self._empty = asyncio.Event()
        self._tails: dict[str, LogTail] = {}
        self._sweep: asyncio.Task[None] | None = None
        running.at_stop(self.close)

    @property
    def is_closing(self) -> bool:
        """Whether the server is about to end."""
        return self._running.stopping.is_set()

    @property
    def is_full(self) -> bool:
        """Whether there are as many streams as the server allows."""
        return len(self.readers) >= self.settings.streams

    def tail(self, name: str, store: AsyncStore) -> LogTail:
        """The shared reader of a store."""
        if name not in self._tails:
            self._tails[name] = LogTail(store, self.settings)
        return self._tails[name]

    def add(self, reader: Reader) -> None:
        """Count a stream that begins."""
        now = asyncio.get_running_loop().time()
        reader.sent_at, reader.check_at = now, now + self.settings.check_seconds
        self.readers.add(reader)
        self._empty.clear()
        if self._sweep is None or self._sweep.done():
            self._sweep = asyncio.create_task(self._run(), name="eventfold-live-sweep")

    def remove(self, reader: Reader) -> None:
        """Count a stream that has ended."""
        self.readers.discard(reader)
        if reader.dropped_for:
            self._at_drop(reader.dropped_for)
        if not self.readers:
            self._empty.set()

    async def close(self) -> None:
        """End all streams and tasks: called when the server stops, before the stores are closed."""
        if self._sweep is not None:
            await asyncio.wait([self._sweep])
        for tail in self._tails.values():
            await tail.close()
        self._tails.clear()

    async def _run(self) -> None:
        while self.readers and not self.is_closing:
            with suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_S):
                    await self._running.stopping.wait()
                    break
            await self._look_after_readers()
        await self._farewell()

    async def _look_after_readers(self) -> None:
        now = asyncio.get_running_loop().time()
        due: list[Reader] = []
        for reader in tuple(self.readers):
            if now - reader.sent_at > self.settings.heartbeat_seconds and not reader.has_pending():
                reader.write(reader.heartbeat())
            if now >= reader.check_at and not reader.is_ending:
                due.append(reader)
        for reader in due[:CHECKS_IN_SWEEP]:
            reader.check_at = now + self.settings.check_seconds
            await self._check(reader)

    async def _farewell(self) -> None:
        """End every stream with `bye`. The protocol ends connections whose clients read nothing (see protocol.py)."""
        for reader in self.readers:
            reader.end(sse.bye("shutdown", "The server is shutting down.", self.settings.spread_seconds))
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_BYTES_S if self.readers else 0):
                await self._empty.wait()

    async def _check(self, reader: Reader) -> None:
        try:
            await reader.check()
        except EventfoldError as error:
            reader.end(sse.bye(error.code, without_places(error).what, sse.RETRY_MS / 1000))
