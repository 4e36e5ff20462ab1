"""Room: moments as people type them: a position, an ISO time, a date, or `2h ago`.

Knows: that a time without a zone names no moment. Does not know: stores, terminals.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

from eventfold.errors import InvalidInput

AGO = re.compile(r"(\d{1,6}) ?(s|m|h|d|w)(?: ago)?")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
HOW = "Write 2026-11-23T10:15Z (UTC) or 2026-11-23T10:15+01:00, a date (a whole day in UTC), or 2h for two hours ago."


def moment_of(text: str, *, late: bool = False) -> datetime:
    """A moment in time; a bare date is its first moment in UTC, or its last if `late`. Raises InvalidInput."""
    text = text.strip()
    try:
        moment = _read(text, late)
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        kind = "a position, not a time" if text.isdecimal() else "no time"
        raise InvalidInput(f"{text!r} is {kind}.", HOW, given=text)
    if moment.utcoffset() is None:
        zoned = text.replace(" ", "T")
        raise InvalidInput(
            f"{text!r} has no time zone, so it names no moment.",
            f"Write {zoned}Z if you mean UTC, or add an offset: {zoned}+01:00.",
            given=text,
        )
    return moment


def _read(text: str, late: bool) -> datetime | None:
    if ago := AGO.fullmatch(text):
        return datetime.now(UTC) - timedelta(**{UNITS[ago[2]]: int(ago[1])})
    if DATE.fullmatch(text):
        return datetime.combine(date.fromisoformat(text), time.max if late else time.min, UTC)
    moment = None if text.isdecimal() else datetime.fromisoformat(text)
    return moment if moment is None or moment.utcoffset() is None else moment.astimezone(UTC)


def place_of(text: str, *, late: bool = True) -> int | datetime:
    """A position, or a moment; a bare date is its last moment. Raises InvalidInput."""
    stripped = text.strip().replace(",", "").replace("_", "")
    return int(stripped) if stripped.isdecimal() and len(stripped) < 19 else moment_of(text, late=late)


def since(text: str | None) -> datetime | None:
    """The moment of a `--since`: a date begins with its first moment."""
    return None if text is None else moment_of(text)


def until(text: str | None) -> datetime | None:
    """The moment of an `--occurred-until`: a date ends with its last moment."""
    return None if text is None else moment_of(text, late=True)
