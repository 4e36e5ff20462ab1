"""Room: following: catch up, then live, with one cursor that is verified at every page.

Knows: what "caught up" means: the last page was the end of the log as it was when asked for.
Does not know: how a caller waits until there may be more (`concurrency` does).
"""

from __future__ import annotations

from typing import Any

from eventfold.core.envelope import StoredEvent
from eventfold.core.event import Recorded
from eventfold.core.query import Cursor, Query
from eventfold.errors import CursorMismatch
from eventfold.log.append import check_position, known_position, query_of
from eventfold.log.context import Log
from eventfold.log.read import PAGE, decoder_for
from eventfold.ports.engine import Page, Span

START = Cursor("", 0, 0, "")


async def verify(log: Log, cursor: Cursor) -> None:
    """Refuse a cursor of another store, or of history this store does not have. Raises CursorMismatch."""
    engine = log.engine
    if cursor.store and cursor.store != engine.store_id:
        raise CursorMismatch(
            f"The cursor belongs to store {cursor.store[:8]}…, and this is store {engine.store_id[:8]}….",
            "Open the store it was kept for, or start again from the beginning (after=0).",
            cursor_store=cursor.store,
            store=engine.store_id,
        )
    if cursor.position == 0:
        return
    found = await engine.event_id(cursor.position)
    if found is None or (cursor.event_id and found.hex() != cursor.event_id):
        what = "has no event there any more" if found is None else "has another event there now"
        raise CursorMismatch(
            f"The cursor stands at position {cursor.position}, and this store {what}: it was restored or replaced.",
            "What was read after the restored point is not in this log; rebuild whatever was fed by it from after=0.",
            position=cursor.position,
            expected=cursor.event_id,
            found=found.hex() if found else None,
        )


async def cursor_at(log: Log, position: int) -> Cursor:
    """A verified cursor at a position of this store. Raises CursorMismatch if it is in the future."""
    found = await log.engine.event_id(check_position(position)) if position else None
    if position and found is None:
        raise CursorMismatch(
            f"Position {position} is in the future of this store.",
            "Follow after a position it has given.",
            position=position,
        )
    return Cursor(log.engine.store_id, log.engine.epoch, position, found.hex() if found else "")


async def cursor_after(log: Log, given: int) -> Cursor:
    """A cursor at a position that a caller gave. Raises PositionBeyondHead, InvalidQuery."""
    return await cursor_at(log, await known_position(log, given))


class Following:
    """One follower's progress: `await next_page()` gives new events, or [] when caught up."""

    def __init__(self, log: Log, query: Query, after: int | Cursor | str, raw: bool = False) -> None:
        self._log, self._query = log, query_of(query)
        self._after = Cursor.parse(after) if isinstance(after, str) else after
        self._records = decoder_for(log, raw)
        self.cursor = START
        self.caught_up = False
        self.passed: list[StoredEvent] = []  # what the last page was made of

    def resume(self, cursor: Cursor) -> None:
        """Begin at this cursor, if it has not begun."""
        if self.cursor is START:
            self._after = cursor

    async def next_page(self) -> list[Recorded[Any]]:
        """The next matching events; [] when there are none now. Moves the cursor past what does not match."""
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
                continue  # what was verified is not what was read
            events = self._records(page.events)
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
        """The cursor of someone who has handled everything up to and including this event."""
        engine = self._log.engine
        return Cursor(engine.store_id, engine.epoch, recorded.position, recorded.stored.id.hex())
