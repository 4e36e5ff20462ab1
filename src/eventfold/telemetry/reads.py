"""Reads with spans: an engine whose every page has one, and an engine that counts what is read.

Knows: the engine's `read`. Does not know: what is read for.
"""

from __future__ import annotations

from collections.abc import Callable

from eventfold.core.query import Query
from eventfold.ports.engine import Engine
from eventfold.ports.messages import Page, Span
from eventfold.ports.wrapping import Wrapping
from eventfold.telemetry.spans import EVENTS, SCANNED, OpenSpan


class TracedReads(Wrapping):
    """An engine that makes a span of each page. `begin` begins it, and returns None while nothing is traced."""

    def __init__(self, engine: Engine, begin: Callable[[], OpenSpan | None]) -> None:
        super().__init__(engine)
        self._begin = begin

    async def read(self, query: Query, span: Span) -> Page:
        """See Engine.read."""
        reading = self._begin()
        if reading is None:
            return await self.inner.read(query, span)
        with reading:
            page = await self.inner.read(query, span)
            reading.set({EVENTS: len(page.events), SCANNED: page.scanned})
            return page


class ReadTally(Wrapping):
    """An engine that counts: `events` that were read, and `scanned`, the position up to which the log was read."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.events = self.scanned = 0

    async def read(self, query: Query, span: Span) -> Page:
        """See Engine.read."""
        page = await self.inner.read(query, span)
        self.events += len(page.events)
        self.scanned = max(self.scanned, page.scanned)
        return page
