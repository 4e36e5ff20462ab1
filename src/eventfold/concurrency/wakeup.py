"""Waiting until there may be something new, in either mode.

Knows: an engine's `watch`. Does not know: what was written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from eventfold.concurrency.waiting import Flag

if TYPE_CHECKING:
    import asyncio


class CommitSignal:
    """Wakes one waiting follower, in either mode, whenever something may have been committed."""

    def __init__(self, watch: Callable[[Callable[[], None]], Callable[[], None]]) -> None:
        self._rung = Flag()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None
        self.closed = False
        self._stop = watch(self.notify)

    def notify(self) -> None:
        """From any thread."""
        self._rung.set()
        waiter = self._waiter
        if waiter is not None:
            try:
                waiter[0].call_soon_threadsafe(_wake, waiter[1])
            except RuntimeError:  # that loop has ended
                return

    def clear(self) -> None:
        """To be called before looking, so that what happens after the look rings again."""
        self._rung.clear()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it rings; False on timeout (seconds)."""
        return self._rung.wait(timeout)

    async def wait_async(self, timeout: float | None = None) -> bool:
        """The same for a task."""
        import asyncio  # here, so that sync users never load it

        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiter = (loop, future)
        try:
            if not self._rung.is_set():
                async with asyncio.timeout(timeout):
                    await future
        except TimeoutError:
            return False
        finally:
            self._waiter = None
        return True

    def close(self) -> None:
        """Stop watching and let a waiter go."""
        self.closed = True
        self._stop()
        self.notify()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
