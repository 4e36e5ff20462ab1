"""Facts about the log that the statuses of several projections share: each is read once, however many they are.

Knows: the engine's calls. Does not know: targets, what a status says.
"""

from __future__ import annotations

from eventfold.core.envelope import StoredEvent
from eventfold.core.json_values import decode
from eventfold.core.query import Cursor, Query
from eventfold.errors import CursorMismatch
from eventfold.log.context import Log
from eventfold.log.cursors import verify
from eventfold.ports.messages import Span
from eventfold.ports.target import Checkpoint

RECENT_US = 10_000_000  # µs: the time over which the log's own rate is measured


class LogFacts:
    """The head when it was first asked for, and what was found up to it. Use one for the statuses of one moment."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._head: int | None = None
        self._pace: float | None = None
        self._waiting: dict[tuple[str, int], int] = {}
        self._first: dict[tuple[str, int], StoredEvent | None] = {}
        self._mismatches: dict[tuple[str, int, int, str], CursorMismatch | None] = {}

    async def head(self) -> int:
        """Return the position of the last event. Ask before a checkpoint is read: an append may move both."""
        if self._head is None:
            self._head = (await self._log.engine.head()).position
        return self._head

    async def pace(self, now: int) -> float:
        """Return how many events per second were recorded lately. `now` in µs since 1970 UTC, of the first call."""
        if self._pace is None:
            written = await self.head() - await self._log.engine.position_at(now - RECENT_US)
            self._pace = written * 1e6 / RECENT_US
        return self._pace

    async def waiting(self, query: str, position: int) -> int:
        """Return how many events up to the head come after a position and match a query (the text of a checkpoint)."""
        head = await self.head()
        if position >= head:
            return 0
        key = (query, position)
        if key not in self._waiting:
            self._waiting[key] = await self._log.engine.count(decode(query, Query), position, head)
        return self._waiting[key]

    async def first_waiting(self, query: str, position: int) -> StoredEvent | None:
        """Return the first of these events."""
        key = (query, position)
        if key not in self._first:
            page = await self._log.engine.read(decode(query, Query), Span(after=position, limit=1))
            self._first[key] = page.events[0] if page.events else None
        return self._first[key]

    async def mismatch(self, checkpoint: Checkpoint) -> CursorMismatch | None:
        """Return the error where the checkpoint is of history that the log does not have; None where it is right."""
        key = (checkpoint.store, checkpoint.epoch, checkpoint.position, checkpoint.event_id)
        if key not in self._mismatches:
            try:
                await verify(self._log, Cursor(*key))
                self._mismatches[key] = None
            except CursorMismatch as error:
                self._mismatches[key] = error
        return self._mismatches[key]
