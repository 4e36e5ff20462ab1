"""Moments in tags: one moment has many spellings, `12:00+02:00` and `10:00+00:00`. New tags spell it in UTC.

Knows: ISO 8601. Does not know: events, queries. Other values that a tag may have (text, integers, UUIDs, dates, enums)
are spelled in one way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

_MOMENT = re.compile(
    r"([^:]+:)(\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?))", re.ASCII
)


def moment_text(value: datetime) -> str:
    """A datetime as the value of a tag: in UTC; as it is where it has no time zone, and so names no moment."""
    if value.utcoffset() is None:
        return value.isoformat()
    try:
        return value.astimezone(UTC).isoformat()
    except OverflowError:  # within a day of the first or last moment there is
        return value.isoformat()


def is_moment(tag: str) -> bool:
    """Whether the value of a tag is a moment, in whatever time zone."""
    return "T" in tag and _in_utc(tag) is not None


def in_utc(tag: str) -> str:
    """The same tag, with the moment that is its value in UTC; a tag of another kind unchanged."""
    return (_in_utc(tag) or tag) if "T" in tag else tag


def same_tags(some: Iterable[str], others: Iterable[str]) -> bool:
    """Whether the tags of two events are the same, however their moments are spelled."""
    return set(map(in_utc, some)) == set(map(in_utc, others))


@lru_cache(8_192)
def _in_utc(tag: str) -> str | None:
    found = _MOMENT.fullmatch(tag)
    if found is None:
        return None
    try:
        return found[1] + moment_text(datetime.fromisoformat(found[2]))
    except ValueError:  # the 30th of February
        return None
