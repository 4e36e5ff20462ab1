"""Moments as text, as people write them on a command line, in a filter or in a URL: 2026-11-23T10:15Z, a date, 2h.

Knows: the syntax, the present time. Does not know: positions of a log.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

from eventfold.errors import InvalidInput

AGO_PATTERN = re.compile(r"(\d{1,6}) ?(s|m|h|d|w)(?: ago)?")
AGO_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
DATE_PATTERN = re.compile(r"\d{4}-\d{2}-\d{2}")
TIME_SYNTAX = (
    "Write 2026-11-23T10:15Z (UTC) or 2026-11-23T10:15+01:00, a date (a whole day in UTC), or 2h for two hours ago."
)


def parse_time(text: str, *, end_of_day: bool = False, now: datetime | None = None) -> datetime:
    """Parse a time; a bare date is its first instant in UTC, or its last if `end_of_day`. Raises InvalidInput.

    `now` is the moment before which 2h means two hours; None: the present time.
    """
    text = text.strip()
    try:
        moment = _parse_time(text, end_of_day, now)
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        kind = "a position, not a time" if text.isdecimal() else "not a time"
        raise InvalidInput(f"{text!r} is {kind}.", TIME_SYNTAX, given=text)
    if moment.utcoffset() is None:
        zoned = text.replace(" ", "T")
        raise InvalidInput(
            f"{text!r} has no time zone, so it is ambiguous.",
            f"Write {zoned}Z if you mean UTC, or add an offset: {zoned}+01:00.",
            given=text,
        )
    return moment


def _parse_time(text: str, end_of_day: bool, now: datetime | None) -> datetime | None:
    if ago := AGO_PATTERN.fullmatch(text):
        return (now or datetime.now(UTC)) - timedelta(**{AGO_UNITS[ago[2]]: int(ago[1])})
    if DATE_PATTERN.fullmatch(text):
        return datetime.combine(date.fromisoformat(text), time.max if end_of_day else time.min, UTC)
    moment = None if text.isdecimal() else datetime.fromisoformat(text)
    return moment if moment is None or moment.utcoffset() is None else moment.astimezone(UTC)


def parse_position_or_time(text: str, *, end_of_day: bool = True) -> int | datetime:
    """A position or a time; a bare date is its last instant. Raises InvalidInput."""
    stripped = text.strip().replace(",", "").replace("_", "")
    return int(stripped) if stripped.isdecimal() and len(stripped) < 19 else parse_time(text, end_of_day=end_of_day)
