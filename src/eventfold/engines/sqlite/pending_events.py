"""The events that a batch has accepted, as the conditions of its later requests see them.

Most conditions match none of them. The last position of each tag and type shows that, at a tenth of the cost of an
index; the index is built once it is needed.
Knows: entries of accepted events. Does not know: SQL, the events of the log, what a match means for a request.
"""

from __future__ import annotations

from collections.abc import Sequence

from eventfold.core.query import Item, Query, with_spellings
from eventfold.core.tags import is_moment
from eventfold.engines.sqlite.tail import Entry, Segment, first_in_tail


class PendingEvents:
    """`entries` are those of the batch, each with a size; `start` is the position before the first."""

    __slots__ = ("_by_tag", "_by_type", "_entries", "_indexed", "_segment")

    def __init__(self, start: int, entries: Sequence[tuple[Entry, int]]) -> None:
        self._entries = entries
        self._by_tag: dict[str, int] = {}  # the last position of each tag
        self._by_type: dict[str, int] = {}
        self._segment, self._indexed = Segment(start), 0  # the index of the first so many entries

    def add(self, entry: Entry) -> None:
        """Add an event that was appended to `entries`."""
        position, type, tags = entry
        self._by_type[type] = position
        for tag in tags:
            self._by_tag[tag] = position

    def first(self, query: Query, after: int, until: int) -> int | None:
        """The first position in (after, until] that matches, or None. Moments match in any time zone."""
        if query.items and not any(self._may_match(item, after) for item in query.items):
            return None
        segment = self._segment
        for entry, size in self._entries[self._indexed :]:
            segment.add(entry, size)
        self._indexed = len(self._entries)
        return first_in_tail((segment,), with_spellings(query, self._other_spellings), after, until)

    def _may_match(self, item: Item, after: int) -> bool:
        """Whether events after a position have each of the tags, or one of the types if there are no tags."""
        for tag in item.tags:
            if self._by_tag.get(tag, 0) <= after and not ("T" in tag and is_moment(tag)):
                return False
        return bool(item.tags) or any(self._by_type.get(type, 0) > after for type in item.types)

    def _other_spellings(self, tag: str) -> Sequence[str]:
        return self._segment.moments.get(tag, ())
