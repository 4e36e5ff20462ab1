"""A clock that stands still until it is told otherwise, for engines that take `clock=`.

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
        """The moment it shows, in UTC."""
        return from_micros(self.micros)

    def set(self, now: datetime) -> None:
        """Show another moment, earlier or later. Raises InvalidInput on a naive datetime."""
        self.micros = to_micros(now)

    def advance(self, seconds: float) -> datetime:
        """Go forward; returns the new moment."""
        self.micros += timedelta(seconds=seconds) // timedelta(microseconds=1)
        return self.now

    def back(self, seconds: float) -> datetime:
        """Step back, as a corrected clock does; returns the new moment."""
        return self.advance(-seconds)
