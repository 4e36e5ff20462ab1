"""The events that a batch has accepted, as the conditions of its later requests see them.

Most conditions match none of them. The last position of each tag and type shows that, at a tenth of the cost of an
index; the index is built once it is needed.
Knows: types and tags of accepted events. Does not know: SQL, the events of the log, what a match means for a request.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from eventfold.core.query import Item, Query, with_spellings
from eventfold.core.tags import is_moment
from eventfold.engines.sqlite.tail import Labels, Segment, first_in_tail


class PendingEvents:
    """`labels` are those of the batch; `start` is the position before the first."""

    __slots__ = ("_by_tag", "_by_type", "_indexed", "_labels", "_segment")

    def __init__(self, start: int, labels: Labels) -> None:
        self._labels = labels
        self._by_tag: dict[str, int] = {}  # the last position of each tag
        self._by_type: dict[str, int] = {}
        self._segment, self._indexed = Segment(start, sys.maxsize), 0  # the index of the first so many events

    def add(self, position: int, type: str, tags: Sequence[str]) -> None:
        """Add an event whose labels were added."""
        self._by_type[type] = position
        for tag in tags:
            self._by_tag[tag] = position

    def first(self, query: Query, after: int, until: int) -> int | None:
        """The first position in (after, until] that matches, or None. Moments match in any time zone."""
        if query.items and not any(self._may_match(item, after) for item in query.items):
            return None
        segment = self._segment
        self._indexed += segment.add(self._labels.after(self._indexed)._replace(sizes=[]))
        return first_in_tail((segment,), with_spellings(query, self._other_spellings), after, until)

    def _may_match(self, item: Item, after: int) -> bool:
        """Whether events after a position have each of the tags, or one of the types if there are no tags."""
        for tag in item.tags:
            if self._by_tag.get(tag, 0) <= after and not ("T" in tag and is_moment(tag)):
                return False
        return bool(item.tags) or any(self._by_type.get(type, 0) > after for type in item.types)

    def _other_spellings(self, tag: str) -> Sequence[str]:
        return self._segment.moments.get(tag, ())
