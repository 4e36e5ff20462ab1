"""Absence: nothing for longer than expected, in all hours or in those of a calendar.

Knows: times of events, calendars. Does not know: events, alerts, clocks.
"""

from __future__ import annotations

from datetime import timedelta

from eventfold.alerts.calendars import Calendar
from eventfold.alerts.detectors.detector import Detector, as_field, changed_verdict, check_numbers, plain_number
from eventfold.alerts.detectors.wording import duration, moment
from eventfold.core.durations import minutes, positive_micros
from eventfold.errors import InvalidInput

_COUNTED = 20  # times the limit, up to which opening hours are counted for the reason
_START = 10  # the first gaps, of which the longest is the first value of `usual`
_STEP = 0.05  # how far one gap moves `usual`
_SHARE = 0.9  # the share of gaps that are not longer than `usual`
_FADING = 0.999  # of `longest`, at each gap
_OUTAGE = 1.1  # times `longest` is `longest` after a gap that was too long
_LONGER = 1.5  # times `longest`, below which no gap is too long


class Absence(Detector):
    """The time since the latest event: `mark()` at each one.

    It fires once the time since then reaches `expect` microseconds, or `factor` times `usual`, the gap that nine of
    ten gaps do not exceed, but at least `expect`, and at least one and a half times the `longest` gap of about the last
    thousand, so that bursts with pauses between them do not fire. With a calendar only opening hours count. `usual` and
    `longest` follow changes, but one outage does not become usual: a gap that is too long raises `usual` by 4.5 % and
    `longest` by a tenth.
    """

    expect: int = 0
    factor: float | None = None
    calendar: Calendar | None = None
    warm: int = 50
    since: int | None = None
    last: int | None = None
    before: int | None = None  # another one, which counts while `last` is in the future: a clock was ahead
    usual: float = 0.0
    longest: float = 0.0
    gaps: int = 0
    shut: int = 0  # [shut, opens) is known to be closed, [opens, closes) to be open
    opens: int = 0
    closes: int = 0

    def begin(self) -> None:
        """Start to count at `now`, without an event."""
        if self.since is None and self.last is None:
            self.since = self.now

    def mark(self) -> None:
        """Count an event at `now`. One that is earlier than `last` counts while `last` is in the future."""
        now, last = self.now, self.last
        self._look_up(now)
        if last is None:
            self.last = now
        elif now >= last:
            if self.factor is not None and ((gap := self._gap(last, now)) or self.calendar is None):
                self._learn(gap)  # two events outside opening hours say nothing of gaps within them
            self.before, self.last = last, now
        else:
            self.before = now

    def _look_up(self, now: int) -> None:
        if self.calendar is not None and not self.shut <= now <= self.closes:
            self.opens, self.closes = self.calendar.next_opening(now)
            self.shut = min(now, self.opens)

    def _gap(self, start: int, end: int) -> int:
        if self.calendar is None or self.opens <= start:
            return end - start  # `end` is in the hours that were looked up
        if self.shut <= start:
            return max(0, end - self.opens)
        most = int(2 * (self.usual + self.longest)) if self.gaps >= _START else None
        return self.calendar.open_between(start, min(end, start + 100 * 86_400_000_000), most)

    def _learn(self, gap: int) -> None:
        limit = self._limit()
        if limit is not None and gap >= limit:
            self.longest *= _OUTAGE
        else:
            self.longest = max(self.longest * _FADING, float(gap), 1.0)
        if self.gaps < _START:
            self.usual = self.longest
        else:
            self.usual *= 1 + _STEP * _SHARE if gap > self.usual else 1 - _STEP * (1 - _SHARE)
        self.gaps = min(self.gaps + 1, self.warm)

    def _latest(self, now: int) -> int | None:
        """Return the latest event up to `now`, or the moment at which watching began."""
        if self.last is not None and self.last <= now:
            return self.last
        if self.before is not None and self.before <= now:
            return self.before
        return self.since

    def _limit(self) -> int | None:
        if self.factor is None:
            return self.expect
        if self.gaps < self.warm:
            return None
        return max(self.expect, int(self.factor * self.usual), int(_LONGER * self.longest))

    def _deadline(self, now: int) -> int | None:
        latest, limit = self._latest(now), self._limit()
        if latest is None or limit is None:
            return None
        return self._after(latest, limit)

    def _after(self, latest: int, limit: int) -> int | None:
        """Return when a silence since `latest` has lasted for `limit`, in opening hours if there are any."""
        if self.calendar is None:
            return latest + limit
        if self.shut <= latest and max(latest, self.opens) + limit <= self.closes:
            return max(latest, self.opens) + limit
        return self.calendar.after(latest, limit)

    def fires(self, now: int) -> str | None:
        """Return the reason if nothing came for too long."""
        latest, limit = self._latest(now), self._limit()
        if latest is None or limit is None or now - latest < limit:  # opening hours are never longer than all hours
            return None
        silence = now - latest
        if self.calendar is not None:
            deadline = self._after(latest, limit)
            if deadline is None or now < deadline:
                return None
            silence = self.calendar.open_between(latest, now, _COUNTED * limit)
        if self.factor is None:
            wanted = f"one is expected every {duration(limit)}"
        else:
            wanted = f"its usual gap is {duration(int(self.usual))}, its longest {duration(int(self.longest))}"
        hours = "" if self.calendar is None else " of opening hours"
        least = "over " if hours and silence == _COUNTED * limit else ""
        return f"Nothing since {moment(latest)}, {least}{duration(silence)}{hours}; {wanted}."

    def due(self, now: int) -> int | None:
        """Return the moment at which it will fire; the moment of an event in the future at which it stops."""
        ahead = [each for each in (self.before, self.last) if each is not None and each > now]
        if not ahead:
            deadline = self._deadline(now)
            return deadline if deadline is not None and deadline > now else None
        return changed_verdict(self, now, [self._deadline(now), *ahead, *map(self._deadline, ahead)])


def absence(
    *,
    expect: timedelta | None = None,
    times_usual: float | None = None,
    calendar: Calendar | None = None,
    at_least: timedelta | None = None,
    warm: int = 50,
) -> Absence:
    """Return a field that fires when nothing came for `expect`, or for `times_usual` times its usual gap.

    `last: ef.Absence = ef.absence(expect=ef.hours(1), calendar=ef.office_hours("Europe/Berlin"))`. The usual gap is the
    one that nine of ten gaps do not exceed; it is known after `warm` gaps, and a silence shorter than `at_least`
    (a minute) never fires. Without arguments it is `times_usual=5`. Raises InvalidInput if an argument cannot be used.
    """
    if expect is not None and (times_usual is not None or at_least is not None):
        raise InvalidInput(
            "absence was given expect= and times_usual= or at_least=.", "Give either a duration or a multiple."
        )
    if calendar is not None and not isinstance(calendar, Calendar):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput(f"calendar={calendar!r:.80} is no calendar.", "Write calendar=ef.office_hours(…).")
    if expect is not None:
        return as_field(Absence(positive_micros(expect, "expect"), None, calendar))
    factor = 5.0 if times_usual is None else times_usual
    check_numbers(times_usual=factor, warm=warm)
    if not 1 < factor < float("inf"):
        raise InvalidInput(f"times_usual={factor!r} is not above 1.", "Give how many usual gaps are too long: 5.")
    if warm < _START:
        raise InvalidInput(f"warm={warm!r} is below {_START}.", "Give how many gaps must be known before it may fire.")
    least = positive_micros(minutes(1) if at_least is None else at_least, "at_least")
    return as_field(Absence(least, float(plain_number(factor) or 0), calendar, warm))


__all__ = ["Absence", "absence"]
