"""Room: queries as SQL. Selects exactly what `Query.matches` selects, in position order, from indexes.

Knows: the tables, names as ids. Does not know: events' bytes, transactions. Each alternative of a query is a
select in index order, and a compound select merges them lazily, so a page costs a page, not the log.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import apsw

from eventfold.core.query import Item, Query, with_spellings
from eventfold.engines.sqlite.names import Names
from eventfold.engines.sqlite.schema import COLUMNS

PROBE = 200  # index entries looked at to see which of an item's tags is the rarer one

_COLUMNS = [name.strip() for name in COLUMNS.split(",")]
_E_COLUMNS = ", ".join(f"e.{name}" for name in _COLUMNS)
# The index says that there is such a position: where the row is gone, a row of nulls says so.
_P_COLUMNS = ", ".join(["p.position", *(f"e.{name}" for name in _COLUMNS[1:])])

_OCCURRED = " AND (e.crc IS NULL OR ifnull(e.occurred, e.time) BETWEEN ? AND ?)"


class Dictionary(NamedTuple):
    """Where names are looked up: a connection, both dictionaries, and whether it is the writer's transaction."""

    connection: apsw.Connection
    types: Names
    tags: Names
    writing: bool = False

    def spelled(self, query: Query) -> Query:
        """The query with every spelling that the log has of the moments among its tags."""
        return with_spellings(query, lambda tag: self.tags.spellings.of(self.connection, tag, self.writing))


class Positions:
    """A query made ready: SQL that selects matching positions in (after, until], and its bindings."""

    __slots__ = ("bindings", "parts")

    def __init__(self, parts: list[str], bindings: list[Any]) -> None:
        self.parts, self.bindings = parts, bindings

    @property
    def nothing(self) -> bool:
        """Whether no event can match, since a name it needs was never used."""
        return not self.parts

    def sql(self, direction: str) -> str:
        """The compound select, ordered."""
        return f"{' UNION '.join(self.parts)} ORDER BY position {direction}"


def positions(dictionary: Dictionary, query: Query, after: int, until: int) -> Positions:
    """Compile a query with a few items (not the one that means everything): many.py walks those with many."""
    connection, types, _, writing = dictionary
    found = Positions([], [])
    for item in query.items:
        type_ids = types.ids(connection, item.types, writing)
        if item.types and not type_ids:
            continue
        if item.tags:
            _by_tags(dictionary, item, type_ids, after, until, found)
        else:
            for each in type_ids:
                found.parts.append("SELECT position FROM event WHERE type = ? AND position > ? AND position <= ?")
                found.bindings += (each, after, until)
    return found


def _by_tags(dictionary: Dictionary, item: Item, type_ids: list[int], after: int, until: int, into: Positions) -> None:
    connection, _, tags, writing = dictionary
    ids = tags.ids(connection, item.tags, writing)
    if len(ids) < len(item.tags):
        return
    if len(ids) > 1:
        ids.sort(key=lambda each: _probe(connection, each, after, until))
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


def _probe(connection: apsw.Connection, tag: int, after: int, until: int) -> int:
    return connection.execute(
        "SELECT count(*) FROM (SELECT 1 FROM tagged WHERE tag = ? AND position > ? AND position <= ? LIMIT ?)",
        (tag, after, until, PROBE),
    ).get


def rows_sql(backwards: bool, occurred: bool) -> str:
    """Whole rows at given positions: bindings are these as a JSON array, then the bounds of `occurred`."""
    return (
        f"SELECT {_P_COLUMNS} FROM (SELECT value AS position FROM json_each(?)) p "  # noqa: S608
        f"LEFT JOIN event e ON e.position = p.position WHERE 1{_OCCURRED if occurred else ''} "
        f"ORDER BY p.position {'DESC' if backwards else 'ASC'}"
    )


def page_sql(found: Positions | None, backwards: bool, occurred: bool) -> str:
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
