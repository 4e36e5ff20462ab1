"""Connections of a driver: one for each call, of which a few are kept, or one for all threads in turn.

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
MAX_IDLE_CONNECTIONS = 4  # connections that nobody uses


class ConnectionPool(Generic[C]):
    """A connection for whoever asks, alone until it is given back; a few are kept for those who ask next.

    Nobody waits, so nobody waits for a connection of their own. What is open is bounded by the calls in flight.
    """

    def __init__(self, make: Callable[[], C], end: Callable[[C], None]) -> None:
        self._open, self._end_connection = make, end
        self._idle: deque[C] = deque()
        self._closed = False

    def acquire(self) -> C:
        """One that is kept, or a new one."""
        self._closed = False
        try:
            return self._idle.pop()
        except IndexError:
            return self._open()

    def release(self, connection: C, broken: bool) -> None:
        """Give it back; a broken one is closed, and one more than are kept."""
        if broken or self._closed or len(self._idle) >= MAX_IDLE_CONNECTIONS:
            self._end_connection(connection)
        else:
            self._idle.append(connection)

    def close(self) -> None:
        """Close those that are kept now, and the others as they are given back."""
        self._closed = True
        while self._idle:
            self._end_connection(self._idle.pop())


class Loan(Generic[C]):
    """The one connection, in use by one call. It ends when it is given back, or when an exception ends the call."""

    __slots__ = ("__weakref__", "connection", "is_over", "thread")

    def __init__(self) -> None:
        self.thread, self.is_over = threading.get_ident(), False
        self.connection: C | None = None


class SharedConnection(Generic[C]):
    """One connection, taken in turns: what is in memory is there for its own connection only.

    A thread that has it may take it again. `clear` ends what a call has left that could not give it back.
    """

    def __init__(self, make: Callable[[], C], end: Callable[[C], None], clear: Callable[[C], None]) -> None:
        self._open, self._end_connection, self._clear = make, end, clear
        self._mutex = Mutex()
        self._loans: tuple[weakref.ref[Loan[C]], ...] = ()  # the innermost last; all of one thread
        self._connection: C | None = None

    def acquire(self) -> Loan[C]:
        """It, when it is free."""
        turn, pause = Loan[C](), 0.0
        while not self._mutex.run(self._try_enter, turn):
            time.sleep(pause)
            pause = min(max(FIRST_PAUSE_S, 2 * pause), LONGEST_PAUSE_S)
        if self._connection is None:
            self._connection = self._open()
        elif len(self._loans) == 1:
            self._clear(self._connection)
        turn.connection = self._connection
        return turn

    def _try_enter(self, turn: Loan[C]) -> bool:
        found = [each() for each in self._loans]
        active = [each for each in found if each is not None and not each.is_over]
        if active and active[-1].thread != turn.thread:
            return False
        self._loans = tuple(weakref.ref(each) for each in (*active, turn))
        return True

    def release(self, loan: Loan[C], broken: bool) -> None:
        """Give it back; it is kept even after an error, since all there is is in it."""
        loan.is_over = True

    def close(self) -> None:
        """Close it."""
        turn = self.acquire()
        try:
            if self._connection is not None:
                self._end_connection(self._connection)
                self._connection = None
        finally:
            turn.is_over = True
