"""Room: rows as events, verified: the checksum that was written with each, and no position left out.

Knows: what a row holds. Does not know: queries, connections. PostgreSQL's own data checksums are off by default before
version 18, and no checksum of pages notices what a superuser does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from zlib import crc32

import msgspec

from eventfold.errors import CorruptEvent
from eventfold.record import NewEvent, Stored

_packed = msgspec.msgpack.Encoder().encode
_SIGN = 1 << 31


def _signed(crc: int) -> int:
    return (crc ^ _SIGN) - _SIGN


def crc_of_new(event: NewEvent, tags: str) -> int:
    """CRC-32 of what the writer chose, as a signed integer; `tags` joined by newlines."""
    chosen = (event.id, event.type, event.version, event.data, tags)
    return _signed(crc32(_packed((*chosen, event.occurred, event.metadata, event.codec, event.key))))


def crc_of(event: Stored) -> int:
    """The same of an event that stands in a log."""
    chosen = (event.id, event.type, event.version, event.data, event.tags)
    return _signed(crc32(_packed((*chosen, event.occurred, event.metadata, event.codec, event.key))))


def verified(rows: Iterable[Sequence[Any]]) -> list[Stored]:
    """Rows of COLUMNS as events. Raises CorruptEvent, naming the position."""
    events: list[Stored] = []
    add, packed = events.append, _packed
    for position, id, type, version, data, tags, time, occurred, metadata, offset, size, codec, key, crc in rows:
        if crc32(packed((id, type, version, data, tags, occurred, metadata, codec, key))) != crc & 0xFFFFFFFF:
            raise CorruptEvent(
                f"Event {position} does not have the checksum it was written with: bytes of it have changed.",
                "Keep a copy of the database as it is, check the server's disk, and restore a backup.",
                position=position,
            )
        add(Stored(position, id, type, version, data, tags, time, occurred, metadata, offset, size, codec, key))
    return events


def first_missing(events: Sequence[Stored], low: int, high: int) -> int | None:
    """The first position in [low, high] that no event stands at, in a page of everything (in either direction)."""
    if len(events) == high - low + 1:
        return None
    there = {event.position for event in events}
    return next(position for position in range(low, high + 1) if position not in there)


def missing(position: int) -> CorruptEvent:
    """The error for a position that must be in the log and is not."""
    return CorruptEvent(
        f"Event {position} is not at its place in the log, and no sealed range holds it.",
        "Keep a copy of the database as it is, check the server's disk, and restore a backup.",
        position=position,
    )
