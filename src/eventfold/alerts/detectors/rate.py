"""Rate: how many within a sliding window, judged by a limit or by what is usual.

Knows: times and counts. Does not know: events, alerts, clocks.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import timedelta

from eventfold.alerts.detectors.detector import SMALL, Detector, as_field, changed_verdict, check_numbers, plain_number
from eventfold.alerts.detectors.wording import duration, number
from eventfold.core.durations import positive_micros
from eventfold.errors import InvalidInput

_GRAINS = 60  # times closer together than 1/60 of the window share an entry
_ENTRIES = 2 * (_GRAINS + 1)  # of the window, and as many again later than `now`, after a clock that was ahead
_MEMORY = 24  # windows that `usual` remembers, roughly


class Rate(Detector):
    """The number of events within the window of `per` microseconds that ends at `now`: `add()`, then `count`.

    `starts` and `counts` are the entries of the window. Times closer together than a sixtieth of the window share an
    entry, so `count` is exact while events are farther apart, and otherwise leaves out at most those of the window's
    first sixtieth. `usual` is the average of about 24 windows before; windows far above it raise it by a limited step.
    """

    per: int
    more_than: float | None = None
    fewer_than: float | None = None
    factor: float | None = None
    at_least: float = 10
    warm: int = _MEMORY
    since: int | None = None
    starts: list[int] = []
    counts: list[int | float] = []
    sum: int | float = 0  # of `counts`
    is_mixed: bool = False  # whether a negative number was ever added
    usual: float = 0.0
    windows: int = 0  # complete windows that `usual` is made of
    window: int = 0  # the number of the incomplete one, and its total
    total: int | float = 0

    @property
    def count(self) -> int | float:
        """The sum of what was added within the window that ends at `now`."""
        return self.count_at(self.now)

    def count_at(self, now: int) -> int | float:
        """Return the sum of what was added after `now - per`, up to and including `now`."""
        starts, begin = self.starts, now - self.per
        if starts and starts[0] > begin and starts[-1] <= now:
            return self.sum
        return sum(self.counts[bisect_right(starts, begin) : bisect_right(starts, now)])

    def begin(self) -> None:
        """Start to watch at `now`: a rate that is too low is reported from a whole window after this moment."""
        if self.since is None:
            self.since = self.now
            self.window = self.now // self.per

    def add(self, count: float = 1) -> None:
        """Add `count` (default 1, an amount for example) at `now`. A value that is not finite is ignored."""
        given = count
        if type(count) is not int or not -SMALL < count < SMALL:
            given = plain_number(count)
            if given is None:
                return
            given = float(given)
        if given < 0:
            self.is_mixed = True
        now, starts = self.now, self.starts
        if self.since is None:
            self.begin()
        if starts and 0 <= now - starts[-1] < self.per // _GRAINS:
            self.counts[-1] += given
            self.sum += given
        else:
            self._place(now, given)
        if self.factor is not None:
            if now // self.per != self.window:
                self._close(now // self.per)
            if now // self.per == self.window:
                self.total += given

    def _place(self, now: int, count: float) -> None:
        """Add to the entry that is near enough, or to a new one, and remove entries that left the window."""
        starts, counts, grain = self.starts, self.counts, self.per // _GRAINS
        if starts and starts[0] <= now - self.per:
            old = bisect_right(starts, now - self.per)
            del starts[:old], counts[:old]
            self.sum = sum(counts)
        self.sum += count
        at = bisect_right(starts, now)
        if at and now - starts[at - 1] < grain:
            counts[at - 1] += count
        elif at < len(starts) and starts[at] - now < grain:
            counts[at] += count
        else:
            starts.insert(at, now)
            counts.insert(at, count)
            if len(starts) > _ENTRIES:
                self.sum -= counts[-1]
                del starts[-1], counts[-1]

    def _close(self, window: int) -> None:
        """Learn from the windows before `window`, the empty ones too. A jump of more than 96 windows is not learned."""
        passed = window - self.window
        if 0 < passed <= 4 * _MEMORY:
            self.usual, self.windows = self._learned(passed)
        if passed > 0 or passed < -4 * _MEMORY:
            self.window, self.total = window, 0

    def _learned(self, passed: int) -> tuple[float, int]:
        usual, known = self.usual, self.windows
        for each in range(passed):
            total = self.total if each == 0 else 0
            if known >= self.warm:
                total = min(total, max(self.at_least, (self.factor or 1) * usual))
            known += 1
            usual += (total - usual) / min(known, _MEMORY)
        return usual, min(known, max(_MEMORY, self.warm))

    def usual_at(self, now: int) -> float | None:
        """Return the average of the windows before the one that contains `now`; None before there are `warm`."""
        passed = now // self.per - self.window
        usual, known = self._learned(passed) if 0 < passed <= 4 * _MEMORY else (self.usual, self.windows)
        return usual if known >= self.warm else None

    def can_fire(self) -> bool:
        """Return whether it has a limit."""
        return not (self.more_than is None and self.fewer_than is None and self.factor is None)

    def fires(self, now: int) -> str | None:
        """Return the reason if the count of the window that ends at `now` is above or below a limit."""
        count = self.count_at(now)
        if self.more_than is not None and count > self.more_than:
            return f"{self._within(count)}, more than the limit of {number(self.more_than)}."
        if self.fewer_than is not None and count < self.fewer_than:
            if self.since is not None and now - self.since >= self.per:
                return f"{self._within(count)}, fewer than the limit of {number(self.fewer_than)}."
        if self.factor is not None and count >= self.at_least:
            usual = self.usual_at(now)
            if usual is not None and count > self.factor * usual:
                return f"{self._within(count)}, more than {number(self.factor)} times the usual {number(usual)}."
        return None

    def _within(self, count: float) -> str:
        return f"{number(count)} in {duration(self.per)}"

    def _due_in_order(self, now: int) -> int | None:
        """Return `due` where all entries are in the window and none is negative: each that leaves lowers the count."""
        if self.factor is not None or not self.can_fire():
            moments = [self.starts[0] + self.per] if self.starts else []
            if self.factor is not None and self.starts:
                moments.append((now // self.per + 1) * self.per)  # `usual` changes with each window
            if self.fewer_than is not None and self.since is not None and self.since + self.per > now:
                moments.append(self.since + self.per)
            return min(moments, default=None)
        total, begins = self.sum, now
        if self.fewer_than is not None and self.since is not None:
            begins = max(now, self.since + self.per)
            if total < self.fewer_than and begins > now:
                return begins
        more = self.more_than is not None and total > self.more_than
        fewer = self.fewer_than is not None and total >= self.fewer_than
        if not more and not fewer:
            return None
        for start, count in zip(self.starts, self.counts, strict=True):
            total -= count
            if (more and total <= (self.more_than or 0)) or (fewer and total < (self.fewer_than or 0)):
                return max(start + self.per, begins) if fewer else start + self.per
        return None

    def due(self, now: int) -> int | None:
        """Return the next moment at which an entry enters or leaves the window, or at which a rule may begin to judge.

        With `more_than` or `fewer_than` alone, moments that do not change the verdict are left out.
        """
        starts, per = self.starts, self.per
        if not self.is_mixed and (not starts or (starts[0] > now - per and starts[-1] <= now)):
            return self._due_in_order(now)
        moments = [start + per for start in starts] + [start for start in starts if start > now]
        if self.fewer_than is not None and self.since is not None:
            moments.append(self.since + per)
        if self.factor is not None and starts and starts[-1] > now - per:
            moments.append((now // per + 1) * per)  # `usual` changes with each window
        if self.factor is None and self.can_fire():
            return changed_verdict(self, now, moments)
        return min((moment for moment in moments if moment > now), default=None)


def rate(
    *,
    per: timedelta,
    more_than: float | None = None,
    fewer_than: float | None = None,
    factor: float | None = None,
    at_least: float = 10,
    warm: int = _MEMORY,
) -> Rate:
    """Return a field that counts within a sliding window of `per`: `declined: ef.Rate = ef.rate(per=ef.minutes(5))`.

    It fires above `more_than`; below `fewer_than`, once a whole window was watched; or above `factor` times the usual
    count of a window, if the count is `at_least` this many and `warm` windows were complete. Without a limit it never
    fires, and `judge` compares its `count`. Raises InvalidInput if an argument cannot be used.
    """
    micros = positive_micros(per, "per")
    check_numbers(at_least=at_least, warm=warm)
    for name, value in (("more_than", more_than), ("fewer_than", fewer_than), ("factor", factor)):
        if value is None:
            continue
        check_numbers(**{name: value})
        if value < 0:
            raise InvalidInput(f"{name}={value!r:.80} is not a limit.", "Give a finite number that is not negative.")
    if factor is not None and factor < 1:
        raise InvalidInput(f"factor={factor!r} is below 1.", "Give how many times the usual count is too much: 5.")
    if fewer_than == 0:
        raise InvalidInput("fewer_than=0 can never fire: no count is below 0.", "Give 1 or more.")
    if warm < 1:
        raise InvalidInput(f"warm={warm!r} is not a number of windows.", "Give 1 or more.")
    above, below, times = (None if value is None else plain_number(value) for value in (more_than, fewer_than, factor))
    return as_field(Rate(micros, above, below, times, plain_number(at_least) or 0, warm))


__all__ = ["Rate", "rate"]
