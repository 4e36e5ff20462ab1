"""Tags of moments that an older eventfold, or a hand, has spelled in another time zone than UTC.

Knows: the dictionary of tags, whose ids grow as tags are added and are never given twice. Does not know: events.
"""

from __future__ import annotations

import apsw

from eventfold.core.moment_tags import in_utc, is_moment

_LAST = "SELECT ifnull(max(id), 0) FROM tag"
# A tag in UTC is what is asked for anyway.
_NEW = (
    "SELECT name FROM tag WHERE id > ? AND id <= ? AND name NOT GLOB '*+00:00'"
    " AND name GLOB '*:[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]T[0-9][0-9]:*'"
)


class Spellings:
    """The other spellings of each moment. The dictionary is read once, when a moment is asked for, then what is new."""

    def __init__(self) -> None:
        self._read = 0  # the id up to which the committed dictionary is known
        self._others: dict[str, dict[str, None]] = {}

    def of(self, connection: apsw.Connection, tag: str, writing: bool) -> list[str]:
        """Other spellings of a tag in UTC. `writing`: inside the writer's transaction, whose new tags are not kept."""
        last: int = connection.execute(_LAST).get
        if last <= self._read:
            return list(self._others.get(tag, ()))
        new = [name for (name,) in connection.execute(_NEW, (self._read, last)) if is_moment(name)]
        if writing:
            return [*self._others.get(tag, ()), *(name for name in new if in_utc(name) == tag)]
        for name in new:
            self._others.setdefault(in_utc(name), {})[name] = None
        self._read = max(self._read, last)
        return list(self._others.get(tag, ()))
