"""Following a log: reading what is there, then what is appended, with a cursor that is verified at every page.

A follower is caught up when its last page reached the head of the log as it was when the page was read.
Knows: engines' pages, cursors. Does not know: how a caller waits for more events (`concurrency` does).
"""

from __future__ import annotations

from typing import Any

from eventfold.core.envelope import StoredEvent
from eventfold.core.event import Recorded
from eventfold.core.query import Cursor, Query
from eventfold.log.append import query_of
from eventfold.log.context import Log
from eventfold.log.cursors import cursor_after, cursor_at, verify
from eventfold.log.read import PAGE, decoder_for
from eventfold.ports.messages import Page, Span

START = Cursor("", 0, 0, "")


class LogFollower:
    """The progress of one follower. `await next_page()` returns new events, or [] when it is caught up."""

    def __init__(self, log: Log, query: Query, after: int | Cursor | str, raw: bool = False) -> None:
        self._log, self._query = log, query_of(query)
        self._after = Cursor.parse(after) if isinstance(after, str) else after
        self._records = decoder_for(log, raw)
        self.cursor = START
        self.caught_up = False
        self.passed: list[StoredEvent] = []  # the stored events of the last page

    def resume(self, cursor: Cursor) -> None:
        """Begin at this cursor, if nothing has been read yet."""
        if self.cursor is START:
            self._after = cursor

    async def next_page(self) -> list[Recorded[Any]]:
        """Return the next matching events; [] if there are none now. The cursor passes events that do not match."""
        if self.cursor is START:
            after = self._after
            self.cursor = after if isinstance(after, Cursor) else await cursor_after(self._log, after)
        self.passed = []
        while True:
            epoch = self._log.engine.epoch
            await verify(self._log, self.cursor)
            page = await self._log.engine.read(self._query, Span(after=self.cursor.position, limit=PAGE))
            through = await self._through(page)
            if self._log.engine.epoch != epoch:
                continue  # the cursor was verified in another epoch than the page was read in
            events = list(self._records(page.events))
            self.passed += page.events
            self.cursor = through
            self.caught_up = not page.more
            if events or self.caught_up:
                return events

    async def _through(self, page: Page) -> Cursor:
        if page.scanned < self.cursor.position:
            await verify(self._log, self.cursor)
        if page.events and page.events[-1].position == page.scanned:
            last = page.events[-1]
            return Cursor(self._log.engine.store_id, self._log.engine.epoch, last.position, last.id.hex())
        if page.scanned <= self.cursor.position:
            return self.cursor
        return await cursor_at(self._log, page.scanned)

    def cursor_of(self, recorded: Recorded[Any]) -> Cursor:
        """Return the cursor after handling everything up to this event, inclusive."""
        engine = self._log.engine
        return Cursor(engine.store_id, engine.epoch, recorded.position, recorded.stored.id.hex())
