"""Connections of a driver: one for each call, with a few idle ones pooled, or one that all threads use in turn.

Knows: threads. Does not know: any driver.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from eventfold.core.mutex import FIRST_PAUSE_S, LONGEST_PAUSE_S, Mutex

C = TypeVar("C")
MAX_IDLE_CONNECTIONS = 4  # more are closed when they are released


class ConnectionPool(Generic[C]):
    """Connections, each in use by one call at a time; a few idle ones stay open for the next calls.

    `acquire` never waits: it opens a connection if none is idle. So a call that already has a connection cannot wait
    for itself. The number of open connections is bounded by the number of concurrent calls.
    """

    def __init__(self, make: Callable[[], C], end: Callable[[C], None]) -> None:
        self._open, self._end_connection = make, end
        self._idle: deque[C] = deque()
        self._closed = False

    def acquire(self) -> C:
        """Return an idle connection, or a new one."""
        self._closed = False
        try:
            return self._idle.pop()
        except IndexError:
            return self._open()

    def release(self, connection: C, broken: bool) -> None:
        """Return a connection to the pool; close it if it is `broken` or enough are idle."""
        if broken or self._closed or len(self._idle) >= MAX_IDLE_CONNECTIONS:
            self._end_connection(connection)
        else:
            self._idle.append(connection)

    def close(self) -> None:
        """Close the idle connections now, and the others when they are released."""
        self._closed = True
        while self._idle:
            self._end_connection(self._idle.pop())


class Loan(Generic[C]):
    """The use of the one connection by one call.

    It ends when the connection is released, or when the loan is garbage-collected after an exception ended the call.
    """

    __slots__ = ("__weakref__", "connection", "is_over", "thread")

    def __init__(self) -> None:
        self.thread, self.is_over = threading.get_ident(), False
        self.connection: C | None = None


class SharedConnection(Generic[C]):
    """One connection that threads use in turn: an in-memory database exists for its own connection only.

    The thread that uses it may acquire it again. `clear` ends the transaction of a call that an exception kept from
    releasing the connection.
    """

    def __init__(self, make: Callable[[], C], end: Callable[[C], None], clear: Callable[[C], None]) -> None:
        self._open, self._end_connection, self._clear = make, end, clear
        self._mutex = Mutex()
        self._loans: tuple[weakref.ref[Loan[C]], ...] = ()  # the innermost last; all of one thread
        self._connection: C | None = None

    def acquire(self) -> Loan[C]:
        """Wait until no other thread uses the connection, then return a loan of it."""
        loan, pause = Loan[C](), 0.0
        while not self._mutex.run(self._try_enter, loan):
            time.sleep(pause)
            pause = min(max(FIRST_PAUSE_S, 2 * pause), LONGEST_PAUSE_S)
        if self._connection is None:
            self._connection = self._open()
        elif len(self._loans) == 1:
            self._clear(self._connection)
        loan.connection = self._connection
        return loan

    def _try_enter(self, loan: Loan[C]) -> bool:
        loans = [each() for each in self._loans]
        active = [each for each in loans if each is not None and not each.is_over]
        if active and active[-1].thread != loan.thread:
            return False
        self._loans = tuple(weakref.ref(each) for each in (*active, loan))
        return True

    def release(self, loan: Loan[C], broken: bool) -> None:
        """End the loan. The connection stays open even if it is `broken`: the whole database is in it."""
        loan.is_over = True

    def close(self) -> None:
        """Close the connection, once no thread uses it."""
        loan = self.acquire()
        try:
            if self._connection is not None:
                self._end_connection(self._connection)
                self._connection = None
        finally:
            loan.is_over = True
