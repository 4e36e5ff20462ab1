"""Queries by the index: they find exactly the positions that `Query.matches` selects, in order.

The runs of the index are asked up to the start of the tail (tail.py), which has the rest. Each item of a query is
found by the postings of its rarest tag, read as far as positions are asked for, so the cost is that of a page, not of
the log. Many items are found together, over one stretch of the log after another.
Knows: names as ids, what an item selects. Does not know: transactions, the bytes of events and of postings.
"""

from __future__ import annotations

import json
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import chain, compress, pairwise
from typing import NamedTuple

import apsw

from eventfold.core.query import SCANNED_ITEMS, Query, with_spellings
from eventfold.engines.sqlite.dictionary import NameDictionary
from eventfold.engines.sqlite.runs import (
    Membership,
    Occurrences,
    estimate_events,
    occurrences,
    occurrences_of_each,
)
from eventfold.engines.sqlite.schema import ROW
from eventfold.engines.sqlite.tail import Segment, find_in_tail, first_in_tail, other_spellings, refuse_damage

# The index contains the position: if its row is missing, a row of nulls is returned.
_P_COLUMNS = f"p.{ROW}"  # `p` has no other column of an event

_OCCURRED = " AND (e.crc IS NULL OR ifnull(e.occurred, e.time) BETWEEN ? AND ?)"


class NameLookup(NamedTuple):
    """What a query is looked up in: a connection, both dictionaries, and the tail."""

    connection: apsw.Connection
    types: NameDictionary
    tags: NameDictionary
    segments: tuple[Segment, ...]

    @property
    def indexed(self) -> int:
        """The position through which the index is asked."""
        return self.segments[0].start

    def with_all_spellings(self, query: Query) -> Query:
        """The query with all spellings of the moments in its tags that the log contains."""
        return with_spellings(query, self._other_spellings)

    def _other_spellings(self, tag: str) -> list[str]:
        found = self.tags.spellings.others_of(self.connection, tag)
        return [*found, *other_spellings(self.segments, tag)]


def rows_sql(occurred: bool) -> str:
    """SQL for the rows at given positions. Bindings: a JSON array of positions, then the bounds of `occurred`.

    Rows come in the order of the array: an outer join keeps its left table outside, and `json_each` reads in order.
    Sorting would cost a tenth; `read_page` verifies the order.
    """
    return (
        f"SELECT {_P_COLUMNS} FROM (SELECT value AS position FROM json_each(?)) p "  # noqa: S608
        f"LEFT JOIN event e ON e.position = p.position{' WHERE 1' + _OCCURRED if occurred else ''}"
    )


def page_sql(backwards: bool, occurred: bool) -> str:
    """SQL for a page of all events. Bindings: (after, until], the bounds of `occurred`, the limit."""
    return (
        f"SELECT e.{ROW} FROM event e WHERE e.position > ? AND e.position <= ?"  # noqa: S608
        f"{_OCCURRED if occurred else ''} ORDER BY e.position {'DESC' if backwards else 'ASC'} LIMIT ?"
    )


class IndexedItem(NamedTuple):
    """An item of a query by ids: events with all of the tags, and with one of the types if there are any.

    Without tags, `tags` is the negative id of the only type.
    """

    tags: tuple[int, ...]
    types: frozenset[int]


def indexed_items(names: NameLookup, query: Query) -> list[IndexedItem]:
    """The items that events of the index may match, those without tags once for each type."""
    connection, types, tags, _ = names
    found: list[IndexedItem] = []
    among: dict[tuple[str, ...], frozenset[int]] = {}
    for item in query.items:
        if item.types not in among:
            among[item.types] = frozenset(types.ids(connection, item.types))
        of_types = among[item.types]
        if item.types and not of_types:
            continue
        if not item.tags:
            found += [IndexedItem((-each,), frozenset()) for each in of_types]
            continue
        ids = tags.ids(connection, item.tags)
        if len(ids) == len(item.tags):
            found.append(IndexedItem(tuple(ids), of_types))
    return found


def find_positions(
    names: NameLookup, query: Query, after: int, until: int, *, backwards: bool = False
) -> Iterator[int]:
    """Yield matching positions of the index in (after, until], each once and in order, looked up lazily.

    For a query with all spellings, and with items.
    """
    if after >= until:
        return iter(())
    items = indexed_items(names, query)
    if has_many_items(query):
        return _find_together(names.connection, items, after, until, backwards)
    found = [_find(names.connection, item, after, until, backwards) for item in items]
    if len(found) == 1:
        return chain.from_iterable(map(reversed, found[0]) if backwards else found[0])
    each = [chain.from_iterable(map(reversed, one) if backwards else one) for one in found]
    return _distinct(merge(*each, reverse=backwards))


def _distinct(positions: Iterable[int]) -> Iterator[int]:
    before = 0
    for position in positions:
        if position != before:
            yield position
            before = position


def _find(
    connection: apsw.Connection, item: IndexedItem, after: int, until: int, backwards: bool = False
) -> Iterator[Sequence[int]]:
    """Yield the positions that match an item, a posting at a time, those of each in order."""
    types = item.types
    tags: Sequence[int] = item.tags if len(item.tags) == 1 else _rarest_first(connection, item.tags, after, until)
    found = occurrences(connection, tags[0], after, until, backwards=backwards)
    others = [Membership(connection, tag, until) for tag in tags[1:]]
    for each in found:
        positions = _of_types(each, types) if types else each.positions
        for other in others:
            positions = [position for position in positions if position in other]
        if positions:
            yield positions


def _of_types(found: Occurrences, types: frozenset[int]) -> Sequence[int]:
    kinds = found.types
    if isinstance(kinds, int):
        return found.positions if kinds in types else ()
    return list(compress(found.positions, map(types.__contains__, kinds)))


def _rarest_first(connection: apsw.Connection, tags: Sequence[int], after: int, until: int) -> list[int]:
    return sorted(tags, key=lambda tag: estimate_events(connection, tag, after, until))


MAX_STRETCH_POSITIONS = 20_000  # a stretch in which the tags have more positions is divided
MIN_STRETCH = 64  # events; a stretch of this size is never divided


def has_many_items(query: Query) -> bool:
    """Whether a query has so many items that they are found together."""
    return len(query.items) > SCANNED_ITEMS or query.count_names() > SCANNED_ITEMS * SCANNED_ITEMS


class ItemsTogether:
    """Many items, found together within a stretch of the log: the postings of all their tags are read at once.

    Of several tags of an item, that of the fewest items is asked first: it is probably the tag of one entity, not one
    that many events have. The others are read where it occurs.
    """

    def __init__(self, items: Iterable[IndexedItem]) -> None:
        items = list(items)
        asked = Counter(tag for item in items if len(item.tags) > 1 for tag in item.tags)
        self._by_tag: dict[int, list[IndexedItem]] = {}  # items by their first tag
        for tags, types in items:
            first, *others = sorted(tags, key=asked.__getitem__)
            self._by_tag.setdefault(first, []).append(IndexedItem(tuple(others), types))
        self._tags = json.dumps(sorted(self._by_tag))

    def within(self, connection: apsw.Connection, low: int, high: int) -> set[int] | None:
        """All matching positions in (low, high], or None if they are too many to be found together."""
        positions = set[int]()
        left = MAX_STRETCH_POSITIONS if high - low > MIN_STRETCH else sys.maxsize
        others: dict[int, Membership] = {}
        for tag, found in occurrences_of_each(connection, self._tags, low, high):
            left -= len(found.positions)
            if left < 0:
                return None
            for more, types in self._by_tag[tag]:
                matching = _of_types(found, types) if types else found.positions
                for other in more:
                    if other not in others:
                        others[other] = Membership(connection, other, high)
                    member = others[other]
                    matching = [position for position in matching if position in member]
                positions.update(matching)
        return positions


def _find_together(
    connection: apsw.Connection, items: list[IndexedItem], after: int, until: int, backwards: bool
) -> Iterator[int]:
    together, stretch = ItemsTogether(items), until - after
    while items and after < until:
        low, high = (max(after, until - stretch), until) if backwards else (after, min(until, after + stretch))
        positions = together.within(connection, low, high)
        if positions is None:
            stretch = max(1, (high - low) // 4)
            continue
        yield from sorted(positions, reverse=backwards)
        after, until = (after, low) if backwards else (high, until)
        stretch *= 2


def first_match(names: NameLookup, query: Query, after: int, until: int) -> int | None:
    """The first matching position in (after, until], found by the index and the tail alone."""
    if until <= after:
        return None
    if not query.items:
        return after + 1
    if query.names_moments():
        query = names.with_all_spellings(query)
    newest = names.segments[-1]
    if after >= newest.start and len(query.items) == 1 and newest.damage is None:  # as most conditions are
        return newest.first(query.items[0], after, until)
    indexed = names.segments[0].start
    found = first_indexed(names, query, after, min(until, indexed)) if after < indexed else None
    return first_in_tail(names.segments, query, after, until) if found is None else found


def first_indexed(names: NameLookup, query: Query, after: int, until: int) -> int | None:
    """The first matching position in (after, until] by the index, for a query with all spellings."""
    return next(find_positions(names, query, after, until), None)


def count_matches(names: NameLookup, query: Query, after: int, until: int) -> int:
    """The number of matching positions in (after, until], for a query with items."""
    return sum(count_ranges(names, query, (after, until)))


def count_ranges(names: NameLookup, query: Query, bounds: Sequence[int]) -> list[int]:
    """The number of matching positions in each range between two ascending bounds, for a query with items."""
    refuse_damage(names.segments, bounds[0], bounds[-1])
    query = names.with_all_spellings(query)
    newest: Sequence[int] = find_in_tail(names.segments, query, bounds[0], bounds[-1])
    counts = _count_between(bounds, [newest])
    until = min(bounds[-1], names.indexed)
    if bounds[0] >= until:
        return counts
    items = indexed_items(names, query)
    if len(items) == 1:  # a posting at a time
        found: Iterable[Sequence[int]] = _find(names.connection, items[0], bounds[0], until)
    else:
        found = [list(find_positions(names, query, bounds[0], until))]
    return [newer + older for newer, older in zip(counts, _count_between(bounds, found), strict=True)]


def _count_between(bounds: Sequence[int], found: Iterable[Sequence[int]]) -> list[int]:
    """How many positions are between two bounds each, given as sequences in order."""
    counts: list[int] = [0] * (len(bounds) - 1)
    for positions in found:
        if len(counts) == 1:
            counts[0] += len(positions)
            continue
        ends = [bisect_right(positions, bound) for bound in bounds]
        counts = [count + high - low for count, (low, high) in zip(counts, pairwise(ends), strict=True)]
    return counts
