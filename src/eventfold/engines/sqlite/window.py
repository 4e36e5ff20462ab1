"""Room: the last few thousand events this process wrote, indexed in memory to judge conditions.

A decision has usually looked at the log a moment ago, so what could conflict with it was written since, and
mostly by us. Knows: `matches`, for events after `start`. Does not know: the file; whoever uses it checks that
the window still ends where the log does.
"""

from __future__ import annotations

from eventfold.query import Item, Query

MOST = 8_192  # events; a condition that looks further back is answered by the file


class Window:
    """Events in (start, end], by tag and by type, with what `Query.matches` needs."""

    def __init__(self) -> None:
        self.start = self.end = -1
        self._by_tag: dict[str, list[tuple[int, str, tuple[str, ...]]]] = {}
        self._by_type: dict[str, list[int]] = {}

    def restart(self, head: int) -> None:
        """Know nothing before `head`."""
        self.start = self.end = head
        self._by_tag.clear()
        self._by_type.clear()

    def add(self, position: int, type: str, tags: tuple[str, ...]) -> None:
        """The next event."""
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
        """Some matching position greater than `after` (and than `start`), the first one of its item; or None."""
        if not query.items:
            return max(after, self.start) + 1 if self.end > max(after, self.start) else None
        found = [p for item in query.items if (p := self._first(item, after)) is not None]
        return min(found, default=None)

    def _first(self, item: Item, after: int) -> int | None:
        best: int | None = None
        if item.tags:
            entries = min((self._by_tag.get(tag, ()) for tag in item.tags), key=len)
            for position, type, tags in reversed(entries):
                if position <= after:
                    break
                if (not item.types or type in item.types) and all(tag in tags for tag in item.tags):
                    best = position
            return best
        for type in item.types:
            for position in reversed(self._by_type.get(type, ())):
                if position <= after:
                    break
                best = position if best is None else min(best, position)
        return best
