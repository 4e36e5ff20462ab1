"""How fast a projection goes, and which of its handlers is the slowest: what its status tells.

Knows: arithmetic. Does not know: clocks.
"""

from __future__ import annotations

import msgspec

from eventfold.projections.fold import Timing


class Throughput:
    """Of one worker, over the pages it has taken; later ones count for more."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._told = "{}"
        self._slowest: dict[str, float] = {}

    def updated(self, timing: Timing, events: int, seconds: float) -> str:
        """The pace after one page more, as it is kept with the checkpoint."""
        if not events:
            return self._told  # what did not concern it says nothing about its pace
        if seconds > 0:
            self._rate = events / seconds if not self._rate else 0.7 * self._rate + 0.3 * events / seconds
        for name, spent in timing.spent.items():
            self._slowest[name] = 1e6 * spent / max(1, timing.events[name])
        slowest = max(self._slowest, key=self._slowest.__getitem__, default="")
        facts = {"rate": round(self._rate), "slowest": slowest, "micros": round(self._slowest.get(slowest, 0.0), 1)}
        self._told = msgspec.json.encode(facts).decode()
        return self._told
