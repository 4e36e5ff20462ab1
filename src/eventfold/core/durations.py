"""Durations as people write them in code: `ef.minutes(5)`. Each is a timedelta; stored ones are microseconds.

Knows: timedelta. Does not know: clocks, calendars, time zones.
"""

from __future__ import annotations

from datetime import timedelta

from eventfold.errors import InvalidInput

LONGEST = 365_250 * 86_400_000_000  # µs: a thousand years, so that sums with a time have 64 bits
_MICROSECOND = timedelta(microseconds=1)


def seconds(count: float) -> timedelta:
    """Return a duration of this many seconds."""
    return timedelta(seconds=count)


def minutes(count: float) -> timedelta:
    """Return a duration of this many minutes."""
    return timedelta(minutes=count)


def hours(count: float) -> timedelta:
    """Return a duration of this many hours."""
    return timedelta(hours=count)


def days(count: float) -> timedelta:
    """Return a duration of this many days of 24 hours."""
    return timedelta(days=count)


def positive_micros(duration: object, name: str) -> int:
    """Return a duration in microseconds. Raises InvalidInput if it is none, or not within (0, LONGEST]."""
    if not isinstance(duration, timedelta):
        raise InvalidInput(
            f"{name}={duration!r} is not a duration.", f"Write {name}=ef.minutes(5), or a timedelta.", argument=name
        )
    micros = duration // _MICROSECOND
    if micros <= 0:
        raise InvalidInput(f"{name}={duration!s} is not above zero.", "Give a longer duration.", argument=name)
    if micros > LONGEST:
        raise InvalidInput(f"{name}={duration!s} is too long.", "Give 1,000 years at the most.", argument=name)
    return micros


__all__ = ["LONGEST", "days", "hours", "minutes", "positive_micros", "seconds"]
