"""The shared reader of a store's new events: each is read once and encoded once, for all readers that see it.

A reader that joins has read the log itself, up to a position. It is added at once, and gets the events after the
position that the tail has reached then; `LogTail.join` returns that position, up to which the reader must read.
Knows: AsyncStore.follow, feeds. Does not know: connections, what is sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator, Sequence

from eventfold.aio import AsyncStore
from eventfold.core.backoff import Backoff
from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Cursor
from eventfold.errors import CursorMismatch, EventfoldError, StoreClosed, StoreUnavailable
from eventfold.server.live.feeds import Feed, Feeds
from eventfold.server.live.reader import Chunk, Reader
from eventfold.server.live.sse import HEARTBEAT, moved
from eventfold.server.live.view import FrameEncoder
from eventfold.server.places import without_places
from eventfold.server.settings import LiveSettings

LOGGER = logging.getLogger("eventfold.server")
SLICE_EVENTS, SLICE_BYTES = 200, 65_536  # distributed without giving other tasks a turn
MAX_PAUSE_S = 0.025
PAUSE_FOR_READER_S = 0.000_1
WAIT_FOR_READERS_S = 0.25  # in a burst, for readers to take what waits for them, before the next slice
IDLE_S = 10.0  # for which it goes on without readers
RETRY = Backoff(0.1, 5.0)


class LogTail:
    """The shared reader of one store. It runs while there are readers."""

    def __init__(self, store: AsyncStore, settings: LiveSettings) -> None:
        self._store, self._settings = store, settings
        self._feeds = Feeds()
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._position = 0  # all events up to it, inclusive, were distributed
        self._epoch = -1
        self._cursor: Cursor | None = None  # after the last page
        self._readers = 0

    async def ready(self) -> None:
        """Wait until it follows the log. Raises what reading the head raises."""
        if self._task is None or self._task.done():
            self._ready = asyncio.get_running_loop().create_future()
            self._ready.add_done_callback(_retrieve)
            self._task = asyncio.create_task(self._run(self._ready), name="eventfold-live-tail")
        assert self._ready is not None
        await asyncio.shield(self._ready)

    def join(self, reader: Reader, epoch: int) -> int | None:
        """Add a reader. Returns the position after which it gets every event of its view.

        None, without adding it, if the tail has ended or reads another epoch than the reader's: ask `ready` again.
        """
        if self._task is None or self._task.done() or self._epoch != epoch:
            return None
        self._feeds.add(reader)
        self._readers += 1
        return self._position

    def leave(self, reader: Reader) -> None:
        """Remove a reader that joined."""
        self._feeds.remove(reader)
        self._readers -= 1
        if not self._readers:
            asyncio.get_running_loop().call_later(IDLE_S, self._end_if_idle)

    def heartbeat(self, reader: Reader) -> bytes:
        """A heartbeat for a reader that joined: it names a later cursor, if there were events for other readers."""
        cursor = self._cursor
        if cursor is None or reader.view.is_narrowed or reader.skip_through >= cursor.position:
            return HEARTBEAT
        reader.skip_through, reader.cursor = cursor.position, str(cursor)
        return moved(reader.cursor)

    def _end_if_idle(self) -> None:
        if not self._readers and self._task is not None:
            self._task.cancel()
            self._task = None

    async def close(self) -> None:
        """End the task."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self, ready: asyncio.Future[None]) -> None:
        try:
            cursor = await self._store.cursor()
            self._position, self._epoch = cursor.position, cursor.epoch
            ready.set_result(None)
            attempts = 0
            while True:
                try:
                    async for after in self._pages(cursor):
                        cursor, attempts = after, 0
                except StoreUnavailable:
                    attempts += 1
                    await asyncio.sleep(RETRY.pause(attempts))
        except EventfoldError as error:
            shown = without_places(error)
            self._fail(ready, error, error.code, shown.what, shown.remedy)
        except Exception as error:
            LOGGER.exception("Following a store for live readers failed.")
            self._fail(ready, error, "internal", "The server failed to read new events.", "Connect again.")
        finally:
            if not ready.done():
                ready.set_exception(StoreClosed("The server is shutting down.", "Connect again."))

    async def _pages(self, cursor: Cursor) -> AsyncGenerator[Cursor]:
        """Distribute each page of new events, and yield the cursor after it."""
        async with self._store.follow(after=cursor, raw=True) as follower:
            async for page in follower.pages():
                if self._store.engine.epoch != self._epoch:
                    raise another_epoch()
                began = asyncio.get_running_loop().time()
                await self._distribute([recorded.stored for recorded in page], follower.caught_up)
                self._cursor = follower.cursor
                self._position = self._cursor.position
                yield self._cursor
                pause = min(max(self._settings.pause_seconds, self._readers * PAUSE_FOR_READER_S), MAX_PAUSE_S)
                await asyncio.sleep(max(0.0, began + pause - asyncio.get_running_loop().time()))

    async def _distribute(self, page: Sequence[StoredEvent], caught_up: bool) -> None:
        encoder = FrameEncoder(self._store.engine.store_id, self._epoch)
        for part in _slices(page):
            self._offer(part, encoder)
            self._position = part[-1].position
            if not caught_up or len(part) < len(page):
                await self._wait_for_readers()

    def _offer(self, events: Sequence[StoredEvent], encoder: FrameEncoder) -> None:
        """Encode the events that a reader sees, and let them wait for these readers. Without a pause in between."""
        found: dict[Feed, list[StoredEvent]] = {}
        for stored in events:
            for feed in self._feeds.matching(stored):
                found.setdefault(feed, []).append(stored)
        frames: dict[tuple[int, bool], bytes] = {}
        for feed, matching in found.items():
            payload = feed.view.with_payload
            for stored in matching:
                if (stored.position, payload) not in frames:
                    frames[stored.position, payload] = encoder.frame(stored, payload)
            chunk = Chunk(
                [stored.position for stored in matching],
                [frames[stored.position, payload] for stored in matching],
                encoder.cursor(matching[-1]),
            )
            for reader in feed.readers:
                reader.offer(chunk)

    async def _wait_for_readers(self) -> None:
        """Give readers a turn; in a burst, wait a moment for those whose limit it would exceed."""
        await asyncio.sleep(0)
        deadline = asyncio.get_running_loop().time() + WAIT_FOR_READERS_S
        while any(reader.pending_bytes * 2 > reader.limit for reader in self._feeds.readers()):
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(0.005)

    def _fail(self, ready: asyncio.Future[None], error: Exception, code: str, what: str, remedy: str) -> None:
        if not ready.done():
            ready.set_exception(error)
        for reader in self._feeds.readers():
            reader.drop(code, what, remedy)


def _slices(page: Sequence[StoredEvent]) -> Iterator[Sequence[StoredEvent]]:
    """Divide a page into parts of at most SLICE_EVENTS events; a part ends at the event that makes it SLICE_BYTES."""
    begin = size = 0
    for index, stored in enumerate(page):
        size += len(stored.data) + len(stored.metadata or b"")
        if size >= SLICE_BYTES or index + 1 - begin == SLICE_EVENTS:
            yield page[begin : index + 1]
            begin, size = index + 1, 0
    if begin < len(page):
        yield page[begin:]


def another_epoch() -> CursorMismatch:
    """The error for a stream that was begun in an earlier epoch of the store."""
    return CursorMismatch(
        "The store has begun another epoch: it failed over, or a backup was restored.",
        "Connect again with the last cursor: the store verifies that its events are still there.",
    )


def _retrieve(ready: asyncio.Future[None]) -> None:
    """Mark an error as seen, also if no caller waits any more."""
    if not ready.cancelled():
        ready.exception()
