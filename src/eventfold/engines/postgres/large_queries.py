"""Queries with many items, as arrays: one statement for any number of them, which the server plans once.

Knows: the tables, queries. Does not know: pages, connections. A query with a few items is asked by statements.py, one
walk for each; so many walks in one statement are more than the server's planner can take.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from eventfold.core.query import Item, Query
from eventfold.engines.postgres.arrays import pack_search_texts

MAX_WALKS = 16  # walks in one statement
MAX_POSITIONS_PER_RANGE = 20_000  # positions looked up for a stretch of the log: one with more is asked for in parts
MIN_RANGE_POSITIONS = 64  # positions: so few are asked for whole, however many items mean the same event


def is_large(query: Query) -> bool:
    """Whether the items of a query are better asked together."""
    if len(query.items) > MAX_WALKS:
        return True
    return sum(1 if item.tags else len(item.types) for item in query.items) > MAX_WALKS


class LargeQuery:
    """What a query with many items asks: `sql` gives a position as often as items mean it, in no order.

    Every walk by tags is a probe of an index: OFFSET 0 keeps the planner from joining the tables in another way.
    """

    def __init__(self, schema: str, query: Query) -> None:
        self._event, self._tag = f"{schema}.event", f"{schema}.tag"
        alone = dict.fromkeys(name for item in query.items if not item.tags for name in item.types)
        single = [item for item in query.items if len(item.tags) == 1]
        several = [item for item in query.items if len(item.tags) > 1]
        self._selects: list[tuple[str, list[Any]]] = []  # with the values before the bounds of the span
        if alone:
            bounds = "t.position > %b AND t.position <= %b"
            walk = f"SELECT t.position FROM {self._event} t WHERE t.type = ANY (%b::text[]) AND {bounds}"
            self._selects.append((walk, [pack_search_texts(list(alone))]))
        by_types: dict[tuple[str, ...], list[Item]] = {}
        for item in single:
            by_types.setdefault(item.types, []).append(item)
        for types in list(by_types)[:MAX_WALKS]:  # most name the same types, or none
            self._add_single_tag(types, by_types.pop(types))
        if by_types:
            self._add_mixed_types([item for items in by_types.values() for item in items])
        if several:
            self._add_several_tags(several)

    @property
    def sql(self) -> str:
        """See the class."""
        return " UNION ALL ".join(f"({sql})" for sql, _ in self._selects)

    def values(self, after: int, until: int) -> list[Any]:
        """What goes into it, for the positions in (after, until]."""
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
        """Items with one tag that name all kinds of types."""
        split = "(SELECT string_to_array(u.types, E'\\n') AS types OFFSET 0) k"
        of = f"unnest(%b::text[], %b::text[]) u(tag, types) CROSS JOIN LATERAL {split}"
        where = f"{self._tag} t WHERE t.tag = u.tag AND (u.types = '' OR t.type = ANY (k.types))"
        self._add_probe(
            of, where, pack_search_texts([item.tags[0] for item in items]), _pack_lines([item.types for item in items])
        )

    def _add_several_tags(self, items: list[Item]) -> None:
        """Items with several tags: walk the first, as `walked_first` puts it, and probe the others."""
        split = "(SELECT string_to_array(u.tags, E'\\n') AS tags, string_to_array(u.types, E'\\n') AS types OFFSET 0) k"
        of = f"unnest(%b::text[], %b::text[]) u(tags, types) CROSS JOIN LATERAL {split}"
        where = (
            f"{self._tag} t WHERE t.tag = k.tags[1] AND (u.types = '' OR t.type = ANY (k.types))"
            f" AND cardinality(k.tags) - 1 = (SELECT count((SELECT o.position FROM {self._tag} o WHERE o.tag = g"
            " AND o.position = t.position)) FROM unnest(k.tags[2:]) g)"
        )
        self._add_probe(of, where, _pack_lines(rarest_tag_first(items)), _pack_lines([item.types for item in items]))


def rarest_tag_first(items: Sequence[Item]) -> list[tuple[str, ...]]:
    """The tags of each item, that first which the fewest items name.

    More likely it is an entity's own than one that many events carry; to count events would cost more than it saves.
    """
    asked = Counter(tag for item in items if len(item.tags) > 1 for tag in item.tags)
    return [tuple(sorted(i.tags, key=asked.__getitem__)) if len(i.tags) > 1 else i.tags for i in items]


def _pack_lines(names: list[tuple[str, ...]]) -> Any:
    return pack_search_texts(["\n".join(each) for each in names])
