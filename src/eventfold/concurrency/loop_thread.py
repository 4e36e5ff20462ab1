"""An event loop in a thread of its own, which threads and other event loops give work to.

Knows: threads, event loops. Does not know: what the work is. Only callers that need it load this module.
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
from eventfold.ports.refusals import closed_error

T = TypeVar("T")
END_TIMEOUT_S = 10.0  # for the thread to end its work when it is closed
Work = Callable[[], Coroutine[Any, Any, T]]


class _Job(Generic[T]):
    """A coroutine that runs on the loop, and what came of it."""

    def __init__(self, work: Work[T], on_end: Callable[[], object]) -> None:
        self._work, self._on_end = work, on_end
        self._task: asyncio.Task[T] | None = None
        self._is_cancelled = False

    def start(self) -> None:
        """Create the task; called on the loop."""
        if self._is_cancelled:
            self._on_end()
            return
        self._task = asyncio.get_running_loop().create_task(self._work())
        self._task.add_done_callback(self._end)

    def cancel(self) -> None:
        """Cancel the task; called on the loop."""
        self._is_cancelled = True
        if self._task is not None:
            self._task.cancel()

    def _end(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it as never retrieved
        self._on_end()

    def result(self) -> T:
        """Return the result of a job that is done, or raise its error. Raises StoreClosed if it was cancelled."""
        if self._task is None or self._task.cancelled():
            raise closed_error()
        return self._task.result()


class LoopThread:
    """The loop and its thread, both started by the first use. `at_end` is awaited there when it is closed."""

    def __init__(self, name: str, at_end: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._name, self._at_end = name, at_end
        self._mutex = Mutex()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._process = os.getpid()

    def run(self, work: Work[T]) -> T:
        """Run a coroutine on the loop and block until it is done. An interrupt (Ctrl-C) cancels it there."""
        promise = Promise()
        loop, job = self._start(work, lambda: promise.set_result(None))
        try:
            while not promise.done:
                promise.wait()
        except BaseException:
            _call(loop, job.cancel)
            raise
        return job.result()

    async def call(self, work: Work[T]) -> T:
        """Do the same for a task of another event loop. Cancelling the task cancels the coroutine."""
        here = asyncio.get_running_loop()
        ended: asyncio.Future[None] = here.create_future()
        loop, job = self._start(work, lambda: _call(here, lambda: _resolve(ended)))
        try:
            await ended
        except asyncio.CancelledError:
            _call(loop, job.cancel)
            raise
        return job.result()

    def start(self, work: Work[Any]) -> Callable[[], None]:
        """Run a coroutine on the loop beside the caller. Returns a function that cancels it; any thread may call it."""
        loop, job = self._start(work, lambda: None)
        return lambda: _call(loop, job.cancel)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Call a function on the loop. Raises StoreClosed."""
        try:
            self._running().call_soon_threadsafe(function)
        except RuntimeError:  # the loop is closed
            raise closed_error() from None

    def is_current(self) -> bool:
        """Whether the caller runs in this thread."""
        return self._thread is threading.current_thread()

    def _start(self, work: Work[T], on_end: Callable[[], object]) -> tuple[asyncio.AbstractEventLoop, _Job[T]]:
        loop = self._running()
        job = _Job(work, on_end)
        try:
            loop.call_soon_threadsafe(job.start)
        except RuntimeError:  # the loop is closed
            raise closed_error() from None
        return loop, job

    def _running(self) -> asyncio.AbstractEventLoop:
        refuse_after_fork(self._process)
        return self._loop or self._mutex.run(self._start_thread)

    def _start_thread(self) -> asyncio.AbstractEventLoop:
        if self._closed:
            raise closed_error()
        if self._loop is None:
            loop = _new_loop()
            thread = threading.Thread(target=_serve, args=(loop, self._at_end), name=self._name, daemon=True)
            thread.start()
            weakref.finalize(self, _call, loop, loop.stop)  # also at the end of the process: connections are closed
            self._thread, self._loop = thread, loop
        return self._loop

    def close(self) -> None:
        """End what runs, await `at_end`, end the thread. Later calls raise StoreClosed."""
        loop, thread = self._mutex.run(self._close)
        if loop is not None and thread is not None and os.getpid() == self._process:
            _call(loop, loop.stop)
            if thread is not threading.current_thread():
                thread.join(END_TIMEOUT_S)

    def _close(self) -> tuple[asyncio.AbstractEventLoop | None, threading.Thread | None]:
        self._closed = True
        return self._loop, self._thread


def _new_loop() -> asyncio.AbstractEventLoop:
    """A loop of uvloop where it is installed: an iteration of it takes a fraction of the time."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _serve(loop: asyncio.AbstractEventLoop, at_end: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run the loop until it is stopped, then cancel what runs on it."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(_end(at_end))
        loop.close()


async def _end(at_end: Callable[[], Coroutine[Any, Any, None]]) -> None:
    await at_end()
    await cancel_tasks()
    await asyncio.sleep(0)  # closed connections are given up in the next iteration


async def cancel_tasks() -> None:
    """Cancel every other task of the running loop, and wait until they have ended. For `at_end`, too."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:  # the loop has ended, and everything on it
        return


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
