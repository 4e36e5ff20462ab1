"""Room: connections of a driver: one for each thread, or one for all threads in turn.

Knows: threads. Does not know: any driver.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

C = TypeVar("C")


class OfThread(Generic[C]):
    """A connection for every thread that asks, made when it first does."""

    def __init__(self, make: Callable[[], C], end: Callable[[C], None]) -> None:
        self._make, self._end = make, end
        self._own = threading.local()
        self._all: list[C] = []

    def take(self) -> C:
        """This thread's."""
        connection: C | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = self._make()
            self._all.append(connection)
        return connection

    def give(self, connection: C, broken: bool) -> None:
        """Give it back; a broken one is closed, and the thread's next is new."""
        if broken:
            self._own.connection = None
            self._all.remove(connection)
            self._end(connection)

    def close(self) -> None:
        """Close all of them."""
        self._own = threading.local()
        while self._all:
            self._end(self._all.pop())


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
