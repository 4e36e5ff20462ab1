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

MAX_IDLE_READERS = 8  # readers kept for the next caller; each may cache 16 MB of pages
POLL_INTERVAL_S = 0.05
FORK_TIMEOUT_S = 5.0  # seconds a fork waits for reads and commits in hand


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
        on_all_closed: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_all_closed = on_all_closed  # called when the pool is closed and its last connection is, too
        self._new_reader, self._new_writer = reader, writer
        self._readers: deque[apsw.Connection] = deque()
        self._writers: deque[apsw.Connection] = deque()  # the one that writes, while it does not
        self._accepts_returns = True  # False while a fork waits, and for ever once the pool is closed
        self._open_connections: dict[int, ReferenceType[Any]] = {}  # connections that are kept or used, or being made
        self._changed, self._pause_mutex = Waiters(), Mutex()
        self._pauses = 0  # forks that wait
        self._closed = False

    def reader(self) -> apsw.Connection:
        """A connection to read by, to be given back by `done` or `discard`."""
        try:
            return self._readers.pop()
        except IndexError:
            return self._open(self._new_reader)

    def writer(self) -> apsw.Connection:
        """The connection to write by, for one thread at a time, to be given back by `written` or `discard`."""
        try:
            return self._writers.pop()
        except IndexError:
            return self._open(self._new_writer)

    def return_reader(self, connection: apsw.Connection) -> None:
        """Take a reader back."""
        if len(self._readers) < MAX_IDLE_READERS:
            self._return(self._readers, connection)
        else:
            self.discard(connection)

    def return_writer(self, connection: apsw.Connection) -> None:
        """Take the writer back."""
        self._return(self._writers, connection)

    def discard(self, connection: apsw.Connection) -> None:
        """Take back a connection that cannot be trusted any more, and close it."""
        try:
            with suppress(apsw.Error):  # what was committed does not depend on how a connection ends
                connection.close(force=True)
        finally:
            self._unregister(connection)

    def _open(self, make: Callable[[], apsw.Connection]) -> apsw.Connection:
        making = _PendingConnection()
        self._register(making)
        while self._pauses > 0:  # asked afterwards, so that a fork waits for us, or we for it
            self._unregister(making)
            while self._pauses > 0:
                self._changed.wait(lambda: self._pauses <= 0, POLL_INTERVAL_S)
            self._register(making)
        try:
            connection = make()
            self._register(connection)
        finally:
            self._unregister(making)
        return connection

    def _register(self, connection: Any) -> None:
        self._open_connections[id(connection)] = ref(connection)

    def _unregister(self, connection: Any) -> None:
        self._open_connections.pop(id(connection), None)
        self._changed.wake()
        if self._closed and not self._count_open():
            self._on_all_closed()

    def _count_open(self) -> int:
        """How many connections are open or being made."""
        alive = 0
        for number, found in tuple(self._open_connections.items()):
            if found() is not None:
                alive += 1
            elif self._open_connections.get(number) is found:
                self._open_connections.pop(number, None)
        return alive

    def _return(self, kept: deque[apsw.Connection], connection: apsw.Connection) -> None:
        kept.append(connection)
        if not self._accepts_returns:  # asked afterwards, so that nothing kept in that moment is overlooked
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
        self._closed, self._accepts_returns = True, False
        self.close_idle()
        if not self._count_open():
            self._on_all_closed()

    def close_if_unused(self, on_closed: Callable[[], None]) -> bool:
        """Close every connection if none is in use, and call `closed` before another one is made. Returns whether."""
        if self.is_in_use or self._closed:
            return False
        self._pause_mutex.run(self._add_pauses, 1)  # from here on whoever makes one waits
        try:
            if self.is_in_use:
                return False
            self.close_idle()
            if self._count_open():  # one was taken in between
                return False
            on_closed()
            return True
        finally:
            self.resume()

    # Forks: see open_files.py

    @property
    def is_paused(self) -> bool:
        """Whether a fork waits for connections to be given back."""
        return self._pauses > 0

    @property
    def is_in_use(self) -> bool:
        """Whether somebody has a connection."""
        return self._count_open() > len(self._readers) + len(self._writers)

    def pause(self) -> None:
        """Close every connection, and give out none. Waits for those in use, within reason."""
        self._pause_mutex.run(self._add_pauses, 1)
        self.close_idle()
        end = time.monotonic() + FORK_TIMEOUT_S
        while self._count_open() and (left := end - time.monotonic()) > 0:
            self._changed.wait(lambda: not self._count_open(), min(left, POLL_INTERVAL_S))

    def resume(self) -> None:
        """Go on: connections are made again as they are needed."""
        self._pause_mutex.run(self._add_pauses, -1)
        self._changed.wake()

    def _add_pauses(self, by: int) -> None:
        self._pauses = max(0, self._pauses + by)
        self._accepts_returns = not (self._pauses or self._closed)


class _PendingConnection:
    """Stands for a connection while it is made."""
