"""Sharing: which partitions of a projection a runner keeps when others are there to take some.

Nobody can see who waits for work, only who has some. So whoever has several lets one go for a moment, now and then; a
runner that has none takes it, is seen from then on, and is given its share. Knows: who holds what. Does not know: how
anything is held, what is done with it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

OFFERS = (3, 60)  # looks between two offers: at first, and at the most, where nobody takes any


class PartitionAssignment:
    """One runner's part in one projection of several partitions. Safe under threads; `look` in seconds."""

    def __init__(self, partitions: int, holder: str, look: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._partitions, self._holder, self._look, self._clock = partitions, holder, look, clock
        self._mine: set[int] = set()
        self._away: dict[int, float] = {}  # partitions that were let go, and until when they are left to others
        self._looked = clock()
        self._pause = OFFERS[0]
        self._offered = self._looked
        self._lock = threading.Lock()

    def may_claim(self, partition: int) -> bool:
        """Whether this partition may be taken: not while it is offered to others."""
        return self._clock() >= self._away.get(partition, 0.0)

    def note_held(self, partition: int, held: bool) -> None:
        """Note whether this runner has a partition."""
        with self._lock:
            (self._mine.add if held else self._mine.discard)(partition)

    def should_release(self, partition: int, holders: Callable[[], Iterable[str]]) -> bool:
        """Whether a partition that this runner has is to be let go of now. `holders` of all, asked once a look."""
        with self._lock:
            now = self._clock()
            if now < self._looked + self._look or len(self._mine) < 2 or partition != max(self._mine):
                return False
            self._looked = now
            others = set(holders()) - {"", self._holder}
            if len(self._mine) > -(-self._partitions // (1 + len(others))):
                self._pause = OFFERS[0]
                return self._let_go(partition, now, 3.0)
            if now < self._offered + self._pause * self._look:
                return False
            self._offered, self._pause = now, min(self._pause * 2, OFFERS[1])
            return self._let_go(partition, now, 1.5)

    def _let_go(self, partition: int, now: float, looks: float) -> bool:
        self._mine.discard(partition)
        self._away[partition] = now + looks * self._look
        return True
