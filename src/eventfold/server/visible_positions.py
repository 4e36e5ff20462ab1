"""Positions and cursors for callers that are narrowed: those of events that they may see, never of others.

A position by itself says how many events the log has, and the text of a cursor has the id of the event there.
Knows: the engine's reads. Does not know: HTTP, what an answer contains.
"""

from __future__ import annotations

from uuid import UUID

from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Cursor, Query
from eventfold.errors import CursorMismatch, EventfoldError, EventIdReused, PositionBeyondHead
from eventfold.log.context import Log
from eventfold.log.cursors import LAST_POSITION, cursor_after, position_of
from eventfold.ports.messages import Span
from eventfold.server.scopes import Caller
from eventfold.server.visibility import is_visible


async def last_visible(log: Log, query: Query, until: int | None = None) -> StoredEvent | None:
    """Return the last event up to a position, inclusive, that matches a query that a caller may ask."""
    until = None if until is None else min(until, LAST_POSITION)
    page = await log.engine.read(query, Span(until=until, limit=1, backwards=True))
    return page.events[0] if page.events else None


async def visible_cursor(caller: Caller, log: Log, query: Query, until: int | None = None) -> Cursor:
    """Return the cursor to show to a caller: after `until`, by default the head.

    If the caller is narrowed, it is after the last event up to there that matches `query`; what may follow is the same.
    """
    if not caller.is_narrowed:
        return await cursor_after(log, (await log.engine.head()).position if until is None else until)
    while True:
        epoch = log.engine.epoch
        last = await last_visible(log, query, until)
        if log.engine.epoch == epoch:
            return Cursor(
                log.engine.store_id, epoch, 0 if last is None else last.position, "" if last is None else last.id.hex()
            )


async def verified_position(caller: Caller, log: Log, cursor: Cursor) -> int:
    """Return the position of a cursor that a caller sent. Raises CursorMismatch.

    The cursor of a narrowed caller must name an event that it may see: for any other one the answer is the same.
    """
    if not caller.is_narrowed:
        return await position_of(log, cursor)
    engine = log.engine
    if (cursor.store and cursor.store != engine.store_id) or cursor.position < 0:
        raise _not_known()
    if cursor.position == 0:
        return 0
    if cursor.position > LAST_POSITION:
        raise _not_known()
    page = await engine.read(Query(), Span(after=cursor.position - 1, until=cursor.position, limit=1))
    found = page.events[0] if page.events else None
    if found is None or found.position != cursor.position or found.id.hex() != cursor.event_id:
        raise _not_known()
    if not is_visible(caller, found.type, found.tag_set):
        raise _not_known()
    return cursor.position


async def verified_cursor(caller: Caller, log: Log, cursor: Cursor) -> Cursor:
    """Return a cursor that a caller sent as one of the store's present epoch. Raises CursorMismatch."""
    while True:
        epoch = log.engine.epoch
        position = await verified_position(caller, log, cursor)
        if log.engine.epoch == epoch:
            return Cursor(log.engine.store_id, epoch, position, cursor.event_id)


def hide_facts(caller: Caller, error: EventfoldError) -> EventfoldError:
    """Return an error as a caller may see it: of a narrowed one, without positions and ids of events it may not see."""
    if not caller.is_narrowed:
        return error
    if isinstance(error, PositionBeyondHead):
        return PositionBeyondHead("A position is beyond the end of the log.", "Use a position from an answer.")
    if isinstance(error, CursorMismatch):
        return _not_known()
    if isinstance(error, EventIdReused):
        id = str(error.fields.get("id", ""))
        try:
            shown = f"The event id {UUID(id)}"
        except ValueError:
            shown = "An event id"
        return EventIdReused(
            f"{shown} is in use by another event, or for another content.",
            "Repeat an append unchanged, or give new events new ids.",
        )
    return error


def _not_known() -> CursorMismatch:
    return CursorMismatch(
        "The cursor is not one of this store, of its present history, and within the scope of this credential.",
        "Use a cursor that this server returned, or start again from the beginning (after=0).",
    )
