"""Room: connections of a driver: one for each call, of which a few are kept, or one for all threads in turn.

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
KEPT = 4  # connections that nobody uses


class Idle(Generic[C]):
    """A connection for whoever asks, alone until it is given back; a few are kept for those who ask next.

    Nobody waits, so nobody waits for a connection of their own. What is open is bounded by the calls in flight.
    """

    def __init__(self, make: Callable[[], C], end: Callable[[C], None]) -> None:
        self._make, self._end = make, end
        self._kept: deque[C] = deque()
        self._closed = False

    def take(self) -> C:
        """One that is kept, or a new one."""
        self._closed = False
        try:
            return self._kept.pop()
        except IndexError:
            return self._make()

    def give(self, connection: C, broken: bool) -> None:
        """Give it back; a broken one is closed, and one more than are kept."""
        if broken or self._closed or len(self._kept) >= KEPT:
            self._end(connection)
        else:
            self._kept.append(connection)

    def close(self) -> None:
        """Close those that are kept now, and the others as they are given back."""
        self._closed = True
        while self._kept:
            self._end(self._kept.pop())


class Turn(Generic[C]):
    """The one connection, in use by one call. It ends when it is given back, or when an exception ends the call."""

    __slots__ = ("__weakref__", "connection", "is_over", "thread")

    def __init__(self) -> None:
        self.thread, self.is_over = threading.get_ident(), False
        self.connection: C | None = None


class ForAll(Generic[C]):
    """One connection, taken in turns: what is in memory is there for its own connection only.

    A thread that has it may take it again. `clear` ends what a call has left that could not give it back.
    """

    def __init__(self, make: Callable[[], C], end: Callable[[C], None], clear: Callable[[C], None]) -> None:
        self._make, self._end, self._clear = make, end, clear
        self._mutex = Mutex()
        self._turns: tuple[weakref.ref[Turn[C]], ...] = ()  # the innermost last; all of one thread
        self._one: C | None = None

    def take(self) -> Turn[C]:
        """It, when it is free."""
        turn, pause = Turn[C](), 0.0
        while not self._mutex.run(self._enter, turn):
            time.sleep(pause)
            pause = min(max(FIRST_PAUSE_S, 2 * pause), LONGEST_PAUSE_S)
        if self._one is None:
            self._one = self._make()
        elif len(self._turns) == 1:
            self._clear(self._one)
        turn.connection = self._one
        return turn

    def _enter(self, turn: Turn[C]) -> bool:
        found = [each() for each in self._turns]
        held = [each for each in found if each is not None and not each.is_over]
        if held and held[-1].thread != turn.thread:
            return False
        self._turns = tuple(weakref.ref(each) for each in (*held, turn))
        return True

    def give(self, turn: Turn[C], broken: bool) -> None:
        """Give it back; it is kept even after an error, since all there is is in it."""
        turn.is_over = True

    def close(self) -> None:
        """Close it."""
        turn = self.take()
        try:
            if self._one is not None:
                self._end(self._one)
                self._one = None
        finally:
            turn.is_over = True
