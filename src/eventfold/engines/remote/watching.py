"""Notification of commits: one request at a time that the server answers as soon as the head has changed.

No commit is missed: each request names the head of the last answer, and the server answers at once if it has another.
After a lost connection, and while the server is away, callbacks are called too, so that followers learn of it by their
own reads.
Knows: the head. Does not know: followers.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from eventfold.concurrency.wakeup import call_all
from eventfold.core.backoff import Backoff, with_jitter
from eventfold.core.mutex import Mutex
from eventfold.engines.remote.background import Background
from eventfold.engines.remote.connection import Connection
from eventfold.errors import EventfoldError
from eventfold.ports.engine_messages import Watch
from eventfold.ports.messages import Head

WAIT_S = 25.0  # until an answer without a commit: it shows that the connection still works
GAP_S = 0.004  # after an answer: commits that follow one another closely share a notification
LINGER_S = 0.25  # how long requests go on without callbacks, for the next follower
RECONNECT = Backoff(0.05, 2.0)
Notify = Callable[[], None]


class Watching:
    """Calls every callback soon after a commit of any process."""

    def __init__(self, background: Background) -> None:
        self._background = background
        self._callbacks: list[Notify] = []
        self._mutex = Mutex()
        self._cancel: Callable[[], None] | None = None

    def watch(self, notify: Notify) -> Callable[[], None]:
        """See the port."""
        self._mutex.run(self._add, notify)
        return lambda: self._mutex.run(self._remove, notify)

    def _add(self, notify: Notify) -> None:
        self._callbacks.append(notify)
        if self._cancel is None:
            self._cancel = self._background.start(self._run)

    def _remove(self, notify: Notify) -> None:
        if notify in self._callbacks:
            self._callbacks.remove(notify)
        if not self._callbacks and self._cancel is not None:
            timer = threading.Timer(LINGER_S, self._stop_if_unused)
            timer.daemon = True
            timer.start()

    def _stop_if_unused(self) -> None:
        self._mutex.run(self._stop, False)

    def _stop(self, is_closing: bool) -> None:
        if (is_closing or not self._callbacks) and self._cancel is not None:
            self._cancel()
            self._cancel = None

    def close(self) -> None:
        """Call the callbacks once more, so that callers that wait learn of the close."""
        call_all(tuple(self._callbacks))
        self._callbacks.clear()
        self._mutex.run(self._stop, True)

    async def _run(self, connection: Connection) -> None:
        head, epoch, failures = -1, connection.store.epoch, 0
        while True:
            try:
                found = await connection.ask("watch", Watch(head, WAIT_S), Head, wait_s=WAIT_S)
            except EventfoldError:  # followers learn the reason from their own reads
                failures += 1
                call_all(tuple(self._callbacks))
                await asyncio.sleep(with_jitter(RECONNECT.pause(failures)))
                continue
            is_new = found.position != head or connection.store.epoch != epoch or failures > 0
            head, epoch, failures = found.position, connection.store.epoch, 0
            if is_new:
                call_all(tuple(self._callbacks))
                await asyncio.sleep(GAP_S)
