"""The commits of one store: callers that wait for the next one share one watcher and one read of the head.

Knows: the head of a log, notifications of its engine. Does not know: HTTP, events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from eventfold.ports.engine import Engine
from eventfold.ports.messages import Head

LINGER_S = 5.0  # how long the engine is watched after the last caller has gone


class CommitWait:
    """Callers that wait until the head of a store has changed. All are answered when `stopping` is set, or by close."""

    def __init__(self, engine: Engine, stopping: asyncio.Event) -> None:
        self._engine, self._stopping = engine, stopping
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._stop: Callable[[], None] | None = None
        self._waiting = 0
        self._unused: asyncio.TimerHandle | None = None
        self._closed = False
        self._head: asyncio.Task[Head] | None = None
        self._ending: asyncio.Task[None] | None = None

    async def wait(self, head: int, wait_s: float) -> Head:
        """Return the head as soon as its position is not `head` any more, at the latest after `wait_s` seconds."""
        self._begin()
        try:
            end = self._loop.time() + wait_s
            while True:
                changed = self._changed  # before the head is read: a later commit sets this one
                found = await self._read_head()
                left = end - self._loop.time()
                if found.position != head or left <= 0 or self._closed:
                    return found
                try:
                    async with asyncio.timeout(left):
                        await changed.wait()
                except TimeoutError:
                    return found
        finally:
            self._end()

    def close(self) -> None:
        """Answer all callers now, and stop watching."""
        if self._ending is not None:
            self._ending.cancel()
        self._answer_all()

    def _answer_all(self) -> None:
        self._closed = True
        self._notify()
        if self._stop is not None:
            self._stop()
            self._stop = None

    async def _end_with_server(self) -> None:
        """A server that ends waits for its requests in progress, and so must not wait for a commit."""
        await self._stopping.wait()
        self._answer_all()

    async def _read_head(self) -> Head:
        """The head, read once for all callers that were woken together."""
        if self._head is None:
            self._head = self._loop.create_task(self._engine.head())
            self._head.add_done_callback(self._forget_head)
        return await asyncio.shield(self._head)

    def _forget_head(self, task: asyncio.Task[Head]) -> None:
        if self._head is task:
            self._head = None

    def _begin(self) -> None:
        self._waiting += 1
        if self._unused is not None:
            self._unused.cancel()
            self._unused = None
        if self._ending is None and not self._closed:
            self._ending = self._loop.create_task(self._end_with_server())
        if self._stop is None and not self._closed:
            self._stop = self._engine.watch(self._notify_from_thread)

    def _end(self) -> None:
        self._waiting -= 1
        if not self._waiting and not self._closed:
            self._unused = self._loop.call_later(LINGER_S, self._stop_watching)

    def _stop_watching(self) -> None:
        self._unused = None
        if self._stop is not None and not self._waiting:
            self._stop()
            self._stop = None

    def _notify_from_thread(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._notify)
        except RuntimeError:  # the loop has ended, and with it every caller
            return

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        self._head = None  # one that is being read may be older than this commit
        changed.set()
