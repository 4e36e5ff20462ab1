"""Queries with many items: items of one kind are asked in one statement, a stretch of the log at a time.

Knows: the same tables as queries.py, which puts a few items into one statement: SQLite merges those row by row, at a
cost that grows with their number for every row. Does not know: events' bytes, transactions.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from eventfold.core.query import SCANNED_ITEMS, Query
from eventfold.engines.sqlite.queries import Dictionary

MOST_ROWS = 20_000  # fetched for a stretch: one with more is asked for in parts
LEAST_STRETCH = 64  # positions: so few are asked for whole, however many items mean the same event
_position = itemgetter(0)


def many(query: Query) -> bool:
    """Whether the items of a query are better asked together."""
    return len(query.items) > SCANNED_ITEMS or query.count_names() > SCANNED_ITEMS * SCANNED_ITEMS


class Ask(NamedTuple):
    """What some items ask, in (after, until]: a statement without these bounds, and its bindings before them.

    It gives a position as often as items mean it, in no order.
    """

    sql: str
    bindings: tuple[str, ...]


def asks(dictionary: Dictionary, query: Query) -> list[Ask]:
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
    found = [_ask(among[types], count, items) for (types, count), items in alike.items()]
    if alone:
        sql = "SELECT e.position FROM json_each(?) u CROSS JOIN event e WHERE e.type = u.value"
        found.append(Ask(f"{sql} AND e.position > ? AND e.position <= ?", (json.dumps(sorted(alone)),)))
    return found


def _ask(types: list[int] | None, tags: int, items: list[list[int]]) -> Ask:
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
    return Ask(f"{sql} AND t.position > ? AND t.position <= ?", tuple(bindings))


def found(dictionary: Dictionary, query: Query, after: int, until: int, *, backwards: bool = False) -> Iterator[int]:
    """The positions in (after, until] that match, each once, in order, looked up as they are asked for."""
    asked = asks(dictionary, query)
    stretch = until - after
    while asked and after < until:
        low, high = (max(after, until - stretch), until) if backwards else (after, min(until, after + stretch))
        positions = _within(dictionary, asked, low, high)
        if positions is None:
            stretch = max(1, (high - low) // 4)
            continue
        yield from sorted(positions, reverse=backwards)
        after, until = (after, low) if backwards else (high, until)
        stretch *= 2


def _within(dictionary: Dictionary, asked: Sequence[Ask], low: int, high: int) -> set[int] | None:
    """Every position in (low, high] that matches; None where these are too many to be fetched at once."""
    positions: set[int] = set()
    left = MOST_ROWS if high - low > LEAST_STRETCH else -1
    for each in asked:
        limit: list[Any] = [-1 if left < 0 else left + 1]
        rows = dictionary.connection.execute(f"{each.sql} LIMIT ?", [*each.bindings, low, high, *limit]).fetchall()
        if left >= 0 and len(rows) > left:
            return None
        left -= len(rows) if left >= 0 else 0
        positions.update(map(_position, rows))
    return positions


def count(dictionary: Dictionary, query: Query, after: int, until: int) -> int:
    """How many positions in (after, until] match."""
    positions: set[int] = set()
    for each in asks(dictionary, query):
        positions.update(map(_position, dictionary.connection.execute(each.sql, [*each.bindings, after, until])))
    return len(positions)


def first(dictionary: Dictionary, query: Query, after: int, until: int) -> int | None:
    """The first position in (after, until] that matches; None where there is none."""
    return next(found(dictionary, query, after, until), None)
