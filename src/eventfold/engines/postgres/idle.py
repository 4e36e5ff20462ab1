"""Closes connections that are idle for too long: in a timer's thread, or on the event loop they belong to.

Knows: threads and loops, since when a connection is idle. Does not know: how connections are opened and checked out.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, Literal, Protocol, TypeVar

from eventfold.errors import InvalidInput


class PooledConnection(Protocol):
    """A connection that is kept for its next caller."""

    idle_since: float  # by the monotonic clock


C = TypeVar("C", bound=PooledConnection)


def check_max_idle(seconds: object) -> None:
    """Raises InvalidInput unless this is a positive number of seconds, or None."""
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0):
        raise InvalidInput(
            f"max_idle={seconds!r} is not a length of time.", "Give a number of seconds above 0, or None for never."
        )


class IdleTimer(Generic[C]):
    """Closes connections at the left end of a deque after `max_idle_s`; callers use those at the right end."""

    def __init__(
        self,
        mode: Literal["sync", "async"],
        max_idle_s: float,
        idle: deque[C],
        close: Callable[[C], Awaitable[None]],
    ) -> None:
        self._mode, self._max_idle_s, self._idle, self._close = mode, max_idle_s, idle, close
        self._pid = os.getpid()
        self._running: threading.Timer | asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Start the timer for a connection that was just kept, unless the timer runs already."""
        if self._mode == "async":
            loop = asyncio.get_running_loop()
            if self._running is not loop:
                self._running = loop
                loop.call_later(self._max_idle_s, self._on_loop, loop)
        elif self._running is None:
            self._running = timer = threading.Timer(self._max_idle_s, self._in_thread)
            timer.daemon = True
            timer.name = "eventfold-idle"
            timer.start()

    def _in_thread(self) -> None:
        self._running = None
        if os.getpid() != self._pid:
            return
        while (connection := self._pop_expired()) is not None:
            with suppress(StopIteration):  # it never suspends in this mode
                self._close(connection).__await__().__next__()
        if self._idle:
            self.start()

    def _on_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        task = loop.create_task(self._close_expired())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _close_expired(self) -> None:
        self._running = None
        while (connection := self._pop_expired()) is not None:
            await self._close(connection)
        if self._idle:
            self.start()

    def _pop_expired(self) -> C | None:
        try:
            connection = self._idle.popleft()
        except IndexError:
            return None
        if time.monotonic() - connection.idle_since < self._max_idle_s:
            self._idle.appendleft(connection)
            return None
        return connection
