"""A store file as a complete copy of a log that is elsewhere: its mark, imports of whole appends, and judging.

The mark says which log it is a copy of. A trigger that belongs to it refuses events of every other program, since the
writer of imports runs without triggers. Nothing is synced for an import: a power failure may undo the last of them, in
whole transactions, and they are imported again.
Knows: rows, the mark. Does not know: where the events come from, transactions and locks (the writer's).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple
from zlib import crc32

import apsw

from eventfold.core.envelope import StoredEvent
from eventfold.engines.sqlite import schema
from eventfold.engines.sqlite.errors import inconsistency_error
from eventfold.engines.sqlite.head import HeadTracker
from eventfold.engines.sqlite.judging import HeadMoved, Judge, Log
from eventfold.engines.sqlite.read import Names, RowDecoder, decode_request_key
from eventfold.engines.sqlite.schema import encode_row, with_checksum
from eventfold.engines.sqlite.tail import Labels
from eventfold.errors import ReplicaMismatch, StoreBusy, StoreDamaged, StoreReadOnly
from eventfold.ports.messages import AppendRequest, Head
from eventfold.ports.refusals import import_gap, not_the_same_key, not_the_same_log
from eventfold.ports.replicas import check_whole_appends, keys_of_repeats
from eventfold.ports.services import Judged, ReplicaOf

MAX_JUDGED_AGAIN = 10  # times that requests are judged because the head moved meanwhile

_CREATE_MARK = """
CREATE TABLE replica (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    address TEXT NOT NULL,       -- of the log, without secrets
    crc INTEGER NOT NULL         -- of address, as in event
) STRICT;
CREATE TRIGGER replica_takes_no_event BEFORE INSERT ON event
BEGIN SELECT RAISE(ABORT, 'eventfold: a copy of a log that is elsewhere takes no event'); END;
CREATE TRIGGER replica_takes_no_key BEFORE INSERT ON request
BEGIN SELECT RAISE(ABORT, 'eventfold: a copy of a log that is elsewhere takes no request key'); END;
"""
_HAS_MARK = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'replica'"
_READ_MARK = "SELECT address, crc FROM replica WHERE one = 1"
_WRITE_MARK = "INSERT OR REPLACE INTO replica (one, address, crc) VALUES (1, ?, ?)"
DROP_MARK = """
DROP TRIGGER IF EXISTS replica_takes_no_event;
DROP TRIGGER IF EXISTS replica_takes_no_key;
DROP TABLE IF EXISTS replica;
"""
_INSERT_REQUEST = "INSERT OR IGNORE INTO request (key, first, crc) VALUES (?,?,?)"
_START = 'SELECT ifnull("offset", 0) FROM event WHERE position = ?'


def read_mark(connection: apsw.Connection) -> str | None:
    """The address of the log of which the file is a copy; None if it is a log itself."""
    if connection.execute(_HAS_MARK).fetchone() is None:
        return None
    row = connection.execute(_READ_MARK).fetchone()
    if row is None or with_checksum(row[:-1]) != row:
        raise inconsistency_error("its mark as a copy of another log does not have its checksum")
    return row[0]


def mark(connection: apsw.Connection, of: ReplicaOf, path: str) -> None:
    """Make the file a copy of a log, in the writer's transaction. A file with events must be one already.

    Raises ReplicaMismatch if it is a copy of another log or epoch, or a log itself.
    """
    address, identity = read_mark(connection), schema.read_identity(connection)
    if connection.execute(schema.HEAD).fetchone() is not None:
        check_mark(address, identity, of, path)
    if address is None:
        connection.execute(_CREATE_MARK)
    if address != of.address:
        connection.execute(_WRITE_MARK, with_checksum((of.address,)))
    if (identity.id, identity.epoch) != (of.store_id, of.epoch):
        schema.write_identity(connection, of.store_id, of.epoch)


def is_copy(connection: apsw.Connection, of: ReplicaOf, path: str) -> bool:
    """Return whether the file is marked as a copy of a log. Raises ReplicaMismatch as `mark` does.

    Other processes may mark it meanwhile, and do so before they import events: hence the events are looked for first.
    """
    has_events = connection.execute(schema.HEAD).fetchone() is not None
    address, identity = read_mark(connection), schema.read_identity(connection)
    if has_events:
        check_mark(address, identity, of, path)
    return address == of.address and (identity.id, identity.epoch) == (of.store_id, of.epoch)


def check_mark(address: str | None, identity: schema.Identity, of: ReplicaOf, path: str) -> None:
    """Raises ReplicaMismatch unless a file with this mark and identity is a copy of that log, in that epoch."""
    remedy = f"Rename {path}, and open the log again: a new copy is made from it."
    if address is None:
        raise ReplicaMismatch(
            f"{path} is a store of its own, not a copy of the log at {of.address}.",
            "Give the copy a path of its own.",
            path=path,
            store=identity.id,
        )
    if identity.id != of.store_id:
        raise ReplicaMismatch(
            f"{path} is a copy of the store {identity.id} at {address}, and the log at {of.address} is the store "
            f"{of.store_id}.",
            remedy,
            path=path,
            store=identity.id,
        )
    if identity.epoch != of.epoch:
        raise ReplicaMismatch(
            f"{path} is a copy of epoch {identity.epoch} of the log at {of.address}, which is now in epoch {of.epoch}: "
            "it was restored or created again, and may have lost events.",
            remedy,
            path=path,
            store=identity.id,
            epoch=identity.epoch,
        )


def copy_refuses(path: str, address: str) -> StoreReadOnly:
    """The error of an append to a file that is a copy of a log."""
    return StoreReadOnly(
        f"{path} is a local copy of the log at {address}, and takes no events of its own.",
        f"Nothing was written: open {address} to append to the log.",
        path=path,
        address=address,
    )


class Imported(NamedTuple):
    """What an import wrote: the new head, the labels of the new events for the tail; `is_new`: whether anything is."""

    head: Head
    labels: Labels
    is_new: bool


class Import:
    """One import, within the writer's transaction on a connection whose triggers do not run."""

    def __init__(self, connection: apsw.Connection, names: Names, rows: RowDecoder, head: Head, path: str) -> None:
        self._connection, self._names, self._rows, self._path = connection, names, rows, path
        self._head = head

    def run(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]]) -> Imported:
        """Write what is not there. See services.Replica.import_events."""
        check_whole_appends(events)
        head, labels = self._head, Labels([], [], [])
        new = self._skip_known(events)
        if new:
            self._insert(new, labels)
            head = Head(new[-1].position, new[-1].time, new[-1].id)
        are_keys_new = bool(keys) and self._insert_keys(keys)
        return Imported(head, labels, bool(new) or are_keys_new)

    def _skip_known(self, events: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
        """The events after the head. Raises ReplicaMismatch if one before it is different here."""
        head = self._head.position
        if not events or events[0].position == head + 1:
            return events
        first = events[0].position
        if first > head + 1:
            raise import_gap(head, first)
        count = min(len(events), head + 1 - first)
        there = self._rows.between(self._connection, first - 1, first - 1 + count)
        for ours, theirs in zip(there, events, strict=False):
            if ours != theirs:
                raise not_the_same_log(theirs.position, self._path)
        return events[count:]

    def _insert(self, events: Sequence[StoredEvent], labels: Labels) -> None:
        try:
            schema.insert_events(self._connection, list(chain.from_iterable(self._rows_of(events, labels))))
        except apsw.ConstraintError as error:
            raise self._repeated_id(events) or error from error

    def _rows_of(self, events: Sequence[StoredEvent], labels: Labels) -> list[tuple[Any, ...]]:
        """The rows of events. Their labels are added."""
        connection, ensure = self._connection, self._names.types.ensure
        types, tag_sets, sizes = labels
        rows: list[tuple[Any, ...]] = []
        last_type, number = "", 0
        for event in events:
            type, data, tags, size = event.type, event.data, event.tags, event.size
            if type != last_type:
                last_type, number = type, ensure(connection, type)
            codec = None if event.codec == "json" else event.codec
            alone = size == 1
            row = (
                event.position, event.id, number, event.version, data, tags, event.time, event.occurred, event.metadata,
                None if alone else event.offset, None if alone else size, codec, event.key,
            )  # fmt: skip
            rows.append((*row, crc32(encode_row(row))))
            types.append(type)
            tag_sets.append(tuple(tags.split("\n")) if tags else ())
            sizes.append(len(data) + len(tags))
        return rows

    def _repeated_id(self, events: Sequence[StoredEvent]) -> StoreDamaged | None:
        """The error if an event has the id of another one, which no log may have."""
        known: dict[bytes, int] = {}
        for event in events:
            row = self._connection.execute(schema.POSITION_OF, (event.id,)).fetchone()
            before = known.setdefault(event.id, event.position if row is None else row[0])
            if before != event.position:
                return StoreDamaged(
                    f"The log has the event id {event.id.hex()} twice, at positions {before} and {event.position}.",
                    "Stop writing to the log, and find out what wrote to it besides eventfold.",
                    path=self._path,
                    position=event.position,
                )
        return None

    def _insert_keys(self, keys: Sequence[tuple[str, int]]) -> bool:
        """Whether any is new. Raises ReplicaMismatch for the key of another append, or of none."""
        connection = self._connection
        for key, first in keys:
            if connection.execute(_START, (first,)).fetchone() != (0,):
                raise not_the_same_key(key, first, self._path)
        before = connection.total_changes()
        connection.executemany(_INSERT_REQUEST, map(with_checksum, keys))
        written = connection.total_changes() - before
        if written < len(keys):
            for key, first in keys:
                row = connection.execute(schema.BY_KEY, (key,)).fetchone()
                if row is None or decode_request_key(row)[1] != first:
                    raise not_the_same_key(key, first, self._path)
        return written > 0


def judge(
    connection: apsw.Connection,
    names: Names,
    rows: RowDecoder,
    tracker: HeadTracker,
    requests: Sequence[AppendRequest],
    now: int,
) -> Judged:
    """Judge requests. See services.Replica.judge. Each statement is a snapshot of its own: nothing waits for it."""
    for _ in range(MAX_JUDGED_AGAIN):
        try:
            return _judge_once(connection, names, rows, tracker, requests, now)
        except HeadMoved:
            continue
    raise StoreBusy(
        f"Events were imported during each of {MAX_JUDGED_AGAIN} attempts to judge an append.", "Append again."
    )


def _judge_once(
    connection: apsw.Connection,
    names: Names,
    rows: RowDecoder,
    tracker: HeadTracker,
    requests: Sequence[AppendRequest],
    now: int,
) -> Judged:
    head = tracker.read_head(connection)
    ids = [(event.id,) for request in requests for event in request.events]
    judging = Judge(
        Log(names, rows, tracker.store_id, tracker.epoch),
        connection,
        head,
        max(now, head.time),
        {},
        is_careful=bool(list(connection.executemany(schema.POSITION_OF, ids))),
        is_alone=len(requests) == 1,
        is_judged_together=any(request.unless for request in requests[1:]),
    )
    types, tag_sets, _ = judging.labels
    verdicts = list[Any]()
    for request in requests:
        verdict = judging.verdict(request)
        verdicts.append(verdict)
        if verdict is None:
            events = request.events
            types += [event.type for event in events]
            tag_sets += [event.tags for event in events]
            judging.accept(request, [event.id for event in events])
    keys = keys_of_repeats(requests, verdicts, judging.keys)
    return Judged(head=head, time=max(now, head.time), verdicts=verdicts, keys=keys)
