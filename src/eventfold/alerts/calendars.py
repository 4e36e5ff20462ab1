"""Calendars: the hours in which events are expected, in a time zone, without holidays that the user names.

Knows: days, local times, time zones. Does not know: detectors, alerts, a clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import msgspec

from eventfold.errors import InvalidInput

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DAY = timedelta(days=1)
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME = re.compile(r"(\d{1,2}):(\d{2})")


@lru_cache(maxsize=64)
def zone_of(name: str) -> ZoneInfo:
    """Return a time zone by its name. Raises InvalidInput if there is none."""
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, TypeError, KeyError):  # an unknown name is a KeyError, a path a ValueError
        raise InvalidInput(
            f"There is no time zone {name!r:.80}.",
            "Write a name such as Europe/Berlin or UTC; a system without time zones needs: pip install tzdata.",
            zone=str(name)[:80],
        ) from None


def micros_of(moment: datetime) -> int:
    """Return a moment as microseconds since 1970 in UTC."""
    return (moment - _EPOCH) // _MICROSECOND


def local_time(micros: int, zone: ZoneInfo) -> datetime:
    """Return the local time of a moment; before the year 2 and after 9998, of the nearest one between."""
    seconds = min(max(micros // 1_000_000, -62_100_000_000), 253_300_000_000)
    return datetime.fromtimestamp(seconds, zone)


class Calendar(msgspec.Struct, frozen=True):
    """Opening hours: on `weekdays` (0 is Monday) from `opens` to `closes`, minutes after local midnight, in `zone`.

    Not on `holidays`, which are dates. `closes` is exclusive; 1,440 is the end of the day.
    """

    zone: str
    opens: int = 9 * 60
    closes: int = 17 * 60
    weekdays: tuple[int, ...] = (0, 1, 2, 3, 4)
    holidays: tuple[date, ...] = ()

    def hours_of(self, day: date) -> tuple[int, int] | None:
        """Return when a day opens and closes, in microseconds since 1970; None if it is closed."""
        if day.weekday() not in self.weekdays or day in self.holidays:
            return None
        return self._moment(day, self.opens), self._moment(day, self.closes)

    def _moment(self, day: date, minutes: int) -> int:
        if minutes == 24 * 60:
            day, minutes = day + _DAY, 0
        at = datetime.combine(day, time(minutes // 60, minutes % 60), zone_of(self.zone))
        return micros_of(at)  # for a local time that does not exist, as if the clock had not been changed

    def _openings(self, since: int) -> Iterator[tuple[int, int]]:
        """Iterate over the opening hours that end after a moment."""
        day = local_time(since, zone_of(self.zone)).date() - _DAY
        while day < date.max - _DAY:
            hours = self.hours_of(day)
            if hours is not None and hours[1] > since:
                yield hours
            day += _DAY

    def next_opening(self, moment: int) -> tuple[int, int]:
        """Return the opening hours, [opens, closes), that contain a moment, or the next ones after it."""
        return next(self._openings(moment), (moment, moment))

    def open_between(self, start: int, end: int, most: int | None = None) -> int:
        """Return how many microseconds of opening hours are in [start, end); counting stops at `most`."""
        total = 0
        for opens, closes in self._openings(start):
            if opens >= end or (most is not None and total >= most):
                break
            total += min(closes, end) - max(opens, start)
        return total if most is None else min(total, most)

    def after(self, start: int, open_micros: int) -> int | None:
        """Return the moment by which this much of the opening hours has passed since `start`; None after 9999."""
        rest = open_micros
        for opens, closes in self._openings(start):
            begin = max(opens, start)
            if closes - begin >= rest:
                return begin + rest
            rest -= closes - begin
        return None


def office_hours(
    zone: str,
    *,
    opens: str = "09:00",
    closes: str = "17:00",
    days: str = "mon-fri",
    holidays: Iterable[date] = (),
) -> Calendar:
    """Return a calendar: `ef.office_hours("Europe/Berlin", opens="08:00", closes="18:00", days="mon-fri,sun")`.

    `closes` is exclusive; "24:00" is the end of the day. `holidays` are dates without opening hours. Raises
    InvalidInput if an argument cannot be used.
    """
    zone_of(zone)
    begin, end = _minutes(opens, "opens"), _minutes(closes, "closes")
    if begin >= end:
        raise InvalidInput(
            f"opens={opens!r} is not before closes={closes!r}.", "Give hours within one day, to 24:00 at the latest."
        )
    if not isinstance(holidays, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput(f"holidays={holidays!r:.80} are no dates.", "Give a list of dates: [date(2026, 12, 25)].")
    given = list(holidays)
    wrong = [each for each in given if type(each) is not date]
    if wrong:
        raise InvalidInput(f"holidays has {wrong[0]!r:.80}, which is no date.", "Give dates: date(2026, 12, 25).")
    free = tuple(sorted(set(given)))
    return Calendar(zone, begin, end, _weekdays(days), free)


def _minutes(text: str, name: str) -> int:
    found = _TIME.fullmatch(text) if isinstance(text, str) else None  # pyright: ignore[reportUnnecessaryIsInstance]
    minutes = int(found[1]) * 60 + int(found[2]) if found and int(found[2]) < 60 else 24 * 60 + 1
    if minutes > 24 * 60:
        raise InvalidInput(f"{name}={text!r} is not a time of day.", f'Write {name}="09:00"; the latest is 24:00.')
    return minutes


def _weekdays(text: str) -> tuple[int, ...]:
    found: set[int] = set()
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput(f"days={text!r:.80} are no days of the week.", 'Write days="mon-fri" or "mon,wed,sat".')
    for part in text.lower().replace(" ", "").split(","):
        first, _, last = part.partition("-")
        if first not in _DAYS or (last or first) not in _DAYS:
            raise InvalidInput(f"days={text!r} are no days of the week.", 'Write days="mon-fri" or "mon,wed,sat".')
        begin, end = _DAYS.index(first), _DAYS.index(last or first)
        found |= {each % 7 for each in range(begin, end + 1 if end >= begin else end + 8)}
    return tuple(sorted(found))


__all__ = ["Calendar", "local_time", "micros_of", "office_hours", "zone_of"]
