"""Room: the whole file compared with itself: what reads cannot notice, since an index that hides an event is silent.

Knows: everything that is written twice: events and the indexes that lead to them, tags in rows and in the tag index,
names and their numbers, append boundaries, times in order. Does not know: how to mend any of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import apsw
import msgspec

from eventfold.engines.sqlite import schema
from eventfold.engines.sqlite.names import Names
from eventfold.engines.sqlite.read import Rows
from eventfold.errors import EventfoldError
from eventfold.record import Stored

STEP = 1_000  # events between two reports of progress, each step in a snapshot of its own
MOST_STRUCTURAL = 100  # complaints of SQLite itself: beyond these a list says no more

Progress = Callable[[int, int], None]


class Problem(msgspec.Struct, frozen=True):
    """Something that is not as it was written: `what` in one sentence, `position` of the event where there is one."""

    what: str
    position: int | None = None


def problems(connection: apsw.Connection, progress: Progress) -> Iterator[Problem]:
    """Everything that is wrong up to the head of now. `progress` is told how many events of how many are compared."""
    head: int = connection.execute("SELECT ifnull(max(position), 0) FROM event").get
    yield from _structure(connection)
    tagged = 0
    last: Stored | None = None
    with_names = _Comparison(connection)
    for first in range(1, head + 1, STEP):
        until = min(first + STEP - 1, head)
        for position in range(first, until + 1):
            try:
                event = with_names.rows.at(connection, position)
                if event is None:
                    yield Problem("There is no event at this position.", position)
                    continue
                yield from _place(last, event)
                yield from with_names.index(event)
            except (EventfoldError, UnicodeDecodeError) as error:
                yield Problem(getattr(error, "what", str(error)), position)
                event = None
            last = event
            tagged += 0 if event is None else len(event.tag_set)
        progress(until, head)
    found: int = connection.execute("SELECT count(*) FROM tagged WHERE position <= ?", (head,)).get
    if found != tagged:
        yield Problem(f"The tag index has {found} entries, and the events carry {tagged} tags.")
    yield from _requests(connection, head)


def _structure(connection: apsw.Connection) -> Iterator[Problem]:
    """Pages, order of keys, each row in each of SQLite's own indexes."""
    try:
        for (text,) in connection.execute(f"PRAGMA integrity_check({MOST_STRUCTURAL})"):
            if text != "ok":
                yield Problem(f"SQLite: {text}.")
    except (apsw.Error, UnicodeDecodeError) as error:
        yield Problem(f"SQLite: {error}.")


def _place(before: Stored | None, event: Stored) -> Iterator[Problem]:
    """An event against the one before it: whole appends one after the other, and time that never steps back."""
    if before is not None:
        if event.time < before.time:
            yield Problem("It was recorded earlier than the event before it.", event.position)
        if event.first != before.first and event.position != before.last + 1:
            yield Problem(f"The append that begins at {before.first} is not whole.", event.position)
    if not event.first <= event.position <= event.last:
        yield Problem("It lies outside the append it was part of.", event.position)


class _Comparison:
    """Events against the tag index and the dictionaries."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._types, self._tags = Names("type"), Names("tag")
        self.rows = Rows(self._types)

    def index(self, event: Stored) -> Iterator[Problem]:
        type_id = self._types.id(self._connection, event.type)
        for tag in event.tag_set:
            number = self._tags.id(self._connection, tag)
            if number is None:
                yield Problem(f"Its tag {tag!r} is in no dictionary.", event.position)
                continue
            found = self._connection.execute(schema.TYPES_AT, (number, event.position)).fetchall()
            if found != [(type_id,)]:
                yield Problem(f"The tag index does not lead to it by {tag!r}.", event.position)


def _requests(connection: apsw.Connection, head: int) -> Iterator[Problem]:
    sql = """SELECT r.key, r.first FROM request r LEFT JOIN event e ON e.position = r.first
        WHERE r.first <= ? AND (e.position IS NULL OR ifnull(e."offset", 0) <> 0)"""
    for key, first in connection.execute(sql, (head,)):
        yield Problem(f"The request key {key!r} leads to no beginning of an append.", first)
