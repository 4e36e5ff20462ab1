"""The last few thousand events that this process wrote, indexed in memory to check append conditions.

A decision has usually read the log a moment ago, so conflicting events were written since then, mostly by this process.
Knows: how to match events after `start`. Does not know: the file. The user checks that `end` is still the head.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter

from eventfold.core.query import Item, Query

MAX_EVENTS = 8_192  # a condition on older events is checked in the file
_position = itemgetter(0)


class RecentWindow:
    """The events in (start, end], indexed by tag and by type."""

    def __init__(self) -> None:
        self.start = self.end = -1
        self._by_tag: dict[str, list[tuple[int, str, tuple[str, ...]]]] = {}
        self._by_type: dict[str, list[int]] = {}

    def restart(self, head: int) -> None:
        """Become empty, to begin after `head`."""
        self.start = self.end = head
        self._by_tag.clear()
        self._by_type.clear()

    def add(self, position: int, type: str, tags: tuple[str, ...]) -> None:
        """Add the next event."""
        entry = (position, type, tags)
        by_tag = self._by_tag
        for tag in tags:
            found = by_tag.get(tag)
            if found is None:
                by_tag[tag] = [entry]
            else:
                found.append(entry)
        found_type = self._by_type.get(type)
        if found_type is None:
            self._by_type[type] = [position]
        else:
            found_type.append(position)
        self.end = position

    def first_match(self, query: Query, after: int) -> int | None:
        """The first matching position after both `after` and `start`, or None."""
        if not query.items:
            after = max(after, self.start)
            return after + 1 if after < self.end else None
        return min([p for item in query.items if (p := self._first(item, after)) is not None], default=None)

    def _first(self, item: Item, after: int) -> int | None:
        if not item.tags:
            return min(
                [p for name in item.types if (p := _first_after(self._by_type.get(name, ()), after))], default=None
            )
        entries = min((self._by_tag.get(tag, ()) for tag in item.tags), key=len)
        for index in range(bisect_right(entries, after, key=_position), len(entries)):
            position, type, tags = entries[index]
            if (not item.types or type in item.types) and all(tag in tags for tag in item.tags):
                return position
        return None


def _first_after(positions: list[int] | tuple[()], after: int) -> int | None:
    index = bisect_right(positions, after)
    return positions[index] if index < len(positions) else None
