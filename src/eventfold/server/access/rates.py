"""Rates: at most so many calls of one key or address in a moving period.

Two counters for each: of the period of the clock and of the one before, which counts by the part of it that is still
within the moving period. This is exact for calls at a steady pace, costs the same for any limit, and memory is bounded:
the entries that were not used for longest are dropped.
Knows: counting, a clock. Does not know: who calls, HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Callable

PERIODS_S = {"second": 1.0, "minute": 60.0, "hour": 3_600.0}
MAX_ENTRIES = 50_000


class Rate:
    """A limit as text, `100/second`, and the calls of each caller that count against it."""

    def __init__(self, limit: str, clock: Callable[[], float] = time.monotonic) -> None:
        amount, _, period = limit.partition("/")
        self.amount, self.period_s, self._clock = int(amount), PERIODS_S[period], clock
        self._counts = dict[str, tuple[int, int, int]]()  # number of the period, calls in it, calls in the one before

    def add(self, who: str) -> float:
        """Count one call. Returns 0.0 if it is within the limit; else it is not counted: how many seconds to wait."""
        number, current, before, passed = self._state(who)
        if before * (1 - passed) + current + 1 > self.amount:
            return self._wait(current, before, passed)
        self._counts.pop(who, None)  # so that the order is that of use
        if len(self._counts) >= MAX_ENTRIES:
            del self._counts[next(iter(self._counts))]
        self._counts[who] = (number, current + 1, before)
        return 0.0

    def is_spent(self, who: str) -> float:
        """Return how many seconds to wait until a call is within the limit, without counting one; 0.0: it is now."""
        _, current, before, passed = self._state(who)
        return self._wait(current, before, passed) if before * (1 - passed) + current + 1 > self.amount else 0.0

    def _state(self, who: str) -> tuple[int, int, int, float]:
        now = self._clock() / self.period_s
        number = int(now)
        last, current, before = self._counts.get(who, (number, 0, 0))
        if last != number:
            current, before = 0, current if last == number - 1 else 0
        return number, current, before, now - number

    def _wait(self, current: int, before: int, passed: float) -> float:
        """How long until one more call fits, if none comes meanwhile."""
        if before and current + 1 <= self.amount:
            return max(0.001, (1 - (self.amount - current - 1) / before - passed) * self.period_s)
        later = max(0.0, 1 - (self.amount - 1) / current) if current else 0.0
        return max(0.001, (1 - passed + later) * self.period_s)
