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

import json
import shlex
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import repeat

import apsw

from eventfold.core.envelope import StoredEvent
from eventfold.engines.sqlite import postings, runs, saved_segments
from eventfold.engines.sqlite.dictionary import NameDictionary
from eventfold.engines.sqlite.inline import read_registrations
from eventfold.engines.sqlite.read import RowDecoder
from eventfold.engines.sqlite.schema import read_through, with_checksum
from eventfold.engines.sqlite.snapshots import damaged_keys
from eventfold.errors import EventfoldError
from eventfold.ports.integrity import Problem, Progress, placement_problems

LAST_POSITION = "SELECT ifnull(max(position), 0) FROM event"
EVENTS_PER_STEP = 1_000  # each step has a snapshot of its own and reports progress
MAX_SQLITE_PROBLEMS = 100  # reported by SQLite's own check

REQUEST_KEYS = """SELECT CAST(r.key AS BLOB), r.first, r.crc, e.position, ifnull(e."offset", 0)
    FROM request r LEFT JOIN event e ON e.position = r.first"""


POSTINGS_UP_TO = """SELECT p.tag, p.last, p.type, p.positions, p.crc FROM run r CROSS JOIN posting p ON p.run = r.id
    WHERE r.state = 1 AND r.start < ?"""
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
        self.head = connection.execute(LAST_POSITION).get
        found = list(_check_structure(connection))
        try:
            self._through = read_through(connection)
        except (EventfoldError, apsw.Error) as error:
            found.append(IndexProblem(f"The mark of the index: {_sentence(error)}"))
            return found
        try:
            runs.indexed_through(connection)
        except (EventfoldError, apsw.Error) as error:
            found.append(IndexProblem(_sentence(error)))
        return found

    def compare(self, connection: apsw.Connection, span: range) -> list[Problem]:
        """Compare the events at these positions. A step may be repeated: a checkpoint may disturb a read."""
        if span != self._before[0]:
            self._before = (span, self._last, self._entries, self._is_readable)
        _, self._last, self._entries, self._is_readable = self._before
        found: list[Problem] = []
        indexed: list[tuple[StoredEvent, int]] = []  # events and the ids of their types
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
            if position <= self._through:
                indexed.append((event, type_id or 0))
        if indexed and self._is_readable:
            found += self._check_index(connection, indexed)
        return found

    def _check_index(self, connection: apsw.Connection, events: list[tuple[StoredEvent, int]]) -> Iterator[Problem]:
        """Compare the postings of all tags and types of some events with them. Those behind the mark have none."""
        asked: list[tuple[int, int, int, str | None]] = []  # position, type, tag, and its name
        for event, type_id in events:
            asked.append((event.position, type_id, -type_id, None))
            for tag in event.tag_set:
                try:
                    number = self._tags.id(connection, tag)
                except (EventfoldError, apsw.Error, UnicodeDecodeError) as error:
                    yield IndexProblem(_sentence(error), event.position)
                    continue
                if number is None:
                    yield IndexProblem(f"Its tag {tag!r} is in no dictionary.", event.position)
                else:
                    asked.append((event.position, type_id, number, tag))
        tags = json.dumps(sorted({tag for _, _, tag, _ in asked}))
        first, last = events[0][0].position, events[-1][0].position
        there: dict[tuple[int, int], int] = {}  # tag and position -> type
        try:
            for tag, each in runs.occurrences_of_each(connection, tags, first - 1, last):
                kinds = repeat(each.types) if isinstance(each.types, int) else each.types
                there.update(zip(zip(repeat(tag), each.positions), kinds, strict=False))
        except (EventfoldError, apsw.Error) as error:
            self._is_readable = False
            yield IndexProblem(f"The index cannot be read from here on: {_sentence(error)}", first)
            return
        for position, type_id, tag, name in asked:
            kind = there.get((tag, position))
            self._entries += kind is not None
            if kind != type_id:
                what = "The index of types does not lead to it."
                yield IndexProblem(
                    what if name is None else f"The tag index does not lead to it by {name!r}.", position
                )

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
        except (EventfoldError, apsw.Error) as error:
            return [*found, IndexProblem(f"The index cannot be read: {_sentence(error)}")]
        if surplus > 0:
            found.append(IndexProblem(f"The index has {surplus} entries that no event has."))
        try:
            return [*found, *self._check_segments(connection)]
        except (apsw.Error, UnicodeDecodeError) as error:
            return [*found, IndexProblem(f"The saved segments of the index cannot be read: {error}.")]

    def _check_segments(self, connection: apsw.Connection) -> Iterator[Problem]:
        """Compare the saved segments with the events."""
        for start, end, segment in saved_segments.decode_all(connection):
            if segment is None or end > connection.execute(LAST_POSITION).get:  # also one of events since `begin`
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
        """How many entries up to the mark no event has. Every posting of a complete run is verified."""
        count = 0
        for row in connection.execute(POSTINGS_UP_TO, (self._through,)):
            postings.verify(row)
            if row[1] <= self._through:
                count += postings.count(row[2], row[3])
            else:  # merged since with later events
                positions, _ = postings.unpack(row[1], row[2], row[3])
                count += bisect_right(positions, self._through)
        return count - self._entries
