"""Checksums of events, request keys and snapshots, and the checks that every read makes.

PostgreSQL's own data checksums are off by default before version 18, and no checksum of pages notices what a superuser
changes. Knows: the columns of a row. Does not know: queries, connections.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from operator import gt, lt
from typing import Any
from zlib import crc32

import msgspec

from eventfold.core.envelope import NewEvent, StoredEvent
from eventfold.core.query import Query
from eventfold.core.snapshot import Snapshot
from eventfold.errors import CorruptEvent, StoreDamaged
from eventfold.ports.messages import Span

_pack = msgspec.msgpack.Encoder().encode
_SIGN = 1 << 31
_PRIME = 2**31 - 1  # prime: one changed bit changes a product with any factor below
_A, _B, _C, _D = 1_566_083_941, 1_812_433_253, 1_103_515_245, 1_664_525


def _signed(crc: int) -> int:
    return (crc ^ _SIGN) - _SIGN


def new_event_crc(event: NewEvent, tags: str) -> int:
    """CRC-32 of what the writer chooses, as a signed integer. `tags` are joined by newlines."""
    chosen = (event.id, event.type, event.version, event.data, tags)
    return _signed(crc32(_pack((*chosen, event.occurred, event.metadata, event.codec, event.key))))


def stored_event_crc(event: StoredEvent) -> int:
    """The same for a stored event."""
    chosen = (event.id, event.type, event.version, event.data, event.tags)
    return _signed(crc32(_pack((*chosen, event.occurred, event.metadata, event.codec, event.key))))


def snapshot_crc(store_id: str, key: str, snapshot: Snapshot) -> int:
    """CRC-32 of a snapshot, its key and its store's id, as a signed integer."""
    columns = (snapshot.fingerprint, snapshot.position, snapshot.event_id, snapshot.state)
    return _signed(crc32(_pack((store_id, key, *columns))))


def text_checksum(content: str) -> int:
    """The first 32 bits of a text's SHA-256, signed: what the function `checksum` in sql/guard.sql returns."""
    return int.from_bytes(sha256(content.encode()).digest()[:4], signed=True)


def decode_events(rows: Iterable[Sequence[Any]], unplaced: int) -> list[StoredEvent]:
    """Rows of COLUMNS as events. Raises CorruptEvent for a wrong checksum, with the position.

    `unplaced`: the last event whose checksum does not include its position, time, offset and size (layout 1).
    """
    events: list[StoredEvent] = []
    add, packed = events.append, _pack
    for position, id, type, version, data, tags, time, occurred, metadata, offset, size, codec, key, crc in rows:
        # What the function `placed` in sql/guard.sql returns. Inline, since a call costs more than the arithmetic.
        place = (position * _A + time * _B + offset * _C + size * _D) % _PRIME if position > unplaced else 0
        if crc32(packed((id, type, version, data, tags, occurred, metadata, codec, key))) ^ place != crc & 0xFFFFFFFF:
            raise CorruptEvent(
                f"Event {position} does not have the checksum it was written with: bytes of it have changed.",
                "Keep a copy of the database as it is, check the server's disk, and restore a backup.",
                position=position,
            )
        add(StoredEvent(position, id, type, version, data, tags, time, occurred, metadata, offset, size, codec, key))
    return events


def check_no_gaps(events: Sequence[StoredEvent], span: Span, end: int, more: bool) -> None:
    """A query without items matches every position of the span. Raises CorruptEvent for the first one that is missing.

    `end`: where the span ends. `more`: whether the limit ended the page before that.
    """
    low, high = span.after + 1, end
    if more:
        low, high = (events[-1].position, end) if span.backwards else (low, events[-1].position)
    if low <= high and len(events) != high - low + 1:
        there = {event.position for event in events}
        raise missing_event(next(position for position in range(low, high + 1) if position not in there))


def check_matches_query(events: Sequence[StoredEvent], query: Query, backwards: bool) -> None:
    """An index has no checksum, so its events are compared with the query: all match, each once, in order.

    Raises StoreDamaged.
    """
    places = [event.position for event in events]
    in_order = all(map(gt if backwards else lt, places, places[1:]))
    if not in_order or not query.matches_all([event.type for event in events], [event.tags for event in events]):
        raise StoreDamaged(
            f"An index of the store leads to events that {query!r} does not match.",
            "Keep a copy of the database as it is, check the server's disk, then REINDEX or restore a backup.",
        )


def check_whole_append(events: list[StoredEvent], position: int) -> list[StoredEvent]:
    """The events, if they are all those of the append that wrote `position`. Raises CorruptEvent if one is missing."""
    if not events:
        raise missing_event(position)
    there, expected = [event.position for event in events], range(events[0].first, events[0].last + 1)
    if there != list(expected) or position not in expected:
        raise missing_event(next((place for place in expected if place not in there), position))
    return events


def decode_request_key(row: Sequence[Any]) -> tuple[str, int]:
    """A request key and the first position of its append. Raises StoreDamaged for a wrong checksum."""
    key, first, size, crc = row
    if crc is not None and text_checksum(f"{key}\n{first}\n{size}") != crc:
        raise StoreDamaged(
            f"The request key {key!r} does not have the checksum it was written with.",
            "Keep a copy of the database as it is, check the server's disk, and restore a backup.",
            key=key,
        )
    return key, first


def missing_event(position: int) -> CorruptEvent:
    """The error for a position at or below the head that has no event."""
    return CorruptEvent(
        f"Event {position} is missing from the log.",
        "Keep a copy of the database as it is, check the server's disk, and restore a backup.",
        position=position,
    )


def damaged_snapshot(key: str, where: str) -> StoreDamaged:
    """The error for a snapshot with a wrong checksum. It is not used; the log itself is not affected."""
    return StoreDamaged(
        f"The snapshot of {key} at {where} does not have the checksum it was written with.",
        "Drop the snapshots (eventfold snapshots drop URL), which loses no event, and check the disk.",
        snapshot=key,
    )
