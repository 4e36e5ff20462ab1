"""Notification of commits: calling the watchers of an engine, and waking a follower that waits.

Knows: an engine's `watch`. Does not know: what was committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from eventfold.concurrency.waiting import Flag

if TYPE_CHECKING:
    import asyncio


class CommitSignal:
    """A signal that wakes one waiting follower, a thread or a task, when events may have been committed."""

    def __init__(self, watch: Callable[[Callable[[], None]], Callable[[], None]]) -> None:
        self._flag = Flag()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None
        self.closed = False
        self._stop = watch(self.notify)

    def notify(self) -> None:
        """Wake the waiter. May be called from any thread."""
        self._flag.set()
        waiter = self._waiter
        if waiter is not None:
            try:
                waiter[0].call_soon_threadsafe(_wake, waiter[1])
            except RuntimeError:  # its event loop has ended
                return

    def clear(self) -> None:
        """Reset the signal. Call this before reading the log, so that a later commit sets it again."""
        self._flag.clear()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until there is a notification. Returns False after `timeout` seconds; None: wait without limit."""
        return self._flag.wait(timeout)

    async def wait_async(self, timeout: float | None = None) -> bool:
        """Do the same in a task, without blocking its event loop."""
        import asyncio  # here, so that sync users never load it

        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiter = (loop, future)
        try:
            if not self._flag.is_set():
                async with asyncio.timeout(timeout):
                    await future
        except TimeoutError:
            return False
        finally:
            self._waiter = None
        return True

    def close(self) -> None:
        """Stop watching, and wake the waiter."""
        self.closed = True
        self._stop()
        self.notify()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def call_all(watchers: Iterable[Callable[[], None]]) -> None:
    """Call each watcher of an engine after a commit. Logs an error of a watcher ("eventfold") and calls the others."""
    for watcher in watchers:
        try:
            watcher()
        except Exception:
            import logging  # here, because most processes do not need it

            logging.getLogger("eventfold").exception("A function that watches a store for commits raised an error.")
