"""Drift: a level that has changed for good, upwards or downwards, by the test of Page and Hinkley.

Knows: values, their mean and variance. Does not know: events, alerts, clocks.
"""

from __future__ import annotations

import math
from datetime import timedelta

from eventfold.alerts.detectors.detector import Detector, as_field, check_numbers, plain_number
from eventfold.alerts.detectors.moving import moved
from eventfold.alerts.detectors.wording import number
from eventfold.core.durations import hours, positive_micros
from eventfold.errors import InvalidInput

_LONGEST = 100_000  # values after which the mean and the variance forget


class Drift(Detector):
    """A level that has changed: `add(value)` at each event.

    The first `warm` values give the level and the standard deviation. Then each value's distance from the mean, in
    standard deviations and at most `clip`, less `tolerance`, is added to two sums, one for each direction; where a sum
    has risen by more than `threshold` from its lowest, the level has changed. It fires for `hold` microseconds, names
    the direction, and learns the new level from the next `warm` values. A value that is not finite is ignored.
    """

    warm: int = 200
    tolerance: float = 0.5
    threshold: float = 25.0
    clip: float = 5.0
    hold: int = 3_600_000_000
    count: int = 0
    mean: float = 0.0
    variance: float = 0.0
    deviation: float = 0.0  # of the warm-up, by which distances are divided
    up: float = 0.0  # how far each sum is above its lowest
    down: float = 0.0
    recent: float = 0.0  # the mean of the values since the sum that is larger was at its lowest
    recent_count: int = 0
    is_changed: bool = False
    changed_at: int = 0
    reason: str = ""

    def add(self, value: float) -> None:
        """Add a value, and judge the level. Raises InvalidInput if it is no number."""
        given = plain_number(value)
        if given is None:
            return
        self.is_changed = False
        self.count = count = self.count + 1
        if count <= self.warm:
            self.mean, self.variance = moved(self.mean, self.variance, given, 1 / count)
            if count == self.warm:
                self._finish_warm_up()
            return
        distance = (given - self.mean) / self.deviation
        clip = self.clip
        distance = clip if distance > clip else -clip if distance < -clip else distance
        weight = 1 / min(count, _LONGEST)
        self.mean += distance * self.deviation * weight  # clipped, so that one spike hardly moves it
        distance *= 1 - weight  # from the mean that includes this value
        up = self.up + distance - self.tolerance
        down = self.down - distance - self.tolerance
        self.up = up = up if up > 0 else 0.0
        self.down = down = down if down > 0 else 0.0
        if up or down:
            self.recent_count += 1
            self.recent += (given - self.recent) / self.recent_count
        else:
            self.recent_count, self.recent = 0, 0.0
        if up > self.threshold or down > self.threshold:
            self._fire("up" if up > self.threshold else "down")

    def _finish_warm_up(self) -> None:
        variance = self.variance * self.count / (self.count - 1)
        self.deviation = max(math.sqrt(variance), abs(self.mean) / 1_000, 1e-9)

    def _fire(self, direction: str) -> None:
        self.is_changed, self.changed_at = True, self.now
        self.reason = (
            f"The level went {direction}, from {number(self.mean)} to {number(self.recent)}, the mean of its last "
            f"{number(self.recent_count)} values; its standard deviation was {number(self.deviation)}."
        )
        self.count, self.mean, self.variance, self.deviation = 0, 0.0, 0.0, 0.0
        self.up, self.down, self.recent, self.recent_count = 0.0, 0.0, 0.0, 0

    def fires(self, now: int) -> str | None:
        """Return the reason if the level changed within the last `hold` microseconds."""
        return self.reason if self.reason and 0 <= now - self.changed_at < self.hold else None

    def due(self, now: int) -> int | None:
        """Return the moment at which the last change has been held long enough."""
        if not self.reason or now >= self.changed_at + self.hold:
            return None
        return self.changed_at + self.hold if now >= self.changed_at else self.changed_at


def drift(*, warm: int = 200, tolerance: float = 0.5, threshold: float = 25.0, hold: timedelta | None = None) -> Drift:
    """Return a field that fires when the level of a value has changed for good: `delay: ef.Drift = ef.drift()`.

    For lasting changes; a single spike does not fire. Changes below `tolerance` standard deviations are no fault; a
    larger `threshold` fires later and errs less. It is silent for `warm` values and fires for `hold` (an hour). Raises
    InvalidInput if an argument cannot be used.
    """
    check_numbers(warm=warm, tolerance=tolerance, threshold=threshold)
    if not 30 <= warm <= 100_000:
        raise InvalidInput(f"warm={warm!r} is out of range.", "Give 30 values or more; 200 is the default.")
    for name, value in (("tolerance", tolerance), ("threshold", threshold)):
        if not 0 < value < math.inf:
            raise InvalidInput(f"{name}={value!r} is not above 0.", "Give a number of standard deviations.")
    held = positive_micros(hours(1) if hold is None else hold, "hold")
    return as_field(Drift(warm, float(tolerance), float(threshold), hold=held))


__all__ = ["Drift", "drift"]
