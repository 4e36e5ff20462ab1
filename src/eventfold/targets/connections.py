"""Room: connections of a driver: one for each call, of which a few are kept, or one for all threads in turn.

Knows: threads. Does not know: any driver.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

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


class ForAll(Generic[C]):
    """One connection, taken in turns: what is in memory is there for its own connection only."""

    def __init__(self, make: Callable[[], C], end: Callable[[C], None]) -> None:
        self._make, self._end = make, end
        self._turn = threading.RLock()
        self._one: C | None = None

    def take(self) -> C:
        """It, when it is free."""
        self._turn.acquire()
        if self._one is None:
            self._one = self._make()
        return self._one

    def give(self, connection: C, broken: bool) -> None:
        """Give it back; it is kept even after an error, since all there is is in it."""
        self._turn.release()

    def close(self) -> None:
        """Close it."""
        with self._turn:
            if self._one is not None:
                self._end(self._one)
                self._one = None
