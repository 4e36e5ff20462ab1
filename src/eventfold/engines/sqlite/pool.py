"""The connections of one file: lent to callers, returned, and all closed before the process forks.

Knows: how many are in use. Does not know: how a connection is opened.
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

MAX_IDLE_READERS = 8  # each may cache 16 MB of pages
POLL_INTERVAL_S = 0.05
FORK_TIMEOUT_S = 5.0  # a fork waits for current reads and commits


class Pool:
    """Connections for reading, and one for writing. A lent connection belongs to one caller until it is returned.

    Borrowing and returning are single operations of a deque and need no lock. Open connections are counted by weak
    references: a connection that an exception kept from being returned is closed by the garbage collector, and is no
    longer counted.
    """

    def __init__(
        self,
        reader: Callable[[], apsw.Connection],
        writer: Callable[[], apsw.Connection],
        on_all_closed: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_all_closed = on_all_closed  # called when the pool and its last connection are closed
        self._new_reader, self._new_writer = reader, writer
        self._readers: deque[apsw.Connection] = deque()
        self._writers: deque[apsw.Connection] = deque()  # the writer's connection while it is not in use
        self._accepts_returns = True  # False while a fork waits, and after the pool is closed
        self._open_connections: dict[int, ReferenceType[Any]] = {}  # idle, lent, or being opened
        self._changed, self._pause_mutex = Waiters(), Mutex()
        self._pauses = 0  # number of waiting forks
        self._closed = False

    def reader(self) -> apsw.Connection:
        """Borrow a connection for reading; return it by `return_reader` or `discard`."""
        try:
            return self._readers.pop()
        except IndexError:
            return self._open(self._new_reader)

    def writer(self) -> apsw.Connection:
        """Borrow the connection for writing, one thread at a time; return it by `return_writer` or `discard`."""
        try:
            return self._writers.pop()
        except IndexError:
            return self._open(self._new_writer)

    def return_reader(self, connection: apsw.Connection) -> None:
        """Return a connection for reading."""
        if len(self._readers) < MAX_IDLE_READERS:
            self._return(self._readers, connection)
        else:
            self.discard(connection)

    def return_writer(self, connection: apsw.Connection) -> None:
        """Return the connection for writing."""
        self._writers.append(connection)
        if not self._accepts_returns:  # as in `_return`
            self.close_idle()

    def discard(self, connection: apsw.Connection) -> None:
        """Return a connection that may be in an unknown state, and close it."""
        try:
            with suppress(apsw.Error):  # closing cannot affect what was committed
                connection.close(force=True)
        finally:
            self._unregister(connection)

    def _open(self, make: Callable[[], apsw.Connection]) -> apsw.Connection:
        making = _PendingConnection()
        self._register(making)
        while (
            self._pauses > 0
        ):  # checked after registering: either the fork waits for this thread, or this thread for the fork
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
        """The number of connections that are open or being opened."""
        alive = 0
        for number, found in tuple(self._open_connections.items()):
            if found() is not None:
                alive += 1
            elif self._open_connections.get(number) is found:
                self._open_connections.pop(number, None)
        return alive

    def _return(self, kept: deque[apsw.Connection], connection: apsw.Connection) -> None:
        kept.append(connection)
        if not self._accepts_returns:  # checked after the append, so that no connection is missed
            self.close_idle()

    def close_idle(self) -> None:
        """Close the connections that are not in use; new ones are opened on demand."""
        for kept in (self._readers, self._writers):
            while True:
                try:
                    connection = kept.pop()
                except IndexError:
                    break
                self.discard(connection)

    def close(self) -> None:
        """Close connections that are not in use; the others are closed when they are returned."""
        self._closed, self._accepts_returns = True, False
        self.close_idle()
        if not self._count_open():
            self._on_all_closed()

    def close_if_unused(self, on_closed: Callable[[], None]) -> bool:
        """If no connection is in use, close all and call `on_closed` before another is opened.

        Returns whether it did.
        """
        if self.is_in_use or self._closed:
            return False
        self._pause_mutex.run(self._add_pauses, 1)  # from here on opening a connection waits
        try:
            if self.is_in_use:
                return False
            self.close_idle()
            if self._count_open():  # one was borrowed in between
                return False
            on_closed()
            return True
        finally:
            self.resume()

    # Forks: see open_files.py

    @property
    def is_paused(self) -> bool:
        """Whether a fork waits for connections to be returned."""
        return self._pauses > 0

    @property
    def is_in_use(self) -> bool:
        """Whether a connection is lent."""
        return self._count_open() > len(self._readers) + len(self._writers)

    def pause(self) -> None:
        """Close every connection and lend no more. Waits FORK_TIMEOUT_S for those in use."""
        self._pause_mutex.run(self._add_pauses, 1)
        self.close_idle()
        end = time.monotonic() + FORK_TIMEOUT_S
        while self._count_open() and (left := end - time.monotonic()) > 0:
            self._changed.wait(lambda: not self._count_open(), min(left, POLL_INTERVAL_S))

    def resume(self) -> None:
        """Allow connections to be opened again."""
        self._pause_mutex.run(self._add_pauses, -1)
        self._changed.wake()

    def _add_pauses(self, by: int) -> None:
        self._pauses = max(0, self._pauses + by)
        self._accepts_returns = not (self._pauses or self._closed)


class _PendingConnection:
    """Represents a connection while it is being opened."""
