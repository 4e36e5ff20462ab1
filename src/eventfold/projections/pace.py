"""How long a read model waits before its next page, so that its transactions are few while the log is written to.

Every page takes a lock that appends need, also a page of one event. Beside a writer pages are therefore collected for a
longer time; a log that is quiet, and one that is far ahead, are read at once.
Knows: the sizes of pages, times. Does not know: clocks (times are parameters), threads, what a page does.
"""

from __future__ import annotations

import math

from eventfold.errors import InvalidInput

MAX_PAUSE_S = 0.025  # default
LONGEST_PAUSE_S = 1.0  # the largest bound: a pause must be short beside a lease
FIRST_PAUSE_S = 0.003125  # an eighth of the default bound, which three further pages reach


def check_max_pause(max_pause: float) -> float:
    """Return the bound in seconds. Raises InvalidInput unless it is a number from 0 to LONGEST_PAUSE_S."""
    try:
        is_within = 0 <= max_pause <= LONGEST_PAUSE_S  # refuses NaN, too
    except TypeError:  # not a number
        is_within = False
    if not is_within:
        raise InvalidInput(
            f"max_pause is {max_pause!r}, but a read model may pause for 0 to {LONGEST_PAUSE_S:g} s.",
            "Give seconds in that range, such as 0.025; 0 means never to pause.",
            max_pause=max_pause,
        )
    return float(max_pause)


class Pace:
    """The pauses of one follower: call `after_page` or `after_idle` for each read of the log, then `delay`.

    `max_pause`: the bound in seconds; 0: never pause. Pauses that have reached it end at its multiples since `origin`,
    so that followers with the same origin and bound read their next pages at the same time.
    """

    def __init__(self, max_pause: float, origin: float = 0.0) -> None:
        self._max_pause, self._origin = max_pause, origin
        self._pause = 0.0

    @property
    def pause(self) -> float:
        """The current pause in seconds: 0 while the log is quiet."""
        return self._pause

    def after_page(self, positions: int, more: bool) -> None:
        """Note a page that covered so many positions. `more`: further events were in the log already.

        A page of several positions means that others append faster than pages are read: the pause is doubled. A page
        of one position halves it.
        """
        if more:
            self._pause = 0.0
        elif positions > 1:
            self._pause = min(self._max_pause, max(2 * self._pause, FIRST_PAUSE_S))
        else:
            self._pause = self._pause / 2 if self._pause > FIRST_PAUSE_S else 0.0

    def after_idle(self) -> None:
        """Note that there was no event to read: the log is quiet."""
        self._pause = 0.0

    def delay(self, now: float) -> float:
        """Return how many seconds after `now` the next page should be read: more than 0 and at most the pause."""
        if self._pause < self._max_pause or not self._pause:
            return self._pause
        since = now - self._origin
        return max(0.0, (math.floor(since / self._pause) + 1) * self._pause - since)
