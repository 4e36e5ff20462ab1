"""The clock by which rows are asked that are due: the wall clock, without its jumps.

Knows: two clocks, one that may be set and one that cannot. Does not know: rows, alerts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from eventfold.projections.catch_up import wall_clock

BEHIND_US = 250_000  # µs: events that were recorded before this moment are in the log
JUMP_US = 60_000_000  # µs: a step of the wall clock that is larger than this, beyond the time that passed, is a jump
CONFIRM_US = 30_000_000  # µs: how long a jump forwards must last before it is believed


class AskClock:
    """Returns the time in µs since 1970 UTC, which never goes back.

    A wall clock that jumps forwards by over a minute is believed after 30 seconds: silence must not be reported because
    a clock was set wrong for a moment. One that jumps backwards is not followed: time goes on as it passes, until the
    wall clock has caught up. A clock that the caller gave is used as it is.
    """

    def __init__(self, clock: Callable[[], int], monotonic: Callable[[], int] = time.monotonic_ns) -> None:
        self.is_wall_clock = clock is wall_clock
        self._clock, self._monotonic = clock, monotonic
        self._last: tuple[int, int] | None = None  # the time that was returned, and the monotonic clock then, in µs
        self._jumped_at: int | None = None

    def now(self) -> int:
        """Return the time, in µs since 1970 UTC."""
        if not self.is_wall_clock:
            return self._clock()
        wall, passed = self._clock() - BEHIND_US, self._monotonic() // 1000
        if self._last is None:
            self._last = wall, passed
            return wall
        expected = self._last[0] + passed - self._last[1]
        if abs(wall - expected) <= JUMP_US:
            now, self._jumped_at = max(wall, self._last[0]), None
        else:
            now = self._after_jump(wall, expected, passed)
        self._last = now, passed
        return now

    def _after_jump(self, wall: int, expected: int, passed: int) -> int:
        if wall < expected:
            self._note(passed, wall - expected, "Alerts go on by the time that passes until it has caught up.")
            return expected
        self._note(passed, wall - expected, f"Alerts follow it if it lasts for {CONFIRM_US // 1_000_000} seconds.")
        if self._jumped_at is not None and passed - self._jumped_at >= CONFIRM_US:
            self._jumped_at = None
            return wall
        return expected

    def _note(self, passed: int, by: int, consequence: str) -> None:
        if self._jumped_at is None:
            self._jumped_at = passed
            logging.getLogger("eventfold").warning(
                "The clock of this machine jumped by %+.0f s. %s", by / 1e6, consequence
            )
