"""An event loop in a thread of its own, with a connection: for callers that block, and for work beside the calls.

Knows: when the connection is made and closed. Does not know: threads (concurrency/loop_thread.py), what is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from eventfold.concurrency.loop_thread import LoopThread, cancel_tasks
from eventfold.engines.remote.connection import Connection

T = TypeVar("T")
Work = Callable[[Connection], Coroutine[Any, Any, T]]


class _LateConnection:
    """The connection of a loop, made by the first work on it. It does not refer to the thread, which may be freed."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._connection: Connection | None = None

    async def work(self, work: Work[T]) -> T:
        """Do some work with the connection."""
        if self._connection is None:
            self._connection = self._connect()
        return await work(self._connection)

    async def end(self) -> None:
        """Cancel the work, which would otherwise meet a closed connection, and close it."""
        await cancel_tasks()
        if self._connection is not None:
            await self._connection.close()


class Background:
    """The loop and its thread, both started by the first use. `connect` makes the connection that its work uses."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connection = _LateConnection(connect)
        self._thread = LoopThread("eventfold-remote", self._connection.end)

    def run(self, work: Work[T]) -> T:
        """Run a coroutine on the loop and block until it is done. An interrupt (Ctrl-C) cancels it there."""
        connection = self._connection
        return self._thread.run(lambda: connection.work(work))

    def start(self, work: Work[Any]) -> Callable[[], None]:
        """Run a coroutine on the loop beside the caller. Returns a function that cancels it; any thread may call it."""
        connection = self._connection
        return self._thread.start(lambda: connection.work(work))

    def close(self) -> None:
        """End what runs, close the connection, end the thread. Later calls raise StoreClosed."""
        self._thread.close()
