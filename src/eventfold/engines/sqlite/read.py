"""Rows as events, and pages of events. The checksum of every row is verified when it is read.

Knows: the columns of the tables. Does not know: transactions. Each statement is a snapshot of its own; since positions
only grow, a page is complete up to the head that was read before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from itertools import islice
from operator import gt, itemgetter, lt
from typing import Any, NoReturn
from zlib import crc32

import apsw
import msgspec

from eventfold.core.envelope import StoredEvent, page_length
from eventfold.core.query import Query
from eventfold.engines.sqlite import schema
from eventfold.engines.sqlite.dictionary import NameDictionary
from eventfold.engines.sqlite.errors import inconsistency_error
from eventfold.engines.sqlite.queries import (
    NameLookup,
    PositionQuery,
    compile_query,
    has_many_items,
    page_sql,
    rows_sql,
)
from eventfold.engines.sqlite.queries import find_positions as found_by_many
from eventfold.engines.sqlite.schema import with_checksum
from eventfold.errors import CorruptEvent
from eventfold.ports.messages import PAGE_BYTES, Page, Span

FIRST_FETCH_ROWS = 8  # fetched first, while the size of rows is unknown; an event is below 1 MB
MIN_INT64, MAX_INT64 = -(2**63), 2**63 - 1

_pack = msgspec.msgpack.Encoder().encode
_body, _checksum = itemgetter(slice(0, -1)), itemgetter(-1)


def decode_request_key(row: tuple[Any, ...]) -> tuple[str, int]:
    """The request key and the first position of its append. Raises StoreDamaged if the checksum does not match."""
    if with_checksum(row[:-1]) != row:
        raise inconsistency_error(f"the request key {row[0]!r} does not have the checksum it was written with")
    return row[0], row[1]


class RowDecoder:
    """Decodes rows to events and verifies their checksums."""

    def __init__(self, types: NameDictionary) -> None:
        self._types = types

    def decode_all(self, connection: apsw.Connection, rows: Iterable[tuple[Any, ...]]) -> list[StoredEvent]:
        """Decode all rows. Raises CorruptEvent with the position of a damaged row."""
        try:
            found = list(rows)
        except UnicodeDecodeError as error:
            raise corrupt_error(None) from error
        return self._decode(connection, found, map(_pack, map(_body, found))) if found else []

    def decode_up_to(
        self, connection: apsw.Connection, rows: apsw.Cursor, max_bytes: int
    ) -> tuple[list[StoredEvent], bool]:
        """Rows up to the one with which payloads and metadata reach `most` bytes, and one more; whether there is one.

        Rows are fetched in steps, smaller ones after large rows, to limit memory.
        """
        events, size, step = list[StoredEvent](), 0, FIRST_FETCH_ROWS
        while True:
            try:
                found = list(islice(rows, step))
            except UnicodeDecodeError as error:
                raise corrupt_error(None) from error
            if not found:
                return events, False
            packed = list(map(_pack, map(_body, found)))
            events += self._decode(connection, found, packed)
            size += sum(map(len, packed))
            if size < max_bytes:
                step = max(FIRST_FETCH_ROWS, (max_bytes - size) * len(events) // (2 * size))
            elif (size := page_length(events, len(events), max_bytes)) < len(events):
                rows.close(True)
                del events[size + 1 :]
                return events, True
            else:
                step = 1

    def _decode(
        self, connection: apsw.Connection, found: list[tuple[Any, ...]], packed: Iterable[bytes]
    ) -> list[StoredEvent]:
        # For speed: compare all checksums of the page at once, then unpack each row once.
        if list(map(crc32, packed)) != list(map(_checksum, found)):
            self._raise_corrupt(found)
        known = self._types.names_by_id
        for type in {row[2] for row in found}.difference(known):
            self._types.name(connection, type)
        return [  # positional arguments without a star: half the time
            StoredEvent(p, id, known[type], v, data, tags, time, occurred, meta, at or 0, of or 1, codec or "json", key)
            for p, id, type, v, data, tags, time, occurred, meta, at, of, codec, key, _ in found
        ]

    def _raise_corrupt(self, rows: list[tuple[Any, ...]]) -> NoReturn:
        """Raises CorruptEvent for the first row whose checksum does not match."""
        wrong = next(row for row in rows if crc32(_pack(row[:-1])) != row[-1])
        raise corrupt_error(wrong[0]) if wrong[-1] is not None else missing_error(wrong[0])

    def event_at(self, connection: apsw.Connection, position: int) -> StoredEvent | None:
        """The event at a position, or None."""
        if not 0 < position <= MAX_INT64:
            return None
        found = self.decode_all(connection, connection.execute(schema.BY_POSITION, (position,)))
        return found[0] if found else None

    def append_at(self, connection: apsw.Connection, first: int) -> list[StoredEvent]:
        """All events of the append that begins at a position."""
        event = self.event_at(connection, first)
        if event is None:
            raise missing_error(first)
        if event.size == 1:
            return [event]
        events = self.decode_all(connection, connection.execute(schema.BETWEEN, (first, event.last)))
        if len(events) != event.size:
            there = {each.position for each in events}
            raise missing_error(next(place for place in range(first, event.last + 1) if place not in there))
        return events


def corrupt_error(position: int | None) -> CorruptEvent:
    """The error for a row whose checksum does not match."""
    return CorruptEvent(
        f"Event {position} does not have the checksum it was written with: bytes of it have changed on disk."
        if position is not None
        else "An event has a text that is not valid UTF-8: bytes of it have changed on disk.",
        "Keep a copy of the file as it is, check the disk, and restore a backup.",
        position=position,
    )


def missing_error(position: int) -> CorruptEvent:
    """The error for a position below the head without an event."""
    return CorruptEvent(
        f"Event {position} is missing in the file, which has been damaged.",
        "Keep a copy of the file as it is, check the disk, and restore a backup.",
        position=position,
    )


def read_page(
    connection: apsw.Connection,
    rows: RowDecoder,
    names: tuple[NameDictionary, NameDictionary],
    head: int,
    query: Query,
    span: Span,
) -> Page:
    """Read one page, see the port's `read`. `head` was read before."""
    until = head if span.until is None else min(span.until, head)
    end = span.after + 1 if span.backwards else until
    if until <= span.after:
        return Page([], end, False)
    fetch = partial(_fetch, connection, rows, names, query, span)
    most = PAGE_BYTES if span.limit >= FIRST_FETCH_ROWS else None
    # One additional event shows whether more follow.
    events, full = fetch(span.after, until, span.limit + 1, most)
    size = min(span.limit, len(events) - full)
    _verify_matches(events, query, span, until, len(events) > size)
    if len(events) == size:
        return Page(events, end, False)
    extra = events[size]
    del events[size:]
    edge = events[-1]
    if edge.first == extra.first:  # the page would split an append: add its remaining events
        low, high = (edge.first - 1, edge.position - 1) if span.backwards else (edge.position, edge.last)
        events += fetch(max(low, span.after), min(high, until), edge.size, None)[0]
        edge = events[-1]
    return Page(events, edge.position, True)


def _fetch(
    connection: apsw.Connection,
    rows: RowDecoder,
    names: tuple[NameDictionary, NameDictionary],
    query: Query,
    span: Span,
    after: int,
    until: int,
    limit: int,
    most: int | None,
) -> tuple[list[StoredEvent], bool]:
    """The first matching events in (after, until], in the order of the span; with `most` as in `decode_up_to`."""
    bounds: list[Any] = []
    if occurred := span.occurred_since is not None or span.occurred_until is not None:
        bounds.append(MIN_INT64 if span.occurred_since is None else span.occurred_since)
        bounds.append(MAX_INT64 if span.occurred_until is None else span.occurred_until)
    found: PositionQuery | None = None
    if query.items:
        dictionary = NameLookup(connection, *names)
        query = dictionary.with_all_spellings(query)
        if has_many_items(query):
            places = found_by_many(dictionary, query, after, until, backwards=span.backwards)
            sql, events, full = rows_sql(span.backwards, occurred), list[StoredEvent](), False
            while not full and len(events) < limit and (chunk := list(islice(places, limit - len(events)))):
                cursor = connection.execute(sql, [json.dumps(chunk), *bounds])
                if most is None:
                    events += rows.decode_all(connection, cursor)
                    continue
                events += rows.decode_up_to(
                    connection, cursor, max(1, most - sum(len(event.data) for event in events))
                )[0]
                full = page_length(events, limit, most) < len(events)
            return events, full
        found = compile_query(dictionary, query, after, until)
        if found.is_empty:
            return [], False
    bindings = [after, until] if found is None else found.bindings
    sql = page_sql(found, span.backwards, occurred)
    cursor = connection.execute(sql, [*bindings, *bounds, limit])
    return (rows.decode_all(connection, cursor), False) if most is None else rows.decode_up_to(connection, cursor, most)


def _verify_matches(events: list[StoredEvent], query: Query, span: Span, until: int, more: bool) -> None:
    """An index has no checksum, so the events that it found are compared with the query."""
    if query.items:
        places = [event.position for event in events]
        if not all(map(gt if span.backwards else lt, places, places[1:])) or not _all_match(query, events):
            raise inconsistency_error(f"an index leads to events that do not match {query!r}")
    elif span.occurred_since is None and span.occurred_until is None:
        count = len(events) if more else until - span.after
        low = until - count + 1 if span.backwards else span.after + 1
        if len(events) != count or events[0].position + events[-1].position != 2 * low + count - 1:
            there = {event.position for event in events}
            raise missing_error(next(place for place in range(low, low + count) if place not in there))


def _all_match(query: Query, events: list[StoredEvent]) -> bool:
    return query.matches_all([event.type for event in events], [event.tags for event in events])
