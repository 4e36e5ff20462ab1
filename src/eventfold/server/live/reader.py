"""One reader of a live stream: the bytes that wait for it, at most as many as its limit allows.

Knows: chunks of events, what a reader has been sent. Does not know: connections, the log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from eventfold.server.live.sse import HEARTBEAT, Dropped, dropped
from eventfold.server.live.view import View


class Chunk:
    """Events of one view, encoded once for all its readers. `frames` has the bytes of each, `data` those of all."""

    __slots__ = ("cursor", "data", "frames", "positions")

    def __init__(self, positions: Sequence[int], frames: Sequence[bytes], cursor: str) -> None:
        self.positions, self.frames, self.cursor = positions, frames, cursor
        self.data = frames[0] if len(frames) == 1 else b"".join(frames)

    def after(self, position: int) -> bytes:
        """The bytes of its events after a position, exclusive."""
        if self.positions[0] > position:
            return self.data
        return b"".join(f for p, f in zip(self.positions, self.frames, strict=True) if p > position)


class Reader:
    """A reader: what waits for it, and how its stream ends.

    `limit`: bytes. A reader for which more would wait is dropped; one chunk is accepted in any case, since its bytes
    are shared with other readers. All methods are called on one event loop.
    """

    def __init__(self, view: View, limit: int, cursor: str, check: Callable[[], Awaitable[object]]) -> None:
        self.view, self.limit, self.cursor = view, limit, cursor
        self.check = check  # raises an EventfoldError if the caller may not read any more
        self.check_at = 0.0
        self.heartbeat: Callable[[], bytes] = lambda: HEARTBEAT  # what it gets after a time without events
        self.sending_since: float | None = None  # since when a send has not returned
        self.sent_at = 0.0
        self.pending_bytes = 0
        self.skip_through = 0  # events up to this position, inclusive, were sent by reading the log itself
        self.closed = False  # the connection has ended
        self.dropped_for = ""  # the code of the reason for which it was dropped
        self.final: bytes | None = None  # the last bytes of the stream, once it is to end
        self._pending: deque[Chunk | bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_ending(self) -> bool:
        """Whether it takes nothing more."""
        return self.closed or self.final is not None

    def offer(self, chunk: Chunk) -> None:
        """Let a chunk wait for the reader, or drop the reader if too much would wait."""
        if self.is_ending:
            return
        size = len(chunk.data)
        if self._pending and self.pending_bytes + size > self.limit:
            self.drop(
                "too-slow",
                f"This reader took less than was appended: {self.pending_bytes:,} bytes were waiting for it.",
                "Connect again with Last-Event-ID, or after= this cursor: nothing is skipped. Ask for fewer events.",
            )
            return
        self._pending.append(chunk)
        self.pending_bytes += size
        self._wake()

    def write(self, data: bytes) -> None:
        """Let a comment or a notice wait for the reader."""
        if not self.is_ending:
            self._pending.append(data)
            self.pending_bytes += len(data)
            self._wake()

    def drop(self, code: str, title: str, detail: str) -> None:
        """End the stream: what waits is not sent; the client resumes by the cursor of the last event that was."""
        if self.is_ending:
            return
        self.dropped_for = code
        self._pending.clear()
        self.pending_bytes = 0
        self.end(dropped(Dropped(code, title, detail, self.cursor)))

    def end(self, final: bytes) -> None:
        """End the stream with these bytes, after what is waiting."""
        if not self.is_ending:
            self.final = final
            self._wake()

    def close(self) -> None:
        """Note that the connection has ended."""
        self.closed = True
        self._pending.clear()
        self.pending_bytes = 0
        self._wake()

    async def wait(self) -> None:
        """Wait until bytes are waiting, or the stream is to end."""
        while not (self._pending or self.is_ending):
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None

    def take(self) -> bytes:
        """Return the bytes that wait, and note the cursor after them."""
        parts: list[bytes] = []
        while self._pending:
            chunk = self._pending.popleft()
            if isinstance(chunk, bytes):
                parts.append(chunk)
            elif chunk.positions[-1] > self.skip_through:
                parts.append(chunk.after(self.skip_through))
                self.cursor = chunk.cursor
        self.pending_bytes = 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def has_pending(self) -> bool:
        """Whether bytes are waiting."""
        return bool(self._pending)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
