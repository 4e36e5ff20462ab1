"""Queries as SQL: they select exactly what `Query.matches` selects, in order of position, by the index tables.

The tables are asked up to the start of the tail (tail.py), which has the rest.

A query with few items becomes one compound select: each item is a select in index order, merged lazily, so the cost is
that of a page, not of the log. SQLite merges many items at a cost per row that grows with their number, so they are
grouped by kind, and each group is one statement over a stretch of the log.
Knows: the tables, names as ids. Does not know: transactions, the bytes of events.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from operator import add, itemgetter
from typing import Any, NamedTuple

import apsw

from eventfold.core.query import SCANNED_ITEMS, Item, Query, with_spellings
from eventfold.engines.sqlite.dictionary import NameDictionary
from eventfold.engines.sqlite.schema import COLUMNS
from eventfold.engines.sqlite.tail import Segment, find_in_tail, first_in_tail, other_spellings, refuse_damage

MAX_PROBED_ENTRIES = 200  # index entries read to find the rarest tag of an item

_COLUMNS = [name.strip() for name in COLUMNS.split(",")]
_E_COLUMNS = ", ".join(f"e.{name}" for name in _COLUMNS)
# The index contains the position: if its row is missing, a row of nulls is returned.
_P_COLUMNS = ", ".join(["p.position", *(f"e.{name}" for name in _COLUMNS[1:])])

_OCCURRED = " AND (e.crc IS NULL OR ifnull(e.occurred, e.time) BETWEEN ? AND ?)"


class NameLookup(NamedTuple):
    """What a query is looked up in: a connection, both dictionaries, and the tail."""

    connection: apsw.Connection
    types: NameDictionary
    tags: NameDictionary
    segments: tuple[Segment, ...]

    @property
    def indexed(self) -> int:
        """The position through which the index tables are asked."""
        return self.segments[0].start

    def with_all_spellings(self, query: Query) -> Query:
        """The query with all spellings of the moments in its tags that the log contains."""
        return with_spellings(query, self._other_spellings)

    def _other_spellings(self, tag: str) -> list[str]:
        found = self.tags.spellings.others_of(self.connection, tag)
        return [*found, *other_spellings(self.segments, tag)]


class PositionQuery:
    """A compiled query: SQL that selects matching positions in (after, until], and its bindings."""

    __slots__ = ("bindings", "parts")

    def __init__(self, parts: list[str], bindings: list[Any]) -> None:
        self.parts, self.bindings = parts, bindings

    @property
    def is_empty(self) -> bool:
        """Whether no event can match, because no event has a required name."""
        return not self.parts

    def sql(self, direction: str) -> str:
        """The compound select, ordered by position."""
        return f"{' UNION '.join(self.parts)} ORDER BY position {direction}"


_WITHIN = "position > ? AND position <= ?"
_WITHIN_RANGE = "position > json_extract(r.value, '$[0]') AND position <= json_extract(r.value, '$[1]')"


def compile_query(names: NameLookup, query: Query, after: int, until: int, *, by_range: bool = False) -> PositionQuery:
    """Compile a query with few items (at least one). See `find_positions` for many items.

    `by_range`: for each row `r` of an enclosing statement, whose value is a JSON array [after, until].
    """
    connection, types, _, _ = names
    compiled = PositionQuery([], [])
    for item in query.items:
        type_ids = types.ids(connection, item.types)
        if item.types and not type_ids:
            continue
        if item.tags:
            _compile_tags(names, item, type_ids, (after, until), by_range, compiled)
        else:
            within = _WITHIN_RANGE if by_range else _WITHIN
            for each in type_ids:
                compiled.parts.append(f"SELECT position FROM tagged WHERE tag = ? AND {within}")  # noqa: S608
                compiled.bindings += (-each,) if by_range else (-each, after, until)
    return compiled


def _compile_tags(
    names: NameLookup, item: Item, type_ids: list[int], span: tuple[int, int], by_range: bool, into: PositionQuery
) -> None:
    connection, _, tags, _ = names
    ids = tags.ids(connection, item.tags)
    if len(ids) < len(item.tags):
        return
    if len(ids) > 1:
        ids.sort(key=lambda each: _estimate_frequency(connection, each, *span))
    sql = "SELECT a.position AS position FROM tagged a"
    for index, each in enumerate(ids[1:]):
        sql += f" CROSS JOIN tagged b{index} ON b{index}.tag = ? AND b{index}.position = a.position"
        into.bindings.append(each)
    sql += f" WHERE a.tag = ? AND {(_WITHIN_RANGE if by_range else _WITHIN).replace('position ', 'a.position ')}"
    into.bindings += (ids[0],) if by_range else (ids[0], *span)
    if type_ids:
        sql += f" AND a.type IN ({','.join('?' * len(type_ids))})"
        into.bindings += type_ids
    into.parts.append(sql)


def _estimate_frequency(connection: apsw.Connection, tag: int, after: int, until: int) -> int:
    return connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM tagged WHERE tag = ? AND position > ? AND position <= ? LIMIT ?)",
        (tag, after, until, MAX_PROBED_ENTRIES),
    ).get


def rows_sql(occurred: bool) -> str:
    """SQL for the rows at given positions. Bindings: a JSON array of positions, then the bounds of `occurred`.

    Rows come in the order of the array: an outer join keeps its left table outside, and `json_each` reads in order.
    Sorting would cost a tenth; `read_page` verifies the order.
    """
    return (
        f"SELECT {_P_COLUMNS} FROM (SELECT value AS position FROM json_each(?)) p "  # noqa: S608
        f"LEFT JOIN event e ON e.position = p.position{' WHERE 1' + _OCCURRED if occurred else ''}"
    )


def page_sql(found: PositionQuery | None, backwards: bool, occurred: bool) -> str:
    """SQL for a page of rows. Bindings: those of the compiled query, the bounds of `occurred`, the limit.

    Without a compiled query (all events) the bindings begin with (after, until).
    """
    direction = "DESC" if backwards else "ASC"
    where = _OCCURRED if occurred else ""
    if found is None:
        return (
            f"SELECT {_E_COLUMNS} FROM event e WHERE e.position > ? AND e.position <= ?{where} "  # noqa: S608
            f"ORDER BY e.position {direction} LIMIT ?"
        )
    # The inner limit keeps the inner order; without it SQLite would sort all rows outside.
    inside, outside = ("LIMIT -1", " LIMIT ?") if occurred else ("LIMIT ?", "")
    return (
        f"SELECT {_P_COLUMNS} FROM ({found.sql(direction)} {inside}) p "  # noqa: S608
        f"LEFT JOIN event e ON e.position = p.position WHERE 1{where} ORDER BY p.position {direction}{outside}"
    )


MAX_STRETCH_ROWS = 20_000  # a stretch with more rows is divided
MIN_STRETCH_POSITIONS = 64  # a stretch of this size is never divided
_position = itemgetter(0)


def has_many_items(query: Query) -> bool:
    """Whether a query has so many items that they are grouped."""
    return len(query.items) > SCANNED_ITEMS or query.count_names() > SCANNED_ITEMS * SCANNED_ITEMS


class ItemGroup(NamedTuple):
    """A statement for items of one kind, and its bindings, to which (after, until] is added.

    It returns a position once for each matching item, in no order.
    """

    sql: str
    bindings: tuple[str, ...]


def group_items(dictionary: NameLookup, query: Query) -> list[ItemGroup]:
    """One group for all items without tags, and one for each combination of types and number of tags."""
    connection, types, tags, _ = dictionary
    alone: set[int] = set()
    among: dict[tuple[str, ...], list[int] | None] = {(): None}  # type names -> ids; None: any type
    alike: dict[tuple[tuple[str, ...], int], list[list[int]]] = {}
    asked = Counter(tag for item in query.items if len(item.tags) > 1 for tag in item.tags)
    for item in query.items:
        if item.types not in among:
            among[item.types] = types.ids(connection, item.types)
        of_types = among[item.types]
        if not item.tags:
            alone.update(of_types or ())
        elif of_types is None or of_types:
            # Begin with the tag in the fewest items: probably that of one entity, not one that many events carry.
            names = sorted(item.tags, key=asked.__getitem__) if len(item.tags) > 1 else item.tags
            ids = tags.ids(connection, names)
            if len(ids) == len(item.tags):
                alike.setdefault((item.types, len(ids)), []).append(ids)
    found = [_compile_group(among[types], count, items) for (types, count), items in alike.items()]
    if alone:
        sql = "SELECT t.position FROM json_each(?) u CROSS JOIN tagged t WHERE t.tag = u.value"
        numbers = json.dumps([-each for each in sorted(alone)])
        found.append(ItemGroup(f"{sql} AND t.position > ? AND t.position <= ?", (numbers,)))
    return found


def _compile_group(types: list[int] | None, tags: int, items: list[list[int]]) -> ItemGroup:
    """Compile items with the same types and the same number of tags."""
    name = "u.value" if tags == 1 else "json_extract(u.value, '$[0]')"
    sql = f"SELECT t.position FROM json_each(?) u CROSS JOIN tagged t WHERE t.tag = {name}"  # noqa: S608
    bindings = [json.dumps([ids[0] for ids in items] if tags == 1 else items)]
    if types is not None:
        sql += " AND t.type IN (SELECT value FROM json_each(?))"
        bindings.append(json.dumps(types))
    for number in range(1, tags):
        also = f"o.tag = json_extract(u.value, '$[{number}]')"
        sql += f" AND EXISTS (SELECT 1 FROM tagged o WHERE {also} AND o.position = t.position)"  # noqa: S608
    return ItemGroup(f"{sql} AND t.position > ? AND t.position <= ?", tuple(bindings))


def find_positions(
    dictionary: NameLookup, query: Query, after: int, until: int, *, backwards: bool = False
) -> Iterator[int]:
    """Yield matching positions in (after, until], each once and in order, looked up lazily."""
    asked = group_items(dictionary, query)
    stretch = until - after
    while asked and after < until:
        low, high = (max(after, until - stretch), until) if backwards else (after, min(until, after + stretch))
        positions = _positions_within(dictionary, asked, low, high)
        if positions is None:
            stretch = max(1, (high - low) // 4)
            continue
        yield from sorted(positions, reverse=backwards)
        after, until = (after, low) if backwards else (high, until)
        stretch *= 2


def _positions_within(dictionary: NameLookup, asked: Sequence[ItemGroup], low: int, high: int) -> set[int] | None:
    """All matching positions in (low, high], or None if they are too many for one fetch."""
    positions: set[int] = set()
    left = MAX_STRETCH_ROWS if high - low > MIN_STRETCH_POSITIONS else -1
    for each in asked:
        limit: list[Any] = [-1 if left < 0 else left + 1]
        rows = dictionary.connection.execute(f"{each.sql} LIMIT ?", [*each.bindings, low, high, *limit]).fetchall()
        if left >= 0 and len(rows) > left:
            return None
        left -= len(rows) if left >= 0 else 0
        positions.update(map(_position, rows))
    return positions


def count_positions(dictionary: NameLookup, query: Query, after: int, until: int) -> int:
    """The number of matching positions in (after, until]."""
    return len(_all_positions(dictionary, query, after, until))


def _all_positions(dictionary: NameLookup, query: Query, after: int, until: int) -> set[int]:
    positions: set[int] = set()
    for each in group_items(dictionary, query):
        positions.update(map(_position, dictionary.connection.execute(each.sql, [*each.bindings, after, until])))
    return positions


def first_position(dictionary: NameLookup, query: Query, after: int, until: int) -> int | None:
    """The first matching position in (after, until], or None."""
    return next(find_positions(dictionary, query, after, until), None)


def first_match(names: NameLookup, query: Query, after: int, until: int) -> int | None:
    """The first matching position in (after, until], found by the index tables and the tail alone."""
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
    """The first matching position in (after, until] by the index tables, for a query with all spellings."""
    if has_many_items(query):
        return first_position(names, query, after, until)
    found = compile_query(names, query, after, until)
    if found.is_empty:
        return None
    row = names.connection.execute(f"{found.sql('ASC')} LIMIT 1", found.bindings).fetchone()
    return row[0] if row else None


def count_matches(names: NameLookup, query: Query, after: int, until: int) -> int:
    """The number of matching positions in (after, until], for a query with items."""
    refuse_damage(names.segments, after, until)
    query = names.with_all_spellings(query)
    count = len(find_in_tail(names.segments, query, after, until))
    until = min(until, names.indexed)
    if until <= after:
        return count
    if has_many_items(query):
        return count + count_positions(names, query, after, until)
    found = compile_query(names, query, after, until)
    if found.is_empty:
        return count
    return count + names.connection.execute(f"SELECT count(*) FROM ({found.sql('ASC')})", found.bindings).get  # noqa: S608


def count_ranges(names: NameLookup, query: Query, bounds: Sequence[int]) -> list[int]:
    """The number of matching positions in each range between two ascending bounds, for a query with items."""
    refuse_damage(names.segments, bounds[0], bounds[-1])
    query = names.with_all_spellings(query)
    counts = _count_between(bounds, find_in_tail(names.segments, query, bounds[0], bounds[-1]))
    until = min(bounds[-1], names.indexed)
    if bounds[0] >= until:
        return counts
    if has_many_items(query):
        found = sorted(_all_positions(names, query, bounds[0], until))
        return list(map(add, counts, _count_between(bounds, found)))
    compiled = compile_query(names, query, bounds[0], until, by_range=True)
    if compiled.is_empty:
        return counts
    ranges = [(low, min(high, until)) for low, high in pairwise(bounds)]
    sql = f"SELECT (SELECT count(*) FROM ({compiled.sql('ASC')})) FROM json_each(?) r ORDER BY r.key"  # noqa: S608
    rows = names.connection.execute(sql, [*compiled.bindings, json.dumps(ranges)])
    return [count + indexed for count, (indexed,) in zip(counts, rows, strict=True)]


def _count_between(bounds: Sequence[int], positions: Sequence[int]) -> list[int]:
    ends = [bisect_right(positions, bound) for bound in bounds]
    return [high - low for low, high in pairwise(ends)]
