"""Outlier: a value that is rare in the history of its own values.

Knows: values and their history. Does not know: events, alerts, clocks.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Literal

from eventfold.alerts.detectors.detector import Detector, as_field, check_numbers, plain_number
from eventfold.alerts.detectors.quantiles import QuantileHistory
from eventfold.alerts.detectors.recent import RecentValues
from eventfold.core.durations import minutes, positive_micros
from eventfold.errors import InvalidInput

Side = Literal["both", "high", "low"]


class Outlier(Detector):
    """A value that is rare in the history of its own values: `add(value)` at each event.

    A value is judged by the values before it, then it becomes one of them. A rare one fires for `hold` microseconds
    from its time on, whatever comes after it. A value that is not finite is rare, and is not learned. `is_odd` says
    whether the last value was rare.
    """

    history: QuantileHistory | RecentValues
    side: Side = "both"
    warm: int = 200
    hold: int = 600_000_000
    is_odd: bool = False
    odd_at: int = 0
    reason: str = ""

    def add(self, value: float) -> None:
        """Judge a value, then add it to the history. Raises InvalidInput if it is no number."""
        given = plain_number(value)
        history = self.history
        if given is None:
            self._fire(f"{value!s:.40} is not a finite number.")
            return
        self.is_odd = False
        if history.size >= self.warm:
            found = history.judge(given)
            if found is not None and self.side in ("both", found[0]):
                self._fire(found[1])
        history.learn(given)

    def _fire(self, reason: str) -> None:
        self.is_odd, self.odd_at, self.reason = True, self.now, reason

    def fires(self, now: int) -> str | None:
        """Return the reason if a rare value came within the last `hold` microseconds."""
        return self.reason if self.reason and 0 <= now - self.odd_at < self.hold else None

    def due(self, now: int) -> int | None:
        """Return the moment at which the last rare value has been held long enough."""
        if not self.reason or now >= self.odd_at + self.hold:
            return None
        return self.odd_at + self.hold if now >= self.odd_at else self.odd_at


def outlier(
    *,
    rarer_than: float | None = None,
    window: int | None = None,
    z: float | None = None,
    floor: float | None = None,
    side: Side = "both",
    warm: int | None = None,
    hold: timedelta | None = None,
) -> Outlier:
    """Return a field that fires on a value that is rare in its own history: `amount: ef.Outlier = ef.outlier()`.

    `rarer_than=1/1000` (the default): a value beyond all but this share of all values so far, above or below, or on
    one `side`. `window=201`: a value more than `z` (10) robust standard deviations away from the median of the last
    201 values, where the deviation comes from their quartiles and is at least `floor` (1, in the value's unit); for
    series with few values, or whose level changes. It is silent until `warm` values are known (200, or the window) and
    fires for `hold` (10 minutes). Raises InvalidInput if an argument cannot be used.
    """
    given = {"rarer_than": rarer_than, "window": window, "z": z, "floor": floor, "warm": warm}
    check_numbers(**{name: value for name, value in given.items() if value is not None})
    if window is None and (z is not None or floor is not None):
        raise InvalidInput("z= and floor= are for a window.", "Write window=201 as well, or rarer_than=1/1000 alone.")
    if window is not None and rarer_than is not None:
        raise InvalidInput("outlier was given rarer_than= and window=.", "Give one of them.")
    if side not in ("both", "high", "low"):  # pyright: ignore[reportUnnecessaryContains]
        raise InvalidInput(f"side={side!r} is not a side.", 'Write side="high", "low" or "both".')
    held = positive_micros(minutes(10) if hold is None else hold, "hold")
    if window is None:
        share = 1 / 1000 if rarer_than is None else rarer_than
        if not 0 < share <= 0.1:
            raise InvalidInput(f"rarer_than={share!r} is not a small share.", "Give up to 0.1; 1/1000 is the default.")
        return as_field(Outlier(QuantileHistory(float(share)), side, _checked(warm, 200, 64, 50_000), held))
    if not 15 <= window <= 1_001:
        raise InvalidInput(f"window={window!r} is too small or too large.", "Give 15 to 1001 values; 201 is usual.")
    far, least = 10.0 if z is None else z, 1.0 if floor is None else floor
    if not 1 <= far < math.inf or not 0 < least < math.inf:
        raise InvalidInput(f"z={far!r}, floor={least!r} cannot be used.", "Give z of 1 or more, and floor above 0.")
    return as_field(
        Outlier(RecentValues(window, float(far), float(least)), side, _checked(warm, window, 15, window), held)
    )


def _checked(warm: int | None, default: int, least: int, most: int) -> int:
    if warm is not None and not least <= warm <= most:
        raise InvalidInput(f"warm={warm!r} is out of range.", f"Give {least} to {most} values.")
    return default if warm is None else warm


__all__ = ["Outlier", "outlier"]
