"""Stored tags whose moment is written in another time zone than UTC, by older versions or in hand-written events.

A query for a moment must match them too. Knows: the tag table, through which position each tag key was examined. Does
not know: connections, pages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from eventfold.core.query import Query, with_spellings
from eventfold.core.tags import in_utc, is_moment

Variants = dict[str, dict[str, None]]
RunQuery = Callable[[str, list[Any]], Awaitable[list[tuple[Any, ...]]]]


class MomentVariants:
    """The variants of each moment, by tag key: reads all tags of a key once, and then those of new events."""

    def __init__(self, schema: str) -> None:
        self._keys: dict[str, tuple[int, Variants]] = {}
        head = f"(SELECT coalesce(max(position), 0) AS head FROM {schema}.event) h"  # noqa: S608 (quoted)
        other = "t.tag NOT LIKE '%%+00:00'"
        self._first = (
            f"SELECT h.head, f.tag FROM {head} LEFT JOIN (SELECT DISTINCT t.tag FROM {schema}.tag t"  # noqa: S608
            f" WHERE t.tag >= %b AND t.tag < %b AND {other}) f ON true"
        )
        self._next = (
            f"SELECT h.head, f.tag FROM {head} LEFT JOIN (SELECT DISTINCT t.tag FROM {schema}.event e"  # noqa: S608
            " CROSS JOIN LATERAL unnest(string_to_array(e.tags, E'\\n')) t(tag)"
            f" WHERE e.position > %b AND strpos(e.tags, %b) > 0 AND starts_with(t.tag, %b) AND {other}) f ON true"
        )

    def clear(self) -> None:
        """Forget the variants: in another epoch, their events may be lost."""
        self._keys = {}

    async def expand(self, query: Query, seen: int, ask: RunQuery) -> Query:
        """The query with every variant of its moments that is stored, at least up to the position `seen`."""
        others: Variants = {}
        moments = {tag for item in query.items for tag in item.tags if is_moment(tag)}
        for key in {tag[: tag.index(":") + 1] for tag in moments}:
            through, known = self._keys.get(key, (-1, Variants()))
            if through < seen or through < 0:
                values = [key, key[:-1] + ";"] if through < 0 else [through, key, key]
                rows = await ask(self._first if through < 0 else self._next, values)
                known = {utc: dict(tags) for utc, tags in known.items()}
                for _, tag in rows:
                    if tag is not None and is_moment(tag):
                        known.setdefault(in_utc(tag), {})[tag] = None
                self._keys[key] = (rows[0][0], known)
            others |= known
        return with_spellings(query, lambda tag: others.get(tag, ()))
