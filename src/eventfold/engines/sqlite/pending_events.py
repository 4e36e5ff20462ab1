"""The events that a batch has accepted, as the conditions of its later requests see them.

Most conditions match none of them. The last position of each tag and type shows that, at a tenth of the cost of an
index; the index is built once it is needed.
Knows: types and tags of accepted events. Does not know: SQL, the events of the log, what a match means for a request.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from eventfold.core.query import Query, with_spellings
from eventfold.core.tags import is_moment
from eventfold.engines.sqlite.tail import Labels, Segment, first_in_tail


class PendingEvents:
    """`labels` are those of the batch, which grow with it; `start` is the position before the first."""

    __slots__ = ("_by_tag", "_by_type", "_indexed", "_labels", "_noted", "_segment", "_start")

    def __init__(self, start: int, labels: Labels) -> None:
        self._labels, self._start, self._noted = labels, start, 0
        self._by_tag: dict[str, int] = {}  # the last position of each tag, of the first so many events
        self._by_type: dict[str, int] = {}
        self._segment, self._indexed = Segment(start, sys.maxsize), 0  # the index of the first so many events

    def first(self, query: Query, after: int, until: int) -> int | None:
        """The first position in (after, until] that matches, or None. Moments match in any time zone."""
        by_tag, by_type, (types, tag_sets, _) = self._by_tag, self._by_type, self._labels
        for index in range(self._noted, len(types)):  # those that were added since
            position = self._start + index + 1
            by_type[types[index]] = position
            for tag in tag_sets[index]:
                by_tag[tag] = position
        self._noted = len(types)
        if query.items and not self._may_match(query, after):
            return None
        segment = self._segment
        self._indexed += segment.add(self._labels.after(self._indexed)._replace(sizes=[]))
        return first_in_tail((segment,), with_spellings(query, self._other_spellings), after, until)

    def _may_match(self, query: Query, after: int) -> bool:
        """Whether events after a position have each tag of an item, or one of its types if it has no tags."""
        by_tag = self._by_tag
        for item in query.items:
            for tag in item.tags:
                if by_tag.get(tag, 0) <= after and not ("T" in tag and is_moment(tag)):
                    break
            else:
                if item.tags or any(self._by_type.get(type, 0) > after for type in item.types):
                    return True
        return False

    def _other_spellings(self, tag: str) -> Sequence[str]:
        return self._segment.moments.get(tag, ())
