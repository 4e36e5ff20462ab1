"""Rates: at most so many calls of one key or address in a moving period.

The calls of each caller are counted in slices of a sixteenth of the period. A call counts until its whole slice is a
period ago, so no period has more calls than the limit, and a caller at full pace gets 16/17 of it. Memory is bounded
for any limit: 17 numbers for a caller, and the entries that were not used for longest are dropped.
Knows: counting, a clock. Does not know: who calls, HTTP.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

PERIODS_S = {"second": 1.0, "minute": 60.0, "hour": 3_600.0}
SLICES = 16
MAX_ENTRIES = 50_000


class Calls:
    """The calls of one caller: their number, and how many in each slice of time, oldest first."""

    __slots__ = ("count", "slices")

    def __init__(self) -> None:
        self.count = 0
        self.slices: deque[list[int]] = deque()  # [number of the slice, calls in it]


class Rate:
    """A limit as text, `100/second`, and the calls of each caller that count against it."""

    def __init__(self, limit: str, clock: Callable[[], float] = time.monotonic) -> None:
        amount, _, period = limit.partition("/")
        self.amount, self._slice_s, self._clock = int(amount), PERIODS_S[period] / SLICES, clock
        self._callers = dict[str, Calls]()

    def add(self, who: str) -> float:
        """Count one call. Returns 0.0 if it is within the limit; else it is not counted: how many seconds to wait."""
        calls, now = self._callers.pop(who, None) or Calls(), self._clock()
        self._callers[who] = calls  # at the end: the order is that of use
        if len(self._callers) > MAX_ENTRIES:
            del self._callers[next(iter(self._callers))]
        if (wait := self._wait(calls, now)) > 0:
            return wait
        number = int(now / self._slice_s)
        if not calls.slices or calls.slices[-1][0] != number:
            calls.slices.append([number, 0])
        calls.slices[-1][1] += 1
        calls.count += 1
        return 0.0

    def is_spent(self, who: str) -> float:
        """Return how many seconds to wait until a call is within the limit, without counting one; 0.0: it is now."""
        calls = self._callers.get(who)
        return 0.0 if calls is None else self._wait(calls, self._clock())

    def _wait(self, calls: Calls, now: float) -> float:
        """How long until one more call fits, after slices that are too old were forgotten."""
        oldest = int(now / self._slice_s) - SLICES
        while calls.slices and calls.slices[0][0] < oldest:
            calls.count -= calls.slices.popleft()[1]
        if calls.count < self.amount:
            return 0.0
        return max(0.001, (calls.slices[0][0] + SLICES + 1) * self._slice_s - now)
