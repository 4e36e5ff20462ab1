"""Which types, tags and keys of tags a filter may mean: those of a log, or those that a caller may see.

Knows: the engine's look-ups. Does not know: clauses, events.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Protocol

from eventfold.core.tags import tag_key
from eventfold.ports.engine import Engine

MAX_KEYS = 1_000  # keys of tags from which the nearest is chosen


class Names(Protocol):
    """The names in a log, each list in code point order."""

    async def types(self) -> list[str]:
        """Return every type."""
        ...

    async def tags(self, prefix: str, limit: int) -> list[str]:
        """Return up to `limit` tags that start with `prefix`."""
        ...

    async def tag_keys(self, prefix: str, limit: int) -> list[str]:
        """Return up to `limit` keys of tags that start with `prefix`: `account:`, or a tag without a colon."""
        ...


class EngineNames:
    """The names in the log of an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def types(self) -> list[str]:
        """See Names."""
        return [each.type for each in await self._engine.types()]

    async def tags(self, prefix: str, limit: int) -> list[str]:
        """See Names."""
        lookups = self._engine.services.lookups
        if lookups is not None:
            return await lookups.tag_names(prefix, limit)
        return [each.tag for each in await self._engine.tags(prefix, limit)]

    async def tag_keys(self, prefix: str, limit: int) -> list[str]:
        """See Names. Without the service `lookups`: of the first 1,000 tags."""
        lookups = self._engine.services.lookups
        if lookups is not None:
            return await lookups.tag_keys(prefix, limit)
        found = await self._engine.tags(prefix)
        return list(dict.fromkeys(tag_key(each.tag) for each in found))[:limit]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The most similar of some names, ignoring case; None if none is similar."""
    by_folded = {each.casefold(): each for each in known}
    found = difflib.get_close_matches(name.casefold()[:100], list(by_folded), 1)
    return by_folded[found[0]] if found else None
