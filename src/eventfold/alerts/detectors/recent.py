"""The last values of a series, and how far a value is from their median in units of their quartiles.

Knows: numbers. Does not know: times, verdicts over time.
"""

from __future__ import annotations

from bisect import bisect_left, insort

import msgspec

from eventfold.alerts.detectors.wording import number

_QUARTILES_APART = 1.349  # of a normal distribution, in standard deviations


class RecentValues(msgspec.Struct, tag="recent"):
    """The last `window` values, in the order of arrival (a ring) and in the order of size."""

    window: int
    z: float
    floor: float
    ring: list[int | float] = []
    next: int = 0
    ordered: list[int | float] = []

    @property
    def size(self) -> int:
        """The number of values."""
        return len(self.ring)

    def quartiles(self) -> tuple[float, float, float]:
        """Return the lower quartile, the median and the upper quartile: the values at these ranks."""
        ordered = self.ordered
        last = len(ordered) - 1
        return ordered[last // 4], ordered[last // 2], ordered[last - last // 4]

    def judge(self, value: float) -> tuple[str, str] | None:
        """Return the side ("high", "low") and a sentence if a value is too far from the median."""
        low, median, high = self.quartiles()
        deviation = max((high - low) / _QUARTILES_APART, self.floor, abs(median) / 100)
        far = (value - median) / deviation
        if abs(far) <= self.z:
            return None
        side, word = ("high", "above") if far > 0 else ("low", "below")
        return side, (
            f"{number(value)} is {number(round(abs(far), 1))} robust standard deviations {word} {number(median)}, "
            f"the median of its last {number(self.size)} values."
        )

    def learn(self, value: float) -> None:
        """Add a value; the oldest one beyond the window is removed."""
        ring, ordered = self.ring, self.ordered
        if len(ring) < self.window:
            ring.append(value)
        else:
            del ordered[bisect_left(ordered, ring[self.next])]
            ring[self.next] = value
            self.next = (self.next + 1) % self.window
        insort(ordered, value)


__all__ = ["RecentValues"]
