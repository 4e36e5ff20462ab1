"""Compares the whole file with itself, to find damage that reads cannot detect: an index entry that hides an event.

Each read verifies the checksum of every row, and compares every row that an index finds with the query. An index
entry that changed and leads nowhere is not detected so: queries by tag or type, counts, conditions and the look-up
of repeated ids miss its event until this check. Even this check does not find a request key or a whole append that
is gone from every place at once; a removed end of the log is detected by the note in the lock file.

Knows: all redundant data: events and their indexes, tags in rows and in the tag index, names and ids, append
boundaries, order of times. Does not know: how to
repair damage (reindex.py rebuilds the index).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

import apsw

from eventfold.core.envelope import StoredEvent
from eventfold.engines.sqlite import saved_segments, schema
from eventfold.engines.sqlite.dictionary import NameDictionary
from eventfold.engines.sqlite.inline import read_registrations
from eventfold.engines.sqlite.read import RowDecoder
from eventfold.engines.sqlite.schema import read_through, with_checksum
from eventfold.engines.sqlite.snapshots import damaged_keys
from eventfold.errors import EventfoldError
from eventfold.ports.integrity import Problem, Progress, placement_problems

EVENTS_PER_STEP = 1_000  # each step has a snapshot of its own and reports progress
MAX_SQLITE_PROBLEMS = 100  # reported by SQLite's own check

REQUEST_KEYS = """SELECT CAST(r.key AS BLOB), r.first, r.crc, e.position, ifnull(e."offset", 0)
    FROM request r LEFT JOIN event e ON e.position = r.first"""


ENTRIES_OF_TAIL = "SELECT tag, position FROM tagged WHERE position > ? AND position <= ? ORDER BY position"
OTHER_TABLES = ("event", "type", "request", "store", "snapshot", "inlined", "sealed")
RunRead = Callable[[Callable[[apsw.Connection], list[Problem]]], list[Problem]]


class IndexProblem(Problem, frozen=True):
    """A difference of the index, which can be rebuilt from the events."""


def find_problems(reading: RunRead, progress: Progress, store_id: str, path: str) -> Iterator[Problem]:
    """Yield all problems up to the current head. `progress` is called with the events compared and their total.

    `reading` runs one step with a connection, which is borrowed for that step only. The last one names the remedy if
    only the index differs.
    """
    are_of_index: set[bool] = set()
    for problem in _find_problems(reading, progress, store_id):
        are_of_index.add(isinstance(problem, IndexProblem))
        yield Problem(problem.what, problem.position)
    if are_of_index == {True}:
        command = f"eventfold reindex {shlex.quote(path)}"
        yield Problem(
            f"Only the index differs from the events: stop everything that uses the store, then run {command}."
        )


def _find_problems(reading: RunRead, progress: Progress, store_id: str) -> Iterator[Problem]:
    whole = _Comparison(store_id)
    yield from reading(whole.begin)
    for first in range(1, whole.head + 1, EVENTS_PER_STEP):
        until = min(first + EVENTS_PER_STEP - 1, whole.head)
        yield from reading(lambda connection, span=range(first, until + 1): whole.compare(connection, span))
        progress(until, whole.head)
    yield from reading(whole.end)


def _check_structure(connection: apsw.Connection) -> Iterator[Problem]:
    """Run SQLite's own check: pages, order of keys, each row in each index."""
    found: list[str] = []
    try:
        found += [text for (text,) in connection.execute(f"PRAGMA integrity_check({MAX_SQLITE_PROBLEMS})")]
    except (apsw.Error, UnicodeDecodeError) as error:
        found.append(str(error))
    if found != ["ok"]:
        kind = IndexProblem if all(_is_intact(connection, table) for table in OTHER_TABLES) else Problem
        yield from (kind(f"SQLite: {text}.") for text in found if text != "ok")


def _is_intact(connection: apsw.Connection, table: str) -> bool:
    try:
        return connection.execute(f"PRAGMA integrity_check({table})").fetchall() == [("ok",)]
    except (apsw.Error, UnicodeDecodeError):
        return False


def _sentence(error: Exception) -> str:
    return error.what if isinstance(error, EventfoldError) else f"It cannot be read: {error}."


class _Comparison:
    """Compares events with the tag index and the dictionaries, step by step."""

    def __init__(self, store_id: str) -> None:
        self._store_id = store_id
        self._types, self._tags = NameDictionary("type"), NameDictionary("tag")
        self._rows = RowDecoder(self._types)
        self._last: StoredEvent | None = None
        self._entries = 0  # found of events
        self._is_readable = True  # whether SQLite could read the index so far
        self._through = 0  # the index tables are complete through this position
        self._before = (range(0), self._last, self._entries, self._is_readable)  # the last step, and what was known
        self.head = 0

    def begin(self, connection: apsw.Connection) -> list[Problem]:
        """Read the head, and run SQLite's own check."""
        self.head = connection.execute("SELECT ifnull(max(position), 0) FROM event").get
        found = list(_check_structure(connection))
        try:
            self._through = read_through(connection)
        except (EventfoldError, apsw.Error) as error:
            found.append(IndexProblem(f"The mark of the index: {_sentence(error)}"))
        return found

    def compare(self, connection: apsw.Connection, span: range) -> list[Problem]:
        """Compare the events at these positions. A step may be repeated: a checkpoint may disturb a read."""
        if span != self._before[0]:
            self._before = (span, self._last, self._entries, self._is_readable)
        _, self._last, self._entries, self._is_readable = self._before
        found: list[Problem] = []
        for position in span:
            before, self._last = self._last, None
            try:
                event = self._rows.event_at(connection, position)
                if event is None:
                    found.append(Problem("There is no event at this position.", position))
                    continue
                found += placement_problems(before, event)
                type_id = self._types.id(connection, event.type)
                self._last = event
            except (EventfoldError, apsw.Error, UnicodeDecodeError) as error:
                found.append(Problem(_sentence(error), position))
                continue
            try:
                if self._is_readable:
                    found += self._check_index(connection, event, type_id)
            except (EventfoldError, UnicodeDecodeError) as error:
                found.append(IndexProblem(_sentence(error), position))
            except apsw.Error as error:
                self._is_readable = False
                found.append(IndexProblem(f"The index cannot be read from here on: {error}.", position))
        return found

    def _check_index(self, connection: apsw.Connection, event: StoredEvent, type_id: int | None) -> Iterator[Problem]:
        """Up to the mark an event has its entries; behind it a merge may have begun to write them."""
        is_indexed = event.position <= self._through
        entries = connection.execute(schema.TYPES_AT, (-(type_id or 0), event.position)).fetchall()
        if entries != [(type_id,)] and (is_indexed or entries):
            yield IndexProblem("The index of types does not lead to it.", event.position)
        self._entries += len(entries) * is_indexed
        for tag in event.tag_set:
            number = self._tags.id(connection, tag)
            if number is None:
                if is_indexed:
                    yield IndexProblem(f"Its tag {tag!r} is in no dictionary.", event.position)
                continue
            entries = connection.execute(schema.TYPES_AT, (number, event.position)).fetchall()
            self._entries += len(entries) * is_indexed
            if entries != [(type_id,)] and (is_indexed or entries):
                yield IndexProblem(f"The tag index does not lead to it by {tag!r}.", event.position)

    def end(self, connection: apsw.Connection) -> list[Problem]:
        """Check what events do not refer to: request keys, snapshots, registrations, surplus index entries."""
        found: list[Problem] = []
        for raw, first, crc, position, offset in connection.execute(REQUEST_KEYS):
            key = raw.decode("utf-8", "replace")
            if with_checksum((key, first))[-1] != crc:
                found.append(Problem(f"The request key {key!r} does not have its checksum."))
            elif first <= self.head and (position is None or offset):
                found.append(Problem(f"The request key {key!r} leads to no beginning of an append.", first))
        found += [
            Problem(f"The snapshot of {key} does not have its checksum.")
            for key in damaged_keys(connection, self._store_id)
        ]
        try:
            read_registrations(connection)
        except (EventfoldError, UnicodeDecodeError) as error:
            found.append(Problem(_sentence(error)))
        try:
            surplus = self._count_surplus(connection) if self._is_readable else 0
        except apsw.Error as error:
            return [*found, IndexProblem(f"The index cannot be read: {error}.")]
        if surplus > 0:
            found.append(IndexProblem(f"The index has {surplus} entries that no event has."))
        try:
            return [*found, *self._check_segments(connection)]
        except (apsw.Error, UnicodeDecodeError) as error:
            return [*found, IndexProblem(f"The saved segments of the index cannot be read: {error}.")]

    def _check_segments(self, connection: apsw.Connection) -> Iterator[Problem]:
        """Compare the saved segments with the events."""
        for start, end, segment in saved_segments.decode_all(connection):
            if segment is None or end > self.head:
                yield IndexProblem(f"The saved segment of the index after position {start} is damaged.")
                continue
            try:
                events = self._rows.between(connection, start, end)
            except (EventfoldError, UnicodeDecodeError):
                continue  # `compare` has reported it
            labels = segment.events(start, end)
            for event, (position, type, tags) in zip(events, labels, strict=True):
                if event.type != type or set(event.tag_set) != set(tags):
                    yield IndexProblem("The saved segment of the index has another type, or other tags.", position)

    def _count_surplus(self, connection: apsw.Connection) -> int:
        surplus = connection.execute("SELECT count(*) FROM tagged WHERE position <= ?", (self._through,)).get
        return surplus + self._count_surplus_of_tail(connection) - self._entries

    def _count_surplus_of_tail(self, connection: apsw.Connection) -> int:
        """How many entries behind the mark no event has. Merges may have added entries since `compare`."""
        surplus = 0
        event: StoredEvent | None = None
        for tag, position in connection.execute(ENTRIES_OF_TAIL, (self._through, self.head)):
            if event is None or event.position != position:
                try:
                    event = self._rows.event_at(connection, position)
                except (EventfoldError, UnicodeDecodeError):
                    continue  # `compare` has reported it
            try:
                is_known = event is not None and (
                    self._types.id(connection, event.type) == -tag
                    if tag < 0
                    else self._tags.name(connection, tag) in event.tag_set
                )
            except (EventfoldError, UnicodeDecodeError):
                is_known = False
            surplus += not is_known
        return surplus
