"""Seasonal: the number in each hour, compared with what that local hour of the week usually has; or by day.

Knows: local hours, means and variances. Does not know: events, alerts, clocks.
"""

from __future__ import annotations

import copy
import math
from datetime import datetime, timedelta
from typing import Literal

from eventfold.alerts.calendars import local_time, micros_of, zone_of
from eventfold.alerts.detectors.detector import SMALL, Detector, as_field, check_numbers, plain_number
from eventfold.alerts.detectors.moving import moved, short
from eventfold.alerts.detectors.wording import number
from eventfold.errors import InvalidInput

_HOUR = 3_600_000_000
_AHEAD = 8  # hours that `due` looks ahead
_LONGEST_GAP = 28 * 24 * _HOUR  # a longer one is a break, not silence
_DAY_NAMES = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_COMMON = 4  # how many values of a cell the spread that all cells share counts as much as
_CLIP = 3  # standard deviations from the mean; a value farther away is learned as if it were there
_MEMORY = 12  # values that a cell remembers, roughly


class Seasonal(Detector):
    """The number in each local hour (168 cells) or day (7 cells) of the week: `add()` at each event.

    An hour is judged when it is complete, empty ones too, and at once if it has too many already. It fires if it is
    more than `z` standard deviations away from the mean of its cell, above or below; the verdict stands until the next
    hour is complete. Cells remember about twelve weeks; a value is learned as if it were at most three standard
    deviations away. The spread of a cell with few values is drawn towards that of all cells, and is at least that of
    random arrivals. A gap of more than four weeks is a break: nothing is learned from it, and the means are kept.
    """

    zone: str
    by: Literal["hour", "day"] = "hour"
    z: float = 5.0
    warm: int = 2  # values that a cell needs before it is judged
    begins: int = 0  # the current hour, [begins, ends)
    ends: int = 0
    cell: int = 0
    steady: int = 0  # until when the clocks are known not to change
    whole: bool = False  # whether it was watched from its beginning
    total: int | float = 0
    means: list[float] = []
    variances: list[float] = []
    counts: list[int] = []
    spread: float = 1.0  # variance of all cells, as a multiple of their means
    seen: int = 0  # values in all cells, up to a hundred
    found: list[float] = []  # the last complete hour, if it fires: its cell, total, mean, standard deviation

    def begin(self) -> None:
        """Start to watch at `now`: the hours that begin after it are judged, even if no event ever comes."""
        if not self.ends:
            self._enter(self.now)

    def add(self, count: float = 1) -> None:
        """Add `count` (default 1) at `now`. Ignored if it is not finite, or if its hour is complete already."""
        now = self.now
        if not self.begins <= now < self.ends:
            self._advance(now)
            if now < self.begins:
                return
        if type(count) is int and -SMALL < count < SMALL:
            self.total += count
        else:
            self.total += float(plain_number(count) or 0)

    def _enter(self, moment: int) -> None:
        """Make the hour that contains a moment the current one."""
        previous = self.ends
        self.total, self.found = 0, []
        if previous == moment < self.steady:  # the next hour of the same day
            self.begins, self.ends, self.cell, self.whole = moment, moment + _HOUR, (self.cell + 1) % 168, True
            return
        zone = zone_of(self.zone)
        local = local_time(moment, zone)
        if self.by == "hour":
            self.begins = moment - (local.minute * 60 + local.second) * 1_000_000 - moment % 1_000_000
            self.ends = self.begins + _HOUR
            self.cell = local.weekday() * 24 + local.hour
            tomorrow = local_time(moment + 24 * _HOUR, zone)
            self.steady = moment + 22 * _HOUR if local.utcoffset() == tomorrow.utcoffset() else 0
        else:
            day = datetime(local.year, local.month, local.day, tzinfo=zone)
            self.begins = min(micros_of(day), moment)
            self.ends = max(micros_of(day + timedelta(days=1)), moment + 1)
            self.cell = local.weekday()
        self.whole = self.begins == (previous or moment)

    def _advance(self, now: int) -> None:
        """Complete the current hour and all empty ones up to `now`, unless a break is between."""
        if not self.ends or now - self.ends >= _LONGEST_GAP or self.begins - now > _LONGEST_GAP:
            self.ends = 0
            self._enter(now)
        while now >= self.ends:
            found = self._complete() if self.whole else []
            self._enter(self.ends)
            self.found = found

    def _complete(self) -> list[float]:
        """Judge the current hour, and learn from it."""
        if not self.counts:
            size = 168 if self.by == "hour" else 7
            self.means, self.variances, self.counts = [0.0] * size, [0.0] * size, [0] * size
        cell, total = self.cell, self.total
        mean, count = self.means[cell], self.counts[cell]
        deviation = self._deviation()
        found = [cell, total, mean, short(deviation)] if self._is_far(total, mean, deviation) else []
        if count >= self.warm:
            total = min(max(total, mean - _CLIP * deviation), mean + _CLIP * deviation)
        if count >= 1:
            self.seen = min(self.seen + 1, 100)
            ratio = (total - mean) ** 2 * count / (count + 1) / max(mean, 1.0)
            self.spread = short(self.spread + (ratio - self.spread) / (self.seen + 5))
        self.counts[cell] = min(count + 1, _MEMORY)
        mean, variance = moved(mean, self.variances[cell], total, 1 / self.counts[cell])
        self.means[cell], self.variances[cell] = short(mean), short(variance)
        return found

    def _deviation(self) -> float:
        """Return the standard deviation of the current hour's cell."""
        count, mean = self.counts[self.cell], max(self.means[self.cell], 1.0)
        common = max(self.spread, 1.0) * mean
        own = self.variances[self.cell] * count / (count - 1) if count > 1 else common
        variance = (count * own + _COMMON * common) / (count + _COMMON)
        return math.sqrt(max(variance * (1 + 1 / max(count, 1)), mean))

    def _is_far(self, total: float, mean: float, deviation: float) -> bool:
        return self.counts[self.cell] >= self.warm and abs(total - mean) > self.z * deviation

    def at(self, now: int) -> Seasonal:
        """Return this detector with every hour complete that ended by `now`: itself, or a copy."""
        if not self.ends or now < self.ends:
            return self
        later = self.copy()
        later._advance(now)
        return later

    def copy(self) -> Seasonal:
        """Return a copy that shares no list with this detector."""
        twin = copy.copy(self)
        twin.means, twin.variances, twin.counts = self.means.copy(), self.variances.copy(), self.counts.copy()
        return twin

    def __deepcopy__(self, memo: object) -> Seasonal:
        return self.copy()

    def fires(self, now: int) -> str | None:
        """Return the reason if the last complete hour was too high or too low, or the current one is too high."""
        state = self.at(now)
        if not state.counts:
            return None
        mean = state.means[state.cell]
        if state.total > mean and now >= state.begins:
            deviation = state._deviation()
            if state._is_far(state.total, mean, deviation):
                return self._sentence(state.cell, state.total, mean, deviation, "so far ")
        if state.found:
            return self._sentence(int(state.found[0]), *state.found[1:], so_far="")
        return None

    def _sentence(self, cell: int, total: float, mean: float, deviation: float, so_far: str) -> str:
        day, hour = divmod(cell, 24) if self.by == "hour" else (cell, 0)
        when = f"{_DAY_NAMES[day]} {hour:02}:00 to {hour + 1:02}:00" if self.by == "hour" else _DAY_NAMES[day]
        far = number(round(abs(total - mean) / deviation, 1))
        side = "above" if total > mean else "below"
        here = f"{number(total)} on {when} {so_far}({self.zone})"
        return f"{here}, {far} standard deviations {side} the usual {number(mean)}."

    def due(self, now: int) -> int | None:
        """Return the end of the current hour; in silence, of the first empty hour that changes the verdict."""
        if (not self.counts and not self.whole) or now >= self.ends + _LONGEST_GAP:
            return None
        if now < self.begins:
            return self.begins
        return self.ends if now < self.ends else self._due_in_silence(now)

    def _due_in_silence(self, now: int) -> int | None:
        """Return the end of the first empty hour that changes the verdict, or of a later one that may."""
        fires, later = self.fires(now) is not None, self.at(now)
        last = self.ends + _LONGEST_GAP
        for _ in range(_AHEAD):
            end = later.ends
            if end >= last:
                return last if fires else None
            later._advance(end)
            if bool(later.found) != fires:
                return end
        return later.ends


def seasonal(*, zone: str, by: Literal["hour", "day"] = "hour", z: float = 5.0, warm: int = 2) -> Seasonal:
    """Return a field that compares each local hour of the week (or day, `by="day"`) with its usual number.

    `orders: ef.Seasonal = ef.seasonal(zone="Europe/Berlin")`. The time zone is required: by another one, the change of
    the clocks looks like a fault. It fires beyond `z` standard deviations, once a cell has `warm` values, after two
    weeks. Raises InvalidInput if an argument cannot be used.
    """
    zone_of(zone)
    if by not in ("hour", "day"):  # pyright: ignore[reportUnnecessaryContains]
        raise InvalidInput(f"by={by!r} is not a season.", 'Write by="hour" or by="day".')
    check_numbers(z=z, warm=warm)
    if not 1 <= z < math.inf:
        raise InvalidInput(f"z={z!r} is not a number of standard deviations.", "Give 1 or more; 5 is the default.")
    if warm < 2:
        raise InvalidInput(f"warm={warm!r} is below 2.", "Give how many weeks must be known before it may fire.")
    return as_field(Seasonal(zone, by, float(z), warm))


__all__ = ["Seasonal", "seasonal"]
