"""Stores as the logs that writers append to, and the whole log of a store for the checker.

Knows: the public calls of a store, sync and async. Does not know: engines, faults.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import eventfold as ef
from eventfold.core.envelope import NewEvent, Receipt, StoredEvent
from eventfold.core.query import ConditionClause, Query


class AsyncLog:
    """An AsyncStore, as the workload appends to it."""

    def __init__(self, store: ef.AsyncStore) -> None:
        self._store = store

    async def head(self) -> int:
        """Return the newest position."""
        return await self._store.head()

    async def append(self, events: Sequence[NewEvent], unless: Sequence[ConditionClause], key: str | None) -> Receipt:
        """Append encoded events."""
        return await self._store.append_encoded(*events, unless=_pairs(unless), key=key)

    async def read(self, query: Query, after: int, until: int) -> list[str]:
        """Return the ids of the matching events in (after, until]."""
        found = self._store.read(query, after=after, until=until, raw=True)
        return [recorded.id.hex async for recorded in found]


class SyncLog:
    """A Store, called in threads."""

    def __init__(self, store: ef.Store) -> None:
        self._store = store

    async def head(self) -> int:
        """Return the newest position."""
        return await asyncio.to_thread(self._store.head)

    async def append(self, events: Sequence[NewEvent], unless: Sequence[ConditionClause], key: str | None) -> Receipt:
        """Append encoded events."""
        return await asyncio.to_thread(self._store.append_encoded, *events, unless=_pairs(unless), key=key)

    async def read(self, query: Query, after: int, until: int) -> list[str]:
        """Return the ids of the matching events in (after, until]."""

        def read() -> list[str]:
            return [recorded.id.hex for recorded in self._store.read(query, after=after, until=until, raw=True)]

        return await asyncio.to_thread(read)


def _pairs(unless: Sequence[ConditionClause]) -> list[tuple[Query, int]] | None:
    return [(each.query, each.after) for each in unless] or None


def whole_log(store: ef.Store) -> list[StoredEvent]:
    """Return every event, from the beginning to the newest position."""
    return [recorded.stored for recorded in store.read(raw=True)]
