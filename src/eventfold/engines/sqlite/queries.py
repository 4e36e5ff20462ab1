"""Room: queries as SQL. Selects exactly what `Query.matches` selects, in position order, from indexes.

Knows: the tables, names as ids. Does not know: events' bytes, transactions. Each alternative of a query is a
select in index order, and a compound select merges them lazily, so a page costs a page, not the log.

Queries with many items: items of one kind are asked in one statement, a stretch of the log at a time.

Knows: the same tables as queries.py, which puts a few items into one statement: SQLite merges those row by row, at a
cost that grows with their number for every row. Does not know: events' bytes, transactions.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import apsw

from eventfold.core.query import SCANNED_ITEMS, Item, Query, with_spellings
from eventfold.engines.sqlite.dictionary import NameDictionary
from eventfold.engines.sqlite.schema import COLUMNS

MAX_PROBED_ENTRIES = 200  # index entries looked at to see which of an item's tags is the rarer one

_COLUMNS = [name.strip() for name in COLUMNS.split(",")]
_E_COLUMNS = ", ".join(f"e.{name}" for name in _COLUMNS)
# The index says that there is such a position: where the row is gone, a row of nulls says so.
_P_COLUMNS = ", ".join(["p.position", *(f"e.{name}" for name in _COLUMNS[1:])])

_OCCURRED = " AND (e.crc IS NULL OR ifnull(e.occurred, e.time) BETWEEN ? AND ?)"


class NameLookup(NamedTuple):
    """Where names are looked up: a connection, both dictionaries, and whether it is the writer's transaction."""

    connection: apsw.Connection
    types: NameDictionary
    tags: NameDictionary
    writing: bool = False

    def with_all_spellings(self, query: Query) -> Query:
        """The query with every spelling that the log has of the moments among its tags."""
        return with_spellings(query, lambda tag: self.tags.spellings.others_of(self.connection, tag, self.writing))


class PositionQuery:
    """A query made ready: SQL that selects matching positions in (after, until], and its bindings."""

    __slots__ = ("bindings", "parts")

    def __init__(self, parts: list[str], bindings: list[Any]) -> None:
        self.parts, self.bindings = parts, bindings

    @property
    def is_empty(self) -> bool:
        """Whether no event can match, since a name it needs was never used."""
        return not self.parts

    def sql(self, direction: str) -> str:
        """The compound select, ordered."""
        return f"{' UNION '.join(self.parts)} ORDER BY position {direction}"


def compile_query(names: NameLookup, query: Query, after: int, until: int) -> PositionQuery:
    """Compile a query with a few items (not the one that means everything): those with many are walked below."""
    connection, types, _, writing = names
    compiled = PositionQuery([], [])
    for item in query.items:
        type_ids = types.ids(connection, item.types, writing)
        if item.types and not type_ids:
            continue
        if item.tags:
            _compile_tags(names, item, type_ids, after, until, compiled)
        else:
            for each in type_ids:
                compiled.parts.append("SELECT position FROM event WHERE type = ? AND position > ? AND position <= ?")
                compiled.bindings += (each, after, until)
    return compiled


def _compile_tags(
    names: NameLookup, item: Item, type_ids: list[int], after: int, until: int, into: PositionQuery
) -> None:
    connection, _, tags, writing = names
    ids = tags.ids(connection, item.tags, writing)
    if len(ids) < len(item.tags):
        return
    if len(ids) > 1:
        ids.sort(key=lambda each: _estimate_frequency(connection, each, after, until))
    sql = "SELECT a.position AS position FROM tagged a"
    for index, each in enumerate(ids[1:]):
        sql += f" CROSS JOIN tagged b{index} ON b{index}.tag = ? AND b{index}.position = a.position"
        into.bindings.append(each)
    sql += " WHERE a.tag = ? AND a.position > ? AND a.position <= ?"
    into.bindings += (ids[0], after, until)
    if type_ids:
        sql += f" AND a.type IN ({','.join('?' * len(type_ids))})"
        into.bindings += type_ids
    into.parts.append(sql)


def _estimate_frequency(connection: apsw.Connection, tag: int, after: int, until: int) -> int:
    return connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM tagged WHERE tag = ? AND position > ? AND position <= ? LIMIT ?)",
        (tag, after, until, MAX_PROBED_ENTRIES),
    ).get


def rows_sql(backwards: bool, occurred: bool) -> str:
    """Whole rows at given positions: bindings are these as a JSON array, then the bounds of `occurred`."""
    return (
        f"SELECT {_P_COLUMNS} FROM (SELECT value AS position FROM json_each(?)) p "  # noqa: S608
        f"LEFT JOIN event e ON e.position = p.position WHERE 1{_OCCURRED if occurred else ''} "
        f"ORDER BY p.position {'DESC' if backwards else 'ASC'}"
    )


def page_sql(found: PositionQuery | None, backwards: bool, occurred: bool) -> str:
    """A page of whole rows: bindings are those of the positions, then the bounds of `occurred`, then the limit.

    Without positions (the query that means everything) the bindings start with (after, until).
    """
    direction = "DESC" if backwards else "ASC"
    where = _OCCURRED if occurred else ""
    if found is None:
        return (
            f"SELECT {_E_COLUMNS} FROM event e WHERE e.position > ? AND e.position <= ?{where} "  # noqa: S608
            f"ORDER BY e.position {direction} LIMIT ?"
        )
    # A limit inside keeps SQLite from dropping the order there and sorting everything outside instead.
    inside, outside = ("LIMIT -1", " LIMIT ?") if occurred else ("LIMIT ?", "")
    return (
        f"SELECT {_P_COLUMNS} FROM ({found.sql(direction)} {inside}) p "  # noqa: S608
        f"LEFT JOIN event e ON e.position = p.position WHERE 1{where} ORDER BY p.position {direction}{outside}"
    )


MAX_STRETCH_ROWS = 20_000  # fetched for a stretch: one with more is asked for in parts
MIN_STRETCH_POSITIONS = 64  # positions: so few are asked for whole, however many items mean the same event
_position = itemgetter(0)


def has_many_items(query: Query) -> bool:
    """Whether the items of a query are better asked together."""
    return len(query.items) > SCANNED_ITEMS or query.count_names() > SCANNED_ITEMS * SCANNED_ITEMS


class ItemGroup(NamedTuple):
    """What some items ask, in (after, until]: a statement without these bounds, and its bindings before them.

    It gives a position as often as items mean it, in no order.
    """

    sql: str
    bindings: tuple[str, ...]


def group_items(dictionary: NameLookup, query: Query) -> list[ItemGroup]:
    """One for all items without tags, and one for all that name the same types and as many tags."""
    connection, types, tags, writing = dictionary
    alone: set[int] = set()
    among: dict[tuple[str, ...], list[int] | None] = {(): None}  # names of types as numbers; None: any type
    alike: dict[tuple[tuple[str, ...], int], list[list[int]]] = {}
    asked = Counter(tag for item in query.items if len(item.tags) > 1 for tag in item.tags)
    for item in query.items:
        if item.types not in among:
            among[item.types] = types.ids(connection, item.types, writing)
        of_types = among[item.types]
        if not item.tags:
            alone.update(of_types or ())
        elif of_types is None or of_types:
            # The tag that the fewest items name is walked: more likely an entity's own than one that many events carry.
            names = sorted(item.tags, key=asked.__getitem__) if len(item.tags) > 1 else item.tags
            ids = tags.ids(connection, names, writing)
            if len(ids) == len(item.tags):
                alike.setdefault((item.types, len(ids)), []).append(ids)
    found = [_compile_group(among[types], count, items) for (types, count), items in alike.items()]
    if alone:
        sql = "SELECT e.position FROM json_each(?) u CROSS JOIN event e WHERE e.type = u.value"
        found.append(ItemGroup(f"{sql} AND e.position > ? AND e.position <= ?", (json.dumps(sorted(alone)),)))
    return found


def _compile_group(types: list[int] | None, tags: int, items: list[list[int]]) -> ItemGroup:
    """Items that name the same types, and as many tags each."""
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
    """The positions in (after, until] that match, each once, in order, looked up as they are asked for."""
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
    """Every position in (low, high] that matches; None where these are too many to be fetched at once."""
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
    """How many positions in (after, until] match."""
    positions: set[int] = set()
    for each in group_items(dictionary, query):
        positions.update(map(_position, dictionary.connection.execute(each.sql, [*each.bindings, after, until])))
    return len(positions)


def first_position(dictionary: NameLookup, query: Query, after: int, until: int) -> int | None:
    """The first position in (after, until] that matches; None where there is none."""
    return next(find_positions(dictionary, query, after, until), None)
