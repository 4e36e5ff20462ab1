"""The index of tags and types as sorted runs: each has the postings of one stretch of the log, in the order of tags.

The complete runs adjoin: together they have every event up to the mark `indexed`. A merge writes the run of the newest
events (merge.py), and runs of about one size are replaced by a single one (compaction.py), as in a log-structured merge
tree. Rows are only added at the end of a run, so a page of the index is written once, however large the log is.
A statement sees one state of all runs, and an event that was in a complete run stays in one: so a read may use several
statements, and merges may replace runs between them.
Knows: the tables `run` and `posting`. Does not know: the tail, queries, when runs are merged.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from operator import itemgetter
from typing import Any, NamedTuple

import apsw

from eventfold.engines.sqlite import postings
from eventfold.engines.sqlite.errors import index_error
from eventfold.engines.sqlite.postings import Columns, Types
from eventfold.engines.sqlite.schema import insert_many, verify_mark, with_checksum
from eventfold.engines.sqlite.tail import Stretch

BEING_WRITTEN, COMPLETE, REPLACED = 0, 1, 2  # states of a run
MAX_TOGETHER = 6_000  # entries of a tag, or postings, in memory while a run is written
PROBED_POSTINGS = 8  # of a tag, to find the rarest of several
FOLLOWED_POSTINGS = 8  # are read before a position is looked up
DELETED_AT_ONCE = 4  # postings are deleted in the time that takes to write one

_RUNS = 'SELECT id, start, "end", state, crc FROM run ORDER BY start, id'
_MARK_AND_RUNS = """SELECT i.through, i.crc, r.id, r.start, r."end", r.state, r.crc
    FROM indexed i LEFT JOIN run r ON 1 ORDER BY r.start, r.id"""
_INSERT_RUN = 'INSERT INTO run (id, start, "end", state, crc) VALUES (?,?,?,?,?)'
_SET_STATE = "UPDATE run SET state = ?, crc = ? WHERE start = ? AND id = ?"
_DELETE_RUN = "DELETE FROM run WHERE start = ? AND id = ?"
INSERT_POSTING = "INSERT INTO posting (run, tag, last, type, positions, crc) VALUES (?,?,?,?,?,?)"
WIDTH = 6  # columns of a posting with its run
POSTING_COLUMNS = "tag, last, type, positions, crc"
_COUNT = "SELECT ifnull(sum(max(1, length(positions) / CASE type WHEN 0 THEN 8 ELSE 4 END)), 0) FROM posting"
_KEY_AFTER = "SELECT tag, last FROM posting WHERE run = ? ORDER BY tag, last LIMIT 1 OFFSET ?"

_OF_TAG = f"""SELECT p.tag, p.last, p.type, p.positions, p.crc
    FROM run r CROSS JOIN posting p ON p.run = r.id
    WHERE r.state = {COMPLETE} AND r."end" > ?2 AND r.start < ?3 AND p.tag = ?1 AND p.last > ?2"""
_FORWARDS = f"{_OF_TAG} ORDER BY r.start, r.id, p.last"
_ESTIMATE = f"""SELECT ifnull(sum(max(1, length(positions) / CASE type WHEN 0 THEN 8 ELSE 4 END)), 0)
    FROM ({_OF_TAG} LIMIT {PROBED_POSTINGS})"""
# The posting that has `until` is the first whose last position is not before it.
_BACKWARDS = f"""{_OF_TAG} AND p.last <= ifnull((SELECT q.last FROM posting q
        WHERE q.run = r.id AND q.tag = ?1 AND q.last >= ?3 ORDER BY q.last LIMIT 1), {2**63 - 1})
    ORDER BY r.start DESC, r.id DESC, p.last DESC"""
_OF_TAGS = f"""SELECT p.tag, p.last, p.type, p.positions, p.crc
    FROM json_each(?1) u CROSS JOIN run r CROSS JOIN posting p ON p.run = r.id AND p.tag = u.value
    WHERE r.state = {COMPLETE} AND r."end" > ?2 AND r.start < ?3 AND p.last > ?2 AND p.last <= ifnull(
        (SELECT q.last FROM posting q WHERE q.run = r.id AND q.tag = u.value AND q.last >= ?3 ORDER BY q.last LIMIT 1),
        {2**63 - 1})"""
_LAST = f"SELECT {POSTING_COLUMNS} FROM posting WHERE run = ? ORDER BY tag DESC, last DESC LIMIT 1"
LOWEST = (-(2**63), 0)  # before every key of a posting


class Run(NamedTuple):
    """The index of the events in (start, end]."""

    id: int
    start: int
    end: int
    state: int

    @property
    def events(self) -> int:
        """How many events it has."""
        return self.end - self.start


class Occurrences(NamedTuple):
    """Positions of a tag, in order, and the type of all of them or of each."""

    positions: Sequence[int]
    types: Types


def read_runs(connection: apsw.Connection) -> list[Run]:
    """All runs, in order of their start. Raises StoreDamaged if a row does not have its checksum."""
    return list(map(_verified, connection.execute(_RUNS)))


def _verified(row: tuple[Any, ...]) -> Run:
    if with_checksum(row[:-1]) != row:
        raise index_error(f"the row of run {row[0]} of the index does not have its checksum")
    return Run(*row[:-1])


def complete_runs(connection: apsw.Connection) -> list[Run]:
    """The complete runs, in order. Raises StoreDamaged if one does not begin where the one before ends."""
    return _adjoining(read_runs(connection))


def _adjoining(known: Iterable[Run]) -> list[Run]:
    found = [run for run in known if run.state == COMPLETE]
    end = 0
    for run in found:
        if run.start != end or run.end <= end:
            raise index_error(f"the runs of the index have a gap after position {end}")
        end = run.end
    return found


def indexed_through(connection: apsw.Connection) -> int:
    """The position up to which the index is complete, by its mark.

    Raises StoreDamaged unless the complete runs adjoin and have every event up to there. Mark and runs are read by one
    statement: another process may end a merge at any time.
    """
    rows = connection.execute(_MARK_AND_RUNS).fetchall()
    through = verify_mark(rows[0][:2] if rows else None)
    complete = _adjoining(_verified(row[2:]) for row in rows if row[2] is not None)
    if (complete[-1].end if complete else 0) != through:
        raise index_error(f"the runs of the index do not end at its mark, {through}")
    return through


def add_run(connection: apsw.Connection, start: int, end: int) -> Run:
    """Add a run that is being written, within the caller's transaction."""
    number: int = connection.execute("SELECT ifnull(max(id), 0) + 1 FROM run").get
    run = Run(number, start, end, BEING_WRITTEN)
    connection.execute(_INSERT_RUN, with_checksum(run))
    return run


def set_state(connection: apsw.Connection, run: Run, state: int) -> None:
    """Change the state of a run."""
    changed = run._replace(state=state)
    connection.execute(_SET_STATE, (state, with_checksum(changed)[-1], run.start, run.id))


def insert_postings(connection: apsw.Connection, run: Run, rows: Iterable[Columns]) -> None:
    """Insert postings of a run, in their order."""
    number = (run.id,)
    insert_columns(connection, list(chain.from_iterable([number + row for row in rows])))


def insert_columns(connection: apsw.Connection, columns: Sequence[Any]) -> None:
    """Insert postings: run, tag, last, type, positions and checksum of the first, then those of the next."""
    insert_many(connection, INSERT_POSTING, WIDTH, columns)


def write_run(connection: apsw.Connection, start: int, end: int, entries: Iterable[tuple[int, int, int]]) -> int:
    """Write the complete run of the events in (start, end]. Returns how many entries it has.

    `entries`: tag, position and type, in order. No list of all of them is made.
    """
    run, count, made = add_run(connection, start, end), 0, list[Columns]()
    for tag, of_tag in groupby(entries, itemgetter(0)):
        while part := list(islice(of_tag, MAX_TOGETHER)):
            count += len(part)
            positions, types = [each[1] for each in part], [each[2] for each in part]
            made += postings.pack(tag, positions, types)
        if len(made) > MAX_TOGETHER:
            insert_postings(connection, run, made)
            made.clear()
    insert_postings(connection, run, made)
    set_state(connection, run, COMPLETE)
    return count


def last_key(connection: apsw.Connection, run: Run) -> tuple[int, int] | None:
    """Tag and last position of the last posting of a run; LOWEST if it has none.

    None if it does not have its checksum: what goes on behind it would pass over others.
    """
    row = connection.execute(_LAST, (run.id,)).fetchone()
    if row is None:
        return LOWEST
    return (row[0], row[1]) if postings.is_intact(row) else None


def discard(connection: apsw.Connection, run: Run) -> None:
    """Let compactions delete a run that was not completed."""
    set_state(connection, run, REPLACED)


def count_events(connection: apsw.Connection, run: Run | None = None) -> int:
    """How many entries the postings of a run have, or of all runs: one for each tag, and for the type, of an event."""
    if run is None:
        return connection.execute(_COUNT).get
    return connection.execute(f"{_COUNT} WHERE run = ?", (run.id,)).get


def delete_postings(connection: apsw.Connection, run: Run, most: int) -> int:
    """Delete a run: about so many of its postings, and its row after the last. Returns how many may be left of `most`.

    A deleted posting counts as a part of one that is written.
    """
    row = connection.execute(_KEY_AFTER, (run.id, most * DELETED_AT_ONCE)).fetchone()
    if row is not None:
        connection.execute("DELETE FROM posting WHERE run = ? AND (tag, last) < (?, ?)", (run.id, *row))
        return 0
    connection.execute("DELETE FROM posting WHERE run = ?", (run.id,))
    left = most - connection.changes() // DELETED_AT_ONCE
    connection.execute(_DELETE_RUN, (run.start, run.id))
    return left


def occurrences(
    connection: apsw.Connection, tag: int, after: int, until: int, *, backwards: bool = False
) -> Generator[Occurrences, None, None]:
    """Yield where a tag occurs in (after, until], a posting at a time, in order of the log or from its end.

    Positions of each are ascending. Raises StoreDamaged for a posting without its checksum.
    """
    cursor = connection.execute(_BACKWARDS if backwards else _FORWARDS, (tag, after, until))
    try:
        for row in cursor:
            postings.verify(row)
            found = _within(row, after, until)
            if found.positions:
                yield found
            elif not backwards:
                return
    finally:
        cursor.close(True)  # an unfinished statement would keep its snapshot


def occurrences_of_each(
    connection: apsw.Connection, tags: str, after: int, until: int
) -> Generator[tuple[int, Occurrences], None, None]:
    """Yield where each of many tags, a JSON array, occurs in (after, until], in order of the array and of the log."""
    cursor = connection.execute(_OF_TAGS, (tags, after, until))
    try:
        for row in cursor:
            postings.verify(row)
            found = _within(row, after, until)
            if found.positions:
                yield row[0], found
    finally:
        cursor.close(True)


def stretch(connection: apsw.Connection, tag: int, after: int, until: int) -> Stretch | None:
    """How many events in (after, until] have a tag, the first and the last of them; None if none has."""
    events = first = last = 0
    cursor = connection.execute(_FORWARDS, (tag, after, until))
    try:
        for row in cursor:
            postings.verify(row)
            if first and row[1] <= until:
                events, last = events + postings.count(row[2], row[3]), row[1]
                continue
            positions, _ = _within(row, after, until)
            if not positions:
                break
            first = first or positions[0]
            events, last = events + len(positions), positions[-1]
    finally:
        cursor.close(True)
    return Stretch(events, first, last) if events else None


def _within(row: Columns, after: int, until: int) -> Occurrences:
    """The part of a posting in (after, until]."""
    last = row[1]
    positions, types = postings.unpack(last, row[2], row[3])
    if positions[0] > after and last <= until:
        return Occurrences(positions, types)
    low, high = bisect_right(positions, after), bisect_right(positions, until)
    return Occurrences(positions[low:high], types if isinstance(types, int) else types[low:high])


def estimate_events(connection: apsw.Connection, tag: int, after: int, until: int) -> int:
    """About how many events in (after, until] have a tag, by its first postings."""
    return connection.execute(_ESTIMATE, (tag, after, until)).get


class Membership:
    """Whether a tag occurs at one position after another, best in ascending order: each posting is read once then."""

    def __init__(self, connection: apsw.Connection, tag: int, until: int) -> None:
        self._connection, self._tag, self._until = connection, tag, until
        self._following: Iterator[Occurrences] = iter(())
        # The positions of the tag from `_low` to `_high`.
        self._positions: Sequence[int] = ()
        self._low, self._high = 0, -1

    def __contains__(self, position: int) -> bool:
        if not self._low <= position <= self._high:
            self._go_to(position)
        index = bisect_left(self._positions, position)
        return index < len(self._positions) and self._positions[index] == position

    def _go_to(self, position: int) -> None:
        """Read on to the posting that has the position, a few postings at most; otherwise look it up."""
        steps = FOLLOWED_POSTINGS if position > self._high >= 0 else 0
        while True:
            if not steps:
                self._following = occurrences(self._connection, self._tag, position - 1, self._until)
                self._low = position
            else:
                self._low = self._high + 1
            found = next(self._following, None)
            if found is None:
                self._positions, self._high = (), max(position, self._until)
                return
            self._positions, self._high = found.positions, found.positions[-1]
            if position <= self._high:
                return
            steps -= 1
