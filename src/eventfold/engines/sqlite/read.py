"""Rows as events, and pages of events. The checksum of every row is verified when it is read.

Knows: the columns of the tables. Does not know: transactions. Each statement is a snapshot of its own; since positions
only grow, a page is complete up to the head that was read before it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import gt, itemgetter, lt
from typing import Any, NamedTuple

import apsw
import msgspec

from eventfold.core.envelope import StoredEvent
from eventfold.core.event_rows import EventRows, Row
from eventfold.core.query import Query
from eventfold.engines.sqlite import schema
from eventfold.engines.sqlite.dictionary import NameDictionary
from eventfold.engines.sqlite.errors import inconsistency_error, index_error
from eventfold.engines.sqlite.queries import NameLookup, find_positions, page_sql, rows_sql
from eventfold.engines.sqlite.row_checksums import has_checksum, have_checksums
from eventfold.engines.sqlite.schema import with_checksum
from eventfold.engines.sqlite.tail import Tail, find_in_tail
from eventfold.errors import CorruptEvent
from eventfold.ports.messages import PAGE_BYTES, Page, Span

FIRST_FETCH_ROWS = 8  # fetched first, while the size of rows is unknown; an event is below 1 MB
FETCH_ROWS = 256  # fetched and verified at once
MIN_INT64, MAX_INT64 = -(2**63), 2**63 - 1

Statement = tuple[str, list[Any]]  # SQL and its bindings

_json = msgspec.json.Encoder().encode
_position, _type_id, _tags = map(itemgetter, (0, 2, 5))


def decode_request_key(row: tuple[Any, ...]) -> tuple[str, int]:
    """The request key and the first position of its append. Raises StoreDamaged if the checksum does not match."""
    if with_checksum(row[:-1]) != row:
        raise inconsistency_error(f"the request key {row[0]!r} does not have the checksum it was written with")
    return row[0], row[1]


class RowDecoder:
    """Decodes rows to events and verifies their checksums."""

    def __init__(self, types: NameDictionary) -> None:
        self._types = types

    def decode_all(self, connection: apsw.Connection, rows: Iterable[Row]) -> list[StoredEvent]:
        """Decode all rows. Raises CorruptEvent with the position of a damaged row."""
        return list(self.events(connection, self.verify_all(rows)))

    def verify_up_to(self, rows: Iterator[Row], max_bytes: int) -> tuple[list[Row], bool]:
        """Rows up to the one with which payloads and metadata reach `most` bytes, and one more; whether there is one.

        Their checksums are verified. Rows are fetched in steps, smaller ones after large rows, to limit memory.
        """
        fetched, step, buffer = list[Row](), FIRST_FETCH_ROWS, bytearray()
        size = 0  # at least that of payloads and metadata
        while True:
            try:
                found = list(islice(rows, step))
            except UnicodeDecodeError as error:
                raise corrupt_error(None) from error
            if not found:
                return fetched, False
            self._verify(found, buffer)
            fetched += found
            size += len(buffer)
            if size >= max_bytes:
                size, length = _page_size(fetched, max_bytes)
                if length < len(fetched):
                    del fetched[length + 1 :]
                    return fetched, True
            # At most so many that they are in the cache of the CPU when they are verified.
            most = (max_bytes - size) * len(fetched) // (2 * size + 1)
            step = max(FIRST_FETCH_ROWS if size < max_bytes else 1, min(FETCH_ROWS, most))

    def verify_all(self, rows: Iterable[Row]) -> list[Row]:
        """All rows. Raises CorruptEvent with the position of one whose checksum does not match."""
        try:
            found = list(rows)
        except UnicodeDecodeError as error:
            raise corrupt_error(None) from error
        self._verify(found, bytearray())
        return found

    def _verify(self, rows: list[Row], buffer: bytearray) -> None:
        """Raises CorruptEvent for the first row whose checksum does not match. `buffer` has the encoded rows then."""
        if have_checksums(rows, buffer):
            return
        for row in rows:
            if not has_checksum(row):
                raise corrupt_error(row[0]) if row[12] is not None else missing_error(row[0])

    def events(self, connection: apsw.Connection, rows: list[Row]) -> EventRows:
        """The events of verified rows."""
        known = self._types.names_by_id
        return EventRows(
            rows, {type: known.get(type) or self._types.name(connection, type) for type in set(map(_type_id, rows))}
        )

    def event_at(self, connection: apsw.Connection, position: int) -> StoredEvent | None:
        """The event at a position, or None."""
        if not 0 < position <= MAX_INT64:
            return None
        found = self.decode_all(connection, connection.execute(schema.BY_POSITION, (position,)))
        return found[0] if found else None

    def between(self, connection: apsw.Connection, after: int, until: int) -> list[StoredEvent]:
        """All events in (after, until], which must be there. Raises CorruptEvent if one is missing."""
        events = self.decode_all(connection, connection.execute(schema.BETWEEN, (after + 1, until)))
        if len(events) != until - after:
            there = {each.position for each in events}
            raise missing_error(next(place for place in range(after + 1, until + 1) if place not in there))
        return events

    def append_at(self, connection: apsw.Connection, first: int) -> list[StoredEvent]:
        """All events of the append that begins at a position."""
        event = self.event_at(connection, first)
        if event is None:
            raise missing_error(first)
        if event.size == 1:
            return [event]
        return self.between(connection, first - 1, event.last)


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


class Names(NamedTuple):
    """The dictionaries and the tail of an engine."""

    types: NameDictionary
    tags: NameDictionary
    tail: Tail

    def lookup(self, connection: apsw.Connection, until: int) -> NameLookup:
        """What a query on events up to `until` (committed) is looked up in."""
        return NameLookup(connection, self.types, self.tags, self.tail.covering(connection, until))


def read_page(connection: apsw.Connection, rows: RowDecoder, names: Names, head: int, query: Query, span: Span) -> Page:
    """Read one page, see the port's `read`. `head` was read before."""
    until = head if span.until is None else min(span.until, head)
    end = span.after + 1 if span.backwards else until
    if until <= span.after:
        return Page([], end, False)
    most = PAGE_BYTES if span.limit >= FIRST_FETCH_ROWS else None
    fetch = _Fetch(connection, rows, names, query, span, until)
    # One additional event shows whether more follow.
    found, full = fetch(span.after, until, span.limit + 1, most)
    size = min(span.limit, len(found) - full)
    events = rows.events(connection, found)
    _verify_matches(events, query, span, until, len(found) > size)
    if not found:
        return Page([], end, False)
    if len(found) == size:
        return Page(events, end, False)
    edge, extra = events[size - 1], events[size]
    del found[size:]
    if edge.first == extra.first:  # the page would split an append: add its remaining events
        low, high = (edge.first - 1, edge.position - 1) if span.backwards else (edge.position, edge.last)
        found += fetch(max(low, span.after), min(high, until), edge.size, None)[0]
        events = rows.events(connection, found)
        edge = events[-1]
    return Page(events, edge.position, True)


class _Fetch:
    """Fetches matching events in the order of a span: from the index tables, and from the tail."""

    def __init__(
        self, connection: apsw.Connection, rows: RowDecoder, names: Names, query: Query, span: Span, until: int
    ) -> None:
        self._connection, self._rows, self._backwards = connection, rows, span.backwards
        self._bounds: list[Any] = []  # of `occurred`
        if span.occurred_since is not None or span.occurred_until is not None:
            self._bounds.append(MIN_INT64 if span.occurred_since is None else span.occurred_since)
            self._bounds.append(MAX_INT64 if span.occurred_until is None else span.occurred_until)
        self._lookup: NameLookup | None = None
        self._query, self._is_single = query, True
        self._adjoining: list[int] = []  # the positions of the statement, if they are a stretch of the log
        if query.items:
            self._lookup = names.lookup(connection, until)
            self._query = self._lookup.with_all_spellings(query)

    def __call__(self, after: int, until: int, limit: int, most: int | None) -> tuple[list[Row], bool]:
        """The rows of the first matching events in (after, until], in the order of the span, verified.

        With `most` as in `verify_up_to`.
        """
        cursors = self._cursors(self._statements(after, until, limit))
        rows = next(cursors, None)
        if rows is None:
            return [], False
        if not self._is_single:
            rows = islice(chain(rows, chain.from_iterable(cursors)), limit)
        try:
            found, is_full = (
                (self._rows.verify_all(rows), False) if most is None else self._rows.verify_up_to(rows, most)
            )
        finally:
            cursors.close()
        if self._adjoining:
            self._check_adjoining(found, is_full)
        return found, is_full

    def _check_adjoining(self, found: list[Row], is_full: bool) -> None:
        """Raises CorruptEvent if an event of a stretch, of which the index has each, is missing."""
        expected = self._adjoining if not is_full else self._adjoining[: len(found)]
        there = list(map(_position, found))
        if there != expected:
            raise missing_error(next((place for place in expected if place not in set(there)), expected[0]))

    def _cursors(self, statements: Iterable[Statement]) -> Generator[Iterator[tuple[Any, ...]], None, None]:
        """Run the statements of the fetch, each when its rows are needed; end it when no more are."""
        for sql, bindings in statements:
            cursor = self._connection.execute(sql, bindings)
            try:
                yield cursor
            finally:
                cursor.close(True)  # an unfinished statement would keep its snapshot

    def _statements(self, after: int, until: int, limit: int) -> Iterable[Statement]:
        """The statements that select the rows. `_is_single`: there is one, which limits them."""
        lookup, query, backwards, bounds = self._lookup, self._query, self._backwards, self._bounds
        self._is_single = lookup is None
        if lookup is None:
            return [(page_sql(backwards, bool(bounds)), [after, until, *bounds, limit])]
        indexed = min(until, lookup.indexed)
        earlier = find_positions(lookup, query, after, indexed, backwards=backwards)
        if indexed >= until:
            return self._at(earlier, limit)
        newest = find_in_tail(lookup.segments, query, after, until, backwards=backwards)
        return self._at(chain(newest, earlier) if backwards else chain(earlier, newest), limit)

    def _at(self, places: Iterator[int], limit: int) -> Iterator[Statement]:
        """Statements for the events at some positions, in their order; more than one if `occurred` excludes some."""
        while chunk := list(islice(places, limit)):
            self._adjoining = []
            if not self._bounds and abs(chunk[-1] - chunk[0]) == len(chunk) - 1:
                # Nearly every event matches a query by type: a scan takes half of the time of as many look-ups.
                self._adjoining = chunk
                low, high = sorted((chunk[0], chunk[-1]))
                yield page_sql(self._backwards, False), [low - 1, high, len(chunk)]
                return  # nothing is excluded, so these are all: if a row is missing, no later one takes its place
            yield rows_sql(bool(self._bounds)), [_json(chunk).decode(), *self._bounds]


def _verify_matches(events: EventRows, query: Query, span: Span, until: int, more: bool) -> None:
    """An index has no checksum, so the events that it found are compared with the query."""
    rows = events.rows
    if query.items:
        places = list(map(_position, rows))
        if not all(map(gt if span.backwards else lt, places, places[1:])) or not _all_match(query, events):
            raise index_error(f"an index leads to events that do not match {query!r}")
    elif span.occurred_since is None and span.occurred_until is None:
        count = len(rows) if more else until - span.after
        low = until - count + 1 if span.backwards else span.after + 1
        if len(rows) != count or rows[0][0] + rows[-1][0] != 2 * low + count - 1:
            there = set(map(_position, rows))
            raise missing_error(next(place for place in range(low, low + count) if place not in there))


def _all_match(query: Query, events: EventRows) -> bool:
    rows, types = events.rows, events.types
    return query.matches_all([types[row[2]] for row in rows], list(map(_tags, rows)))


def _page_size(rows: Sequence[Row], most: int) -> tuple[int, int]:
    """The bytes of payloads and metadata, and how many rows it takes until they reach `most`; all if they do not."""
    size = 0
    for index, row in enumerate(rows):
        size += len(row[4]) + (len(row[8]) if row[8] else 0)
        if size >= most:
            return size, index + 1
    return size, len(rows)
