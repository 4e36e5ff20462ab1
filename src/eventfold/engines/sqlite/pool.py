"""Room: the connections of one file: given out, taken back, and all closed before the process forks.

Knows: how many are in use. Does not know: how one is made.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import ReferenceType, ref

import apsw

from eventfold.concurrency.waiting import Waiters
from eventfold.core.mutex import Mutex

IDLE = 8  # readers kept for the next caller; each may cache 16 MB of pages
LOOK_AGAIN_S = 0.05
PATIENCE = 5.0  # seconds a fork waits for reads and commits in hand


class Pool:
    """Readers for whoever asks, and one writer. A connection is its taker's alone until it is given back.

    Taking one that is kept, and giving it back to be kept, are single steps of a deque and need no lock. What is open
    is counted by weak references: a connection whose taker was ended by an exception, before it could give it back,
    is closed and counted no more once nothing refers to it.
    """

    def __init__(
        self,
        reader: Callable[[], apsw.Connection],
        writer: Callable[[], apsw.Connection],
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._ended = ended  # called when the pool is closed and its last connection is, too
        self._new_reader, self._new_writer = reader, writer
        self._readers: deque[apsw.Connection] = deque()
        self._writers: deque[apsw.Connection] = deque()  # the one that writes, while it does not
        self._keeping = True  # False while a fork waits, and for ever once the pool is closed
        self._made: dict[int, ReferenceType[Any]] = {}  # connections that are kept or used, or being made
        self._change, self._counting = Waiters(), Mutex()
        self._pauses = 0  # forks that wait
        self._closed = False

    def reader(self) -> apsw.Connection:
        """A connection to read by, to be given back by `done` or `discard`."""
        try:
            return self._readers.pop()
        except IndexError:
            return self._make(self._new_reader)

    def writer(self) -> apsw.Connection:
        """The connection to write by, for one thread at a time, to be given back by `written` or `discard`."""
        try:
            return self._writers.pop()
        except IndexError:
            return self._make(self._new_writer)

    def done(self, connection: apsw.Connection) -> None:
        """Take a reader back."""
        if len(self._readers) < IDLE:
            self._keep(self._readers, connection)
        else:
            self.discard(connection)

    def written(self, connection: apsw.Connection) -> None:
        """Take the writer back."""
        self._keep(self._writers, connection)

    def discard(self, connection: apsw.Connection) -> None:
        """Take back a connection that cannot be trusted any more, and close it."""
        try:
            with suppress(apsw.Error):  # what was committed does not depend on how a connection ends
                connection.close(force=True)
        finally:
            self._gone(connection)

    def _make(self, make: Callable[[], apsw.Connection]) -> apsw.Connection:
        making = _Making()
        self._register(making)
        while self._pauses > 0:  # asked afterwards, so that a fork waits for us, or we for it
            self._gone(making)
            while self._pauses > 0:
                self._change.wait(lambda: self._pauses <= 0, LOOK_AGAIN_S)
            self._register(making)
        try:
            connection = make()
            self._register(connection)
        finally:
            self._gone(making)
        return connection

    def _register(self, made: Any) -> None:
        self._made[id(made)] = ref(made)

    def _gone(self, made: Any) -> None:
        self._made.pop(id(made), None)
        self._change.wake()
        if self._closed and not self._count():
            self._ended()

    def _count(self) -> int:
        """How many connections are open or being made."""
        alive = 0
        for number, found in tuple(self._made.items()):
            if found() is not None:
                alive += 1
            elif self._made.get(number) is found:
                self._made.pop(number, None)
        return alive

    def _keep(self, kept: deque[apsw.Connection], connection: apsw.Connection) -> None:
        kept.append(connection)
        if not self._keeping:  # asked afterwards, so that nothing kept in that moment is overlooked
            self.close_idle()

    def close_idle(self) -> None:
        """Close the connections that nobody uses; they are made again as they are needed."""
        for kept in (self._readers, self._writers):
            while True:
                try:
                    connection = kept.pop()
                except IndexError:
                    break
                self.discard(connection)

    def close(self) -> None:
        """Close what is not in use; what is closes when it is given back."""
        self._closed, self._keeping = True, False
        self.close_idle()
        if not self._count():
            self._ended()

    def rest(self, closed: Callable[[], None]) -> bool:
        """Close every connection if none is in use, and call `closed` before another one is made. Returns whether."""
        if self.in_use or self._closed:
            return False
        self._counting.run(self._pause, 1)  # from here on whoever makes one waits
        try:
            if self.in_use:
                return False
            self.close_idle()
            if self._count():  # one was taken in between
                return False
            closed()
            return True
        finally:
            self.resume()

    # Forks: see forks.py

    @property
    def paused(self) -> bool:
        """Whether a fork waits for connections to be given back."""
        return self._pauses > 0

    @property
    def in_use(self) -> bool:
        """Whether somebody has a connection."""
        return self._count() > len(self._readers) + len(self._writers)

    def pause(self) -> None:
        """Close every connection, and give out none. Waits for those in use, within reason."""
        self._counting.run(self._pause, 1)
        self.close_idle()
        end = time.monotonic() + PATIENCE
        while self._count() and (left := end - time.monotonic()) > 0:
            self._change.wait(lambda: not self._count(), min(left, LOOK_AGAIN_S))

    def resume(self) -> None:
        """Go on: connections are made again as they are needed."""
        self._counting.run(self._pause, -1)
        self._change.wake()

    def _pause(self, more: int) -> None:
        self._pauses = max(0, self._pauses + more)
        self._keeping = not (self._pauses or self._closed)


class _Making:
    """Stands for a connection while it is made."""
