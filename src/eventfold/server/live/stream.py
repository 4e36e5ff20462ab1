"""The response that is a live stream: what the log has, then what is appended, to one connection.

Knows: ASGI's messages, how a reader catches up and joins the shared reader. Does not know: routes, credentials.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from eventfold.aio import AsyncStore
from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Cursor
from eventfold.errors import EventfoldError
from eventfold.server.live import sse
from eventfold.server.live.hub import Hub
from eventfold.server.live.reader import Reader
from eventfold.server.live.tail import LogTail, another_epoch
from eventfold.server.live.view import FrameEncoder
from eventfold.server.places import without_places

T = TypeVar("T")
FIRST_PAGE, LAST_PAGE = 100, 1_000  # events in one read of a reader that catches up
SMALL_BYTES, LARGE_BYTES = 32_768, 262_144  # after a page below or above this a larger or a smaller one is read
MEDIA = "text/event-stream; charset=utf-8"
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}  # the second: nginx then passes events on at once


class EventStream(Response):
    """A live stream. `start` was verified in its epoch, which is the store's: the stream begins after it."""

    def __init__(self, hub: Hub, tail: LogTail, store: AsyncStore, reader: Reader, start: Cursor) -> None:
        super().__init__(None, 200, dict(HEADERS))
        del self.headers["content-length"]
        self.headers["content-type"] = MEDIA
        self._hub, self._tail, self._store, self._reader, self._start = hub, tail, store, reader, start
        self._epoch = start.epoch
        self._encoder = FrameEncoder(start.store, start.epoch)
        self._shows = reader.view.predicate()
        self._size = FIRST_PAGE
        self._joined: int | None = None  # the position after which the shared reader gives it every event

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream until it is to end or the client has gone."""
        reader = self._reader
        self._send = send
        watching = asyncio.create_task(self._watch(receive))
        self._hub.add(reader)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._write(sse.opening())
            await self._follow()
            if not reader.closed:
                await self._write(reader.take() + (reader.final or b""), more=False)
        except OSError:  # the server's way to say that the client has gone
            reader.close()
        except asyncio.CancelledError:  # a server that ends without setting `running.stopping`: it waits for no answer
            if reader.sending_since is not None or reader.closed:
                raise
            spread_s = self._hub.settings.spread_seconds
            await self._write(sse.bye("shutdown", "The server is shutting down.", spread_s), more=False)
        finally:
            watching.cancel()
            self._hub.remove(reader)

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            continue
        self._reader.close()

    async def _write(self, data: bytes, more: bool = True) -> None:
        loop, reader = asyncio.get_running_loop(), self._reader
        reader.sending_since = reader.sent_at = loop.time()
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        reader.sending_since = None
        reader.sent_at = loop.time()

    async def _follow(self) -> None:
        reader = self._reader
        try:
            if await self._catch_up():
                while not reader.is_ending:
                    await reader.wait()
                    if reader.has_pending() and not reader.is_ending:
                        await self._write(reader.take())
        except EventfoldError as error:
            shown = without_places(error)
            reader.drop(error.code, shown.what, shown.remedy)
        finally:
            if self._joined is not None:
                self._tail.leave(reader)

    async def _catch_up(self) -> bool:
        """Send what the log has, and join the shared reader exactly there. False if the stream is to end before."""
        reader, after = self._reader, self._start
        while not reader.is_ending:
            await self._alive(self._tail.ready())
            size = self._size
            head, page = await self._alive(self._read(after, size))
            if page:
                after = Cursor(after.store, self._epoch, page[-1].position, page[-1].id.hex())
                await self._write_page(page, str(after))
            if reader.has_pending() and self._joined is None:  # comments only
                await self._write(reader.take())
            if len(page) == size:
                continue
            through = max(head, after.position)
            if self._joined is None:
                self._joined = self._tail.join(reader, self._epoch)
            if self._joined is not None and through >= self._joined:
                await self._caught_up(after, through)
                return True
        return False

    async def _read(self, after: Cursor, size: int) -> tuple[int, list[StoredEvent]]:
        """Return the head, and the next events after a cursor: all up to the head if they are fewer than `size`."""
        store = self._store
        async with self._hub.reads:
            head = await store.head()
            found = store.read(self._reader.view.query, after=after, limit=size, raw=True)
            page = [recorded.stored async for recorded in found]
        if store.engine.epoch != self._epoch:
            raise another_epoch()
        return head, page

    async def _write_page(self, page: list[StoredEvent], cursor: str) -> None:
        view = self._reader.view
        data = b"".join(self._encoder.frame(stored, view.with_payload) for stored in page if self._shows(stored))
        if len(data) < SMALL_BYTES:
            self._size = min(self._size * 2, LAST_PAGE)
        elif len(data) > LARGE_BYTES:
            self._size = max(self._size // 2, 1)
        if data:
            await self._write(data)
            self._reader.cursor = cursor

    async def _caught_up(self, after: Cursor, through: int) -> None:
        """Send the notice, with a cursor that does not name an event which the reader may not see."""
        reader = self._reader
        reader.skip_through = through
        if reader.view.is_narrowed:
            through = after.position
        elif through > after.position:
            after = await self._store.cursor(through)
        reader.cursor = str(after)
        reader.heartbeat = lambda: self._tail.heartbeat(reader)
        await self._write(sse.caught_up(through, reader.cursor))

    async def _alive(self, work: Coroutine[Any, Any, T]) -> T:
        """Await something that may take long, and send comments meanwhile."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({task}, timeout=self._hub.settings.heartbeat_seconds))[0]:
                await self._write(sse.HEARTBEAT)
            return task.result()
        finally:
            task.cancel()
