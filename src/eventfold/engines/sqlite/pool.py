"""Room: the connections of one file: given out, taken back, and all closed before the process forks.

Knows: how many are in use. Does not know: how one is made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition, Lock

import apsw

IDLE = 8  # readers kept for the next caller; each may cache 16 MB of pages
PATIENCE = 5.0  # seconds a fork waits for reads and commits in hand


class Pool:
    """Readers for whoever asks, and one writer. A connection is its taker's alone until it is given back."""

    def __init__(self, reader: Callable[[], apsw.Connection], writer: Callable[[], apsw.Connection]) -> None:
        self._new_reader, self._new_writer = reader, writer
        self._readers: deque[apsw.Connection] = deque()
        self._writers: deque[apsw.Connection] = deque()  # the one that writes, while it does not
        self._lock = Lock()  # held to take and to give back, never while a connection is used or made
        self._change = Condition(self._lock)
        self._out = self._pauses = 0
        self._closed = False

    def reader(self) -> apsw.Connection:
        """A connection to read by, to be given back by `done` or `discard`."""
        with self._lock:
            if self._readers:  # there are none while a fork waits
                self._out += 1
                return self._readers.pop()
        return self._take(self._readers, self._new_reader)

    def writer(self) -> apsw.Connection:
        """The connection to write by, to be given back by `written` or `discard`."""
        return self._take(self._writers, self._new_writer)

    def done(self, connection: apsw.Connection) -> None:
        """Take a reader back."""
        with self._lock:
            if len(self._readers) < IDLE and not (self._pauses or self._closed):
                self._out -= 1
                self._readers.append(connection)
                return
        self._back(connection, None)

    def written(self, connection: apsw.Connection) -> None:
        """Take the writer back."""
        self._back(connection, self._writers)

    def discard(self, connection: apsw.Connection) -> None:
        """Take back a connection that cannot be trusted any more, and close it."""
        self._back(connection, None)

    def _take(self, kept: deque[apsw.Connection], make: Callable[[], apsw.Connection]) -> apsw.Connection:
        with self._lock:
            while self._pauses:
                self._change.wait()
            self._out += 1
            if kept:
                return kept.pop()
        try:
            return make()
        except BaseException:
            self._back(None, None)
            raise

    def _back(self, connection: apsw.Connection | None, kept: deque[apsw.Connection] | None) -> None:
        with self._lock:
            if connection is not None:
                if kept is None or self._closed or self._pauses:
                    connection.close(force=True)
                else:
                    kept.append(connection)
            self._out -= 1
            if self._pauses:
                self._change.notify_all()

    def _close_kept(self) -> None:
        for kept in (self._readers, self._writers):
            while kept:
                kept.pop().close(force=True)

    def close(self) -> None:
        """Close what is not in use; what is closes when it is given back."""
        with self._lock:
            self._closed = True
            self._close_kept()

    # Forks: see forks.py

    @property
    def paused(self) -> bool:
        """Whether a fork waits for connections to be given back."""
        return self._pauses > 0

    @property
    def in_use(self) -> bool:
        """Whether somebody has a connection."""
        return self._out > 0

    def pause(self) -> None:
        """Close every connection, and give out none. Waits for those in use, within reason."""
        with self._lock:
            self._pauses += 1
            self._close_kept()
            self._change.wait_for(lambda: not self._out, PATIENCE)

    def resume(self) -> None:
        """Go on: connections are made again as they are needed."""
        with self._lock:
            self._pauses -= 1
            self._change.notify_all()
