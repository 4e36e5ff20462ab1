"""Queries with many items, as one statement over arrays, which the server plans once for any number of items.

A query with few items is one index scan an item (statements.py); the server's planner is slow with many of them in one
statement. Knows: the tables, queries. Does not know: pages, connections.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from eventfold.core.query import Item, Query
from eventfold.engines.postgres.arrays import pack_search_texts

MAX_WALKS = 16  # index scans in one statement
MAX_POSITIONS_PER_RANGE = 20_000  # matching positions in one range of the log: a range with more is divided
MIN_RANGE_POSITIONS = 64  # a range this small is never divided


def is_large(query: Query) -> bool:
    """Whether a query has so many items that one statement over arrays is faster."""
    if len(query.items) > MAX_WALKS:
        return True
    return sum(1 if item.tags else len(item.types) for item in query.items) > MAX_WALKS


class LargeQuery:
    """The positions that a query with many items matches: once for each matching item, in no order.

    Tags are looked up by index probes: OFFSET 0 keeps the planner from choosing another join.
    """

    def __init__(self, schema: str, query: Query) -> None:
        self._event, self._tag = f"{schema}.event", f"{schema}.tag"
        alone = dict.fromkeys(name for item in query.items if not item.tags for name in item.types)
        single = [item for item in query.items if len(item.tags) == 1]
        several = [item for item in query.items if len(item.tags) > 1]
        self._selects: list[tuple[str, list[Any]]] = []  # each with the values that come before the bounds of the span
        if alone:
            bounds = "t.position > %b AND t.position <= %b"
            walk = f"SELECT t.position FROM {self._event} t WHERE t.type = ANY (%b::text[]) AND {bounds}"
            self._selects.append((walk, [pack_search_texts(list(alone))]))
        by_types: dict[tuple[str, ...], list[Item]] = {}
        for item in single:
            by_types.setdefault(item.types, []).append(item)
        for types in list(by_types)[:MAX_WALKS]:  # most items name the same types, or none
            self._add_single_tag(types, by_types.pop(types))
        if by_types:
            self._add_mixed_types([item for items in by_types.values() for item in items])
        if several:
            self._add_several_tags(several)

    @property
    def sql(self) -> str:
        """One statement for all items."""
        return " UNION ALL ".join(f"({sql})" for sql, _ in self._selects)

    def values(self, after: int, until: int) -> list[Any]:
        """Its values, for the positions in (after, until]."""
        return [value for _, given in self._selects for value in (*given, after, until)]

    def _add_probe(self, of: str, where: str, *values: Any) -> None:
        bounds = "t.position > %b AND t.position <= %b"
        walk = f"SELECT t.position FROM {where} AND {bounds} OFFSET 0"
        self._selects.append((f"SELECT f.position FROM {of} CROSS JOIN LATERAL ({walk}) f", list(values)))

    def _add_single_tag(self, types: tuple[str, ...], items: list[Item]) -> None:
        """Items with one tag that name the same types, or none."""
        tags = pack_search_texts([item.tags[0] for item in items])
        where = f"{self._tag} t WHERE t.tag = u.tag"
        if types:
            self._add_probe(
                "unnest(%b::text[]) u(tag)", f"{where} AND t.type = ANY (%b::text[])", tags, pack_search_texts(types)
            )
        else:
            self._add_probe("unnest(%b::text[]) u(tag)", where, tags)

    def _add_mixed_types(self, items: list[Item]) -> None:
        """Items with one tag and different types."""
        split = "(SELECT string_to_array(u.types, E'\\n') AS types OFFSET 0) k"
        of = f"unnest(%b::text[], %b::text[]) u(tag, types) CROSS JOIN LATERAL {split}"
        where = f"{self._tag} t WHERE t.tag = u.tag AND (u.types = '' OR t.type = ANY (k.types))"
        self._add_probe(
            of, where, pack_search_texts([item.tags[0] for item in items]), _pack_lines([item.types for item in items])
        )

    def _add_several_tags(self, items: list[Item]) -> None:
        """Items with several tags: scan the first one (see `rarest_tag_first`) and probe for the others."""
        split = "(SELECT string_to_array(u.tags, E'\\n') AS tags, string_to_array(u.types, E'\\n') AS types OFFSET 0) k"
        of = f"unnest(%b::text[], %b::text[]) u(tags, types) CROSS JOIN LATERAL {split}"
        where = (
            f"{self._tag} t WHERE t.tag = k.tags[1] AND (u.types = '' OR t.type = ANY (k.types))"
            f" AND cardinality(k.tags) - 1 = (SELECT count((SELECT o.position FROM {self._tag} o WHERE o.tag = g"
            " AND o.position = t.position)) FROM unnest(k.tags[2:]) g)"
        )
        self._add_probe(of, where, _pack_lines(rarest_tag_first(items)), _pack_lines([item.types for item in items]))


def rarest_tag_first(items: Sequence[Item]) -> list[tuple[str, ...]]:
    """The tags of each item, beginning with the one that the fewest items name.

    That is probably the tag of one entity, with few events. To count the events would cost more than it saves.
    """
    asked = Counter(tag for item in items if len(item.tags) > 1 for tag in item.tags)
    return [tuple(sorted(i.tags, key=asked.__getitem__)) if len(i.tags) > 1 else i.tags for i in items]


def _pack_lines(names: list[tuple[str, ...]]) -> Any:
    return pack_search_texts(["\n".join(each) for each in names])
