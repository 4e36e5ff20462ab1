"""Numbers and durations in the sentences that detectors give as reasons.

Knows: English. Does not know: any detector.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = (("day", 86_400_000_000), ("hour", 3_600_000_000), ("minute", 60_000_000), ("second", 1_000_000))


def number(value: float) -> str:
    """Return a number as text: integers with commas, others with at most four digits that count."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if 1_000 <= abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def times(count: float, what: str) -> str:
    """Return a count with its unit: `1 event`, `2 events`."""
    return f"{number(count)} {what}" if count == 1 else f"{number(count)} {what}s"


def duration(micros: int) -> str:
    """Return a duration as text of at most two units: `5 minutes`, `1 day 3 hours`, `0.25 seconds`."""
    rest = abs(micros) // 1_000 * 1_000
    if rest < 60_000_000:
        return times(rest / 1_000_000, "second")
    parts: list[str] = []
    for name, size in _UNITS:
        whole, rest = divmod(rest, size)
        if whole:
            parts.append(times(whole, name))
        if len(parts) == 2 or (parts and not whole):
            break
    return " ".join(parts)


def moment(micros: int, zone: tzinfo = UTC) -> str:
    """Return a moment to the minute, with its zone's abbreviation: `2013-02-08 17:00 EST`."""
    at = (_EPOCH + timedelta(microseconds=micros)).astimezone(zone)
    return f"{at:%Y-%m-%d %H:%M %Z}"


__all__ = ["duration", "moment", "number", "times"]
