"""A clock that tests set by hand, for engines that take `clock=`.

Knows: µs since 1970 UTC. Does not know: engines.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from eventfold.core.envelope import from_micros, to_micros


class Clock:
    """Call it for the time in µs since 1970 UTC: `ef.Store("memory:", clock=Clock())`.

    It starts at `now` (an aware datetime) and moves only by `advance`, `back` and `set`.
    """

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.micros = to_micros(now)

    def __call__(self) -> int:
        return self.micros

    @property
    def now(self) -> datetime:
        """The time it shows, in UTC."""
        return from_micros(self.micros)

    def set(self, now: datetime) -> None:
        """Set the time, earlier or later. Raises InvalidInput on a naive datetime."""
        self.micros = to_micros(now)

    def advance(self, seconds: float) -> datetime:
        """Move forward; returns the new time."""
        self.micros += timedelta(seconds=seconds) // timedelta(microseconds=1)
        return self.now

    def back(self, seconds: float) -> datetime:
        """Move back, as a corrected clock does; returns the new time."""
        return self.advance(-seconds)
