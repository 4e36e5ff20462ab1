"""An event loop in a thread of its own, with a connection: for callers that block, and for work beside the calls.

Knows: threads, event loops. Does not know: what is asked for.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from eventfold.concurrency.run import refuse_after_fork
from eventfold.concurrency.waiting import Promise
from eventfold.core.mutex import Mutex
from eventfold.engines.remote.connection import Connection
from eventfold.engines.remote.failures import closed_error

T = TypeVar("T")
END_TIMEOUT_S = 5.0  # for the thread to end its calls when the store is closed
Work = Callable[[Connection], Coroutine[Any, Any, T]]


class Job(Generic[T]):
    """A coroutine that runs on the loop, and what came of it."""

    def __init__(self, work: Work[T]) -> None:
        self._work = work
        self.promise = Promise()
        self._task: asyncio.Task[T] | None = None
        self._is_cancelled = False

    def start(self, connection: Connection) -> None:
        """Create the task; called on the loop."""
        if self._is_cancelled:
            self.promise.set_result(None)
            return
        self._task = asyncio.get_running_loop().create_task(self._work(connection))
        self._task.add_done_callback(self._end)

    def cancel(self) -> None:
        """Cancel the task; called on the loop."""
        self._is_cancelled = True
        if self._task is not None:
            self._task.cancel()

    def _end(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it as never retrieved
        self.promise.set_result(None)

    def result(self) -> T:
        """Return the result of a job that is done, or raise its error. Raises StoreClosed if it was cancelled."""
        if self._task is None or self._task.cancelled():
            raise closed_error()
        return self._task.result()


class Background:
    """The loop and its thread, both started by the first use. `connect` makes the connection that its work uses."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._mutex = Mutex()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: Connection | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._process = os.getpid()

    def run(self, work: Work[T]) -> T:
        """Run a coroutine on the loop and block until it is done. An interrupt (Ctrl-C) cancels it there."""
        loop, job = self._start(work)
        try:
            while not job.promise.done:
                job.promise.wait()
        except BaseException:
            _call(loop, job.cancel)
            raise
        return job.result()

    def start(self, work: Work[Any]) -> Callable[[], None]:
        """Run a coroutine on the loop beside the caller. Returns a function that cancels it; any thread may call it."""
        loop, job = self._start(work)
        return lambda: _call(loop, job.cancel)

    def _start(self, work: Work[T]) -> tuple[asyncio.AbstractEventLoop, Job[T]]:
        refuse_after_fork(self._process)
        loop, connection = self._loop, self._connection
        if loop is None or connection is None:
            loop, connection = self._mutex.run(self._start_thread)
        job = Job(work)
        try:
            loop.call_soon_threadsafe(job.start, connection)
        except RuntimeError:  # the loop is closed
            raise closed_error() from None
        return loop, job

    def _start_thread(self) -> tuple[asyncio.AbstractEventLoop, Connection]:
        if self._closed:
            raise closed_error()
        if self._loop is not None and self._connection is not None:
            return self._loop, self._connection
        loop, connection = asyncio.new_event_loop(), self._connect()
        thread = threading.Thread(target=_serve, args=(loop, connection), name="eventfold-remote", daemon=True)
        thread.start()
        weakref.finalize(self, _call, loop, loop.stop)  # also at the end of the process: the connections are closed
        self._thread, self._connection, self._loop = thread, connection, loop
        return loop, connection

    def close(self) -> None:
        """End what runs, close the connection, end the thread. Later calls raise StoreClosed."""
        loop, thread = self._mutex.run(self._close)
        if loop is not None and thread is not None:
            _call(loop, loop.stop)
            if thread is not threading.current_thread():
                thread.join(END_TIMEOUT_S)

    def _close(self) -> tuple[asyncio.AbstractEventLoop | None, threading.Thread | None]:
        self._closed = True
        return self._loop, self._thread


def _serve(loop: asyncio.AbstractEventLoop, connection: Connection) -> None:
    """Run the loop until it is stopped, then cancel what runs on it and close the connection."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(_end(connection))
        loop.close()


async def _end(connection: Connection) -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await connection.close()
    await asyncio.sleep(0)  # closed connections are given up in the next iteration


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:  # the loop has ended, and everything on it
        return
