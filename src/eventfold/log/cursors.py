"""Positions and cursors that a caller gives, verified against this log.

Knows: which events a log has. Does not know: what is read or appended there.
"""

from __future__ import annotations

from typing import Any

from eventfold.core.query import Cursor
from eventfold.errors import CursorMismatch, InvalidQuery
from eventfold.log.context import Log
from eventfold.ports.refusals import beyond_head

LAST_POSITION = 2**63 - 1  # that any log could have


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


async def position_of(log: Log, cursor: Cursor) -> int:
    """The position of a cursor, verified against this store. Raises CursorMismatch."""
    await verify(log, cursor)
    return cursor.position


async def known_position(log: Log, given: Any) -> int:
    """A position that was given by a caller, if the log has come to it; 0 is before the first event.

    Raises PositionBeyondHead, InvalidQuery on what is none.
    """
    position = check_position(given)
    if position < 0:
        raise InvalidQuery(f"{position} is no position.", "Positions are counted from 1; 0 is before the first event.")
    if position and (position > LAST_POSITION or await log.engine.event_id(position) is None):
        raise beyond_head(position, (await log.engine.head()).position)
    return position


def check_position(given: Any) -> int:
    """What was given as a position, if it is one: easily a receipt or an event is given instead."""
    if not isinstance(given, int) or isinstance(given, bool):
        raise InvalidQuery(
            f"{given!r} is no position.", "Give a number, such as receipt.last or recorded.position, or a Cursor."
        )
    return given
