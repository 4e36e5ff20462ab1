"""Promises and flags that threads and tasks wait for, and that an exception of a signal handler cannot break.

The futures and events of the standard library use `threading.Condition`, whose lock stays locked if a signal handler
raises right after it was acquired. Here each waiter has a lock of its own, and checks again after a short time.
Knows: threads and event loops. Does not know: what callers wait for.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

CHECK_AGAIN_S = 0.05  # between checks by a waiter itself: an exception may end the call that was to wake it


class Waiters:
    """A list of waiters, each as a function that wakes it. Safe under threads: each step is one deque operation."""

    __slots__ = ("_waking",)

    def __init__(self) -> None:
        self._waking: deque[Callable[[], object]] = deque()

    def wake(self) -> None:
        """Wake all waiters. May be called from any thread."""
        for wake in tuple(self._waking):
            try:
                wake()
            except RuntimeError:  # it is awake already, or its event loop has ended
                continue

    def wake_one(self) -> None:
        """Wake one waiter that is not awake yet, if there is one."""
        for wake in tuple(self._waking):
            try:
                wake()
            except RuntimeError:
                continue
            return

    def wait(self, is_done: Callable[[], bool], timeout: float) -> None:
        """Block the calling thread until it is woken, for `timeout` seconds at most. Return at once if it is done."""
        gate = threading.Lock()
        gate.acquire()
        wake = gate.release
        self._waking.append(wake)
        try:
            if not is_done():  # checked after adding the waiter: if it becomes done later, the waiter is woken
                gate.acquire(timeout=max(0.0, timeout))
        finally:
            self._remove(wake)

    async def wait_on_loop(self, is_done: Callable[[], bool], timeout: float) -> None:
        """Do the same for the calling task."""
        import asyncio  # here, so that sync users never load it

        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        wake: Callable[[], object] = partial(_wake_on, loop, future)
        self._waking.append(wake)
        try:
            if not is_done():
                await asyncio.wait((future,), timeout=timeout)
        finally:
            self._remove(wake)

    def _remove(self, wake: Callable[[], object]) -> None:
        try:
            self._waking.remove(wake)
        except ValueError:  # it is not in the list: an exception came between the steps
            return


def _wake_on(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    loop.call_soon_threadsafe(_resolve, future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Promise:
    """See log.pipeline.Promise."""

    __slots__ = ("_waiters", "done")

    def __init__(self) -> None:
        self.done = False
        self._waiters = Waiters()

    def set_result(self, result: None) -> None:
        """Mark the promise as done, and wake the waiters."""
        self.done = True
        self._waiters.wake()

    def is_done(self) -> bool:
        """Whether it is done."""
        return self.done

    def wait(self) -> None:
        """Block until it is done, for CHECK_AGAIN_S at most: the caller must check again."""
        self._waiters.wait(self.is_done, CHECK_AGAIN_S)

    async def wait_on_loop(self) -> None:
        """Do the same for the calling task."""
        await self._waiters.wait_on_loop(self.is_done, CHECK_AGAIN_S)


class Flag:
    """Like `threading.Event`, but a waiter also checks by itself from time to time."""

    __slots__ = ("_set", "_waiters")

    def __init__(self) -> None:
        self._set = False
        self._waiters = Waiters()

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._set

    def set(self) -> None:
        """Set the flag and wake the waiters. May be called from any thread."""
        self._set = True
        self._waiters.wake()

    def clear(self) -> None:
        """Reset the flag. May be called from any thread."""
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it is set. Returns False after `timeout` seconds; None: wait without limit."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self._set:
            left = CHECK_AGAIN_S * 10 if end is None else end - time.monotonic()
            if left <= 0:
                return False
            self._waiters.wait(self.is_set, min(left, CHECK_AGAIN_S * 10))
        return True
