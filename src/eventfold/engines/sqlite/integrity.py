"""Room: the whole file compared with itself: what reads cannot notice, since an index that hides an event is silent.

Every event that is read has its checksum verified, and every event that an index leads to is compared with what was
asked. An entry that has changed and leads nowhere is not noticed by that: queries by tag or type, counts, conditions
and repeated ids are without its event until this finds it. Not even this finds a request key or a whole append that
has gone from every place at once; a removed end of the log is noticed by the note beside the file.

Knows: everything that is written twice: events and the indexes that lead to them, tags in rows and in the tag index,
names and their numbers, append boundaries, times in order. Does not know: how to mend any of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import apsw

from eventfold.core.envelope import StoredEvent
from eventfold.engines.sqlite import schema
from eventfold.engines.sqlite.dictionary import NameDictionary
from eventfold.engines.sqlite.inline import read_registrations
from eventfold.engines.sqlite.read import RowDecoder
from eventfold.engines.sqlite.schema import with_checksum
from eventfold.engines.sqlite.snapshots import damaged_keys
from eventfold.errors import EventfoldError
from eventfold.ports.integrity import Problem, Progress, placement_problems

EVENTS_PER_STEP = 1_000  # events between two reports of progress, each step in a snapshot of its own
MAX_SQLITE_PROBLEMS = 100  # complaints of SQLite itself: beyond these a list says no more

REQUEST_KEYS = """SELECT CAST(r.key AS BLOB), r.first, r.crc, e.position, ifnull(e."offset", 0)
    FROM request r LEFT JOIN event e ON e.position = r.first"""


RunRead = Callable[[Callable[[apsw.Connection], list[Problem]]], list[Problem]]


def find_problems(reading: RunRead, progress: Progress, store_id: str) -> Iterator[Problem]:
    """Everything that is wrong up to the head of now. `progress` is told how many events of how many are compared.

    `reading` runs a step with a connection, which is held for no longer than the step.
    """
    whole = _Comparison(store_id)
    yield from reading(whole.begin)
    for first in range(1, whole.head + 1, EVENTS_PER_STEP):
        until = min(first + EVENTS_PER_STEP - 1, whole.head)
        yield from reading(lambda connection, span=range(first, until + 1): whole.compare(connection, span))
        progress(until, whole.head)
    yield from reading(whole.end)


def _check_structure(connection: apsw.Connection) -> Iterator[Problem]:
    """Pages, order of keys, each row in each of SQLite's own indexes."""
    try:
        for (text,) in connection.execute(f"PRAGMA integrity_check({MAX_SQLITE_PROBLEMS})"):
            if text != "ok":
                yield Problem(f"SQLite: {text}.")
    except (apsw.Error, UnicodeDecodeError) as error:
        yield Problem(f"SQLite: {error}.")


class _Comparison:
    """Events against the tag index and the dictionaries, step by step."""

    def __init__(self, store_id: str) -> None:
        self._store_id = store_id
        self._types, self._tags = NameDictionary("type"), NameDictionary("tag")
        self._rows = RowDecoder(self._types)
        self._last: StoredEvent | None = None
        self._tagged = 0
        self.head = 0

    def begin(self, connection: apsw.Connection) -> list[Problem]:
        """How far to look, and what SQLite itself finds."""
        self.head = connection.execute("SELECT ifnull(max(position), 0) FROM event").get
        return list(_check_structure(connection))

    def compare(self, connection: apsw.Connection, span: range) -> list[Problem]:
        """The events at these positions."""
        found: list[Problem] = []
        for position in span:
            before, self._last = self._last, None
            try:
                event = self._rows.event_at(connection, position)
                if event is None:
                    found.append(Problem("There is no event at this position.", position))
                    continue
                found += placement_problems(before, event)
                found += self._check_index(connection, event)
                self._last = event
                self._tagged += len(event.tag_set)
            except (EventfoldError, UnicodeDecodeError) as error:
                found.append(Problem(getattr(error, "what", str(error)), position))
        return found

    def _check_index(self, connection: apsw.Connection, event: StoredEvent) -> Iterator[Problem]:
        type_id = self._types.id(connection, event.type)
        for tag in event.tag_set:
            number = self._tags.id(connection, tag)
            if number is None:
                yield Problem(f"Its tag {tag!r} is in no dictionary.", event.position)
                continue
            if connection.execute(schema.TYPES_AT, (number, event.position)).fetchall() != [(type_id,)]:
                yield Problem(f"The tag index does not lead to it by {tag!r}.", event.position)

    def end(self, connection: apsw.Connection) -> list[Problem]:
        """What no event has led to."""
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
            found.append(Problem(getattr(error, "what", str(error))))
        entries: int = connection.execute("SELECT count(*) FROM tagged WHERE position <= ?", (self.head,)).get
        if entries != self._tagged:
            found.append(Problem(f"The tag index has {entries} entries, and the events carry {self._tagged} tags."))
        return found
