"""Verifying positions and cursors that a caller passes against the log.

Knows: which events a log has. Does not know: what is read or appended there.
"""

from __future__ import annotations

from datetime import date
from typing import Any

from eventfold.core.query import Cursor
from eventfold.errors import CursorMismatch, InvalidQuery
from eventfold.log.context import Log
from eventfold.ports.refusals import beyond_head

LAST_POSITION = 2**63 - 1  # the greatest position that a log can have


async def verify(log: Log, cursor: Cursor) -> None:
    """Raise CursorMismatch if a cursor is of another store, or of history that this store does not have."""
    engine = log.engine
    if cursor.store and cursor.store != engine.store_id:
        raise CursorMismatch(
            f"The cursor belongs to store {cursor.store[:8]}…, and this is store {engine.store_id[:8]}….",
            "Open the store that it was taken from, or start again from the beginning (after=0).",
            cursor_store=cursor.store,
            store=engine.store_id,
        )
    if cursor.position == 0:
        return
    event_id = await engine.event_id(cursor.position)
    if event_id is None or (cursor.event_id and event_id.hex() != cursor.event_id):
        what = "has no event there any more" if event_id is None else "has another event there now"
        raise CursorMismatch(
            f"The cursor is at position {cursor.position}, and this store {what}: it was restored or replaced.",
            "Events that were read after the restored point are not in this log: rebuild what was made of them, from "
            "after=0.",
            position=cursor.position,
            expected=cursor.event_id,
            found=event_id.hex() if event_id else None,
        )


async def cursor_at(log: Log, position: int) -> Cursor:
    """Return a verified cursor at a position of this store. Raises CursorMismatch if it is beyond the head."""
    event_id = await log.engine.event_id(check_position(position)) if position else None
    if position and event_id is None:
        raise CursorMismatch(
            f"Position {position} is beyond the end of this store's log.",
            "Use a position that this store returned.",
            position=position,
        )
    return Cursor(log.engine.store_id, log.engine.epoch, position, event_id.hex() if event_id else "")


async def cursor_after(log: Log, position: int) -> Cursor:
    """Return a cursor at a position that a caller passed. Raises PositionBeyondHead, InvalidQuery."""
    return await cursor_at(log, await known_position(log, position))


async def position_of(log: Log, cursor: Cursor) -> int:
    """Return the position of a cursor after verifying it against this store. Raises CursorMismatch, InvalidQuery."""
    if not isinstance(cursor, Cursor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidQuery(f"{cursor!r} is no cursor.", "Give a Cursor or its text, as store.cursor() returns it.")
    await verify(log, cursor)
    return cursor.position


async def known_position(log: Log, position: Any, parameter: str = "") -> int:
    """Return a position that a caller passed, if it is not beyond the head; 0 is before the first event.

    Raises PositionBeyondHead, or InvalidQuery if it is not a position. `parameter`: its name, for the message.
    """
    position = check_position(position, parameter)
    if position < 0:
        raise InvalidQuery(f"{position} is no position.", "Positions are counted from 1; 0 is before the first event.")
    if position and (position > LAST_POSITION or await log.engine.event_id(position) is None):
        raise beyond_head(position, (await log.engine.head()).position)
    return position


def check_position(position: Any, parameter: str = "") -> int:
    """Return `position` if it is a number. Raises InvalidQuery otherwise: often a receipt or an event is passed.

    `parameter`: its name, for the message.
    """
    if not isinstance(position, int) or isinstance(position, bool):
        shown = f"{parameter}={position!r}" if parameter else repr(position)
        if isinstance(position, date):
            raise InvalidQuery(
                f"{shown} is a moment, where a position is expected.",
                "Give a number, such as receipt.last or recorded.position; moments are taken by since= and until= of "
                "read, at= of state and view, and the bounds of counts.",
            )
        raise InvalidQuery(
            f"{shown} is no position.", "Give a number, such as receipt.last or recorded.position, or a Cursor."
        )
    return position
