"""How many bytes of bodies are held at once: of all callers, and of each, so that none of them fills the memory.

A body is received before its call takes a place among those that are handled, so that no call waits while one comes
slowly. What comes with its first message is not counted: the connection holds it in any case.
Knows: counting. Does not know: HTTP, who a caller is.
"""

from __future__ import annotations

from eventfold.server.access.errors import ServerBusy, TooManyCalls

RETRY_S = 1


class Bodies:
    """Counts the bytes of bodies: at most `most` of all callers, and of one caller half of it or one whole body.

    `largest`: the most bytes that one body may have.
    """

    def __init__(self, most: int, largest: int) -> None:
        self._most, self._share = max(most, largest), max(most // 2, largest)
        self._total, self._callers = 0, dict[str, int]()

    def add(self, who: str, size: int) -> None:
        """Count bytes of a caller. Raises TooManyCalls if it has its share already, ServerBusy if all have too many."""
        own = self._callers.get(who, 0) + size
        if own > self._share:
            raise TooManyCalls(
                f"The bodies that arrive from this caller have more than {self._share:,} bytes together.",
                f"Send fewer large bodies at once, and repeat this one in {RETRY_S} second.",
                retry_after=RETRY_S,
            )
        if self._total + size > self._most:
            raise ServerBusy(
                f"The bodies that arrive have more than {self._most:,} bytes together.",
                f"Repeat the call in {RETRY_S} second; an append with event ids or a key is not written twice.",
                retry_after=RETRY_S,
            )
        self._callers[who] = own
        self._total += size

    def remove(self, who: str, size: int) -> None:
        """Count them no more."""
        self._total -= size
        self._callers[who] -= size
        if not self._callers[who]:
            del self._callers[who]


class HeldBody:
    """The body of one call, as far as it has arrived. `release` when the call has ended."""

    __slots__ = ("_bodies", "_size", "_who")

    def __init__(self, bodies: Bodies, who: str) -> None:
        self._bodies, self._who, self._size = bodies, who, 0

    def add(self, size: int) -> None:
        """Count bytes of it. Raises as `Bodies.add` does."""
        self._bodies.add(self._who, size)
        self._size += size

    def release(self) -> None:
        """Count it no more."""
        if self._size:
            self._bodies.remove(self._who, self._size)
            self._size = 0
