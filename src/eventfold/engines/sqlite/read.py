"""Room: rows as events, and pages of them. Every row's checksum is verified as it is read.

Knows: the tables' columns. Does not know: transactions: each statement is its own snapshot, and since positions
only ever grow, the head read before a page is a bound up to which that page is complete.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from zlib import crc32

import apsw

from eventfold.engine import Page, Span
from eventfold.engines.sqlite import schema
from eventfold.engines.sqlite.names import Names
from eventfold.engines.sqlite.queries import Dictionary, Positions, page_sql, positions
from eventfold.errors import CorruptEvent
from eventfold.query import Query
from eventfold.record import Stored

FIRST, LAST = -(2**63), 2**63 - 1


class Rows:
    """Turns rows into events on one connection."""

    def __init__(self, connection: apsw.Connection, types: Names) -> None:
        self._connection, self._types = connection, types

    def stored(self, row: tuple[Any, ...]) -> Stored:
        """One row."""
        return self.all((row,))[0]

    def all(self, rows: Iterable[tuple[Any, ...]]) -> list[Stored]:
        """Rows, verified. Raises CorruptEvent, naming the position."""
        known = self._types.known
        events: list[Stored] = []
        add = events.append
        for position, id, type, version, data, tags, time, occurred, metadata, offset, size, codec, key, crc in rows:
            found = crc32(data, (position ^ time) & 0xFFFFFFFF)
            if tags:
                found = crc32(tags.encode(), found)
            if metadata is not None:
                found = crc32(metadata, found)
            if found != crc:
                raise corrupt(position)
            name = known.get(type) or self._types.name(self._connection, type)
            add(
                Stored(
                    position, id, name, version, data, tags, time, occurred, metadata, offset or 0, size or 1, codec or "json", key
                )
            )
        return events

    def append_at(self, first: int) -> list[Stored]:
        """All events of the append that begins at a position."""
        row = self._connection.execute(f"SELECT {schema.COLUMNS} FROM event WHERE position = ?", (first,)).fetchone()  # noqa: S608
        event = self.stored(row)
        return self.between(first, event.last) if event.size > 1 else [event]

    def between(self, first: int, last: int) -> list[Stored]:
        """All events from `first` to `last`, inclusive."""
        return self.all(
            self._connection.execute(
                f"SELECT {schema.COLUMNS} FROM event WHERE position BETWEEN ? AND ? ORDER BY position",  # noqa: S608
                (first, last),
            )
        )


def corrupt(position: int) -> CorruptEvent:
    """The error for a row whose checksum is not its own."""
    return CorruptEvent(
        f"Event {position} does not have the checksum it was written with: bytes of it have changed on disk.",
        "Keep a copy of the file as it is, check the disk, and restore a backup.",
        position=position,
    )


def head_of(connection: apsw.Connection) -> int:
    """The last position, 0 when there is none."""
    row = connection.execute("SELECT max(position) FROM event").fetchone()
    return row[0] or 0


def read_page(connection: apsw.Connection, types: Names, tags: Names, query: Query, span: Span) -> Page:
    """See the port's `read`."""
    head = head_of(connection)
    until = head if span.until is None else min(span.until, head)
    if until <= span.after:
        return Page([], span.after + 1 if span.backwards else until, False)
    found: Positions | None = None
    if query.items:
        found = positions(Dictionary(connection, types, tags), query, span.after, until)
        if found.nothing:
            return Page([], span.after + 1 if span.backwards else until, False)
    rows = Rows(connection, types)
    # One more than asked for tells whether there is more.
    events = rows.all(_select(connection, found, span, span.after, until, span.limit + 1))
    if len(events) <= span.limit:
        return Page(events, span.after + 1 if span.backwards else until, False)
    extra = events.pop()
    edge = events[-1]
    if edge.first == extra.first:  # the limit would cut an append: take the rest of it along
        low, high = (edge.first - 1, edge.position - 1) if span.backwards else (edge.position, edge.last)
        if query.items:
            found = positions(Dictionary(connection, types, tags), query, low, high)
        events += rows.all(_select(connection, found, span, low, high, edge.size))
        edge = events[-1]
    return Page(events, edge.position, True)


def _select(
    connection: apsw.Connection, found: Positions | None, span: Span, after: int, until: int, limit: int
) -> apsw.Cursor:
    occurred = span.occurred_since is not None or span.occurred_until is not None
    bindings: list[Any] = [after, until] if found is None else list(found.bindings)
    if occurred:
        bindings.append(FIRST if span.occurred_since is None else span.occurred_since)
        bindings.append(LAST if span.occurred_until is None else span.occurred_until)
    bindings.append(limit)
    return connection.execute(page_sql(found, span.backwards, occurred), bindings)
