"""The tables of a store file, the triggers that make the log append-only, and the row that identifies the store.

Knows: SQL, the checksum of a row, the store's id, epoch and time of creation. Does not know: events, files.
`event_id` finds repeated appends. The index tables `tag`, `run` and `posting` are derived from the events' rows and
written later, in the order of their keys (merge.py, compaction.py); `indexed` says through which position they are
complete. A posting has the type of each event, so that a condition is checked in the index alone; the events of a type
are the posting of a negative tag.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple
from zlib import crc32

import apsw
import msgspec

from eventfold.engines.sqlite.errors import inconsistency_error, index_error
from eventfold.errors import StoreDamaged

APPLICATION_ID = 0x65666C64  # "efld": identifies a store file
LAYOUT = 5  # PRAGMA user_version; a newer file is refused, an older one is upgraded by a command (upgrade.py)
OLDEST_LAYOUT = 1  # the oldest layout that can be upgraded

_TABLES = """
CREATE TABLE store (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    created INTEGER NOT NULL,    -- µs since 1970 UTC
    crc INTEGER NOT NULL         -- of id, epoch and created, as in event
) STRICT;

CREATE TABLE event (
    position INTEGER PRIMARY KEY,
    id BLOB NOT NULL,
    type INTEGER NOT NULL,
    version INTEGER NOT NULL,
    data BLOB NOT NULL,
    tags TEXT NOT NULL,          -- joined by newlines: a row can be read, and the index rebuilt, from itself
    time INTEGER NOT NULL,       -- µs since 1970 UTC
    occurred INTEGER,
    metadata BLOB,
    "offset" INTEGER,            -- the append boundary; both NULL for an append of one event
    size INTEGER,
    format TEXT,                  -- NULL: json
    key TEXT,                    -- id of the key the payload is encrypted with
    crc INTEGER NOT NULL         -- CRC-32 of the columns above, as a MessagePack array
) STRICT;
CREATE UNIQUE INDEX event_id ON event (id);

CREATE TABLE type (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE request (
    key TEXT PRIMARY KEY,
    first INTEGER NOT NULL,
    crc INTEGER NOT NULL         -- of key and first, as in event
) STRICT, WITHOUT ROWID;
CREATE TABLE sealed (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, digest TEXT NOT NULL) STRICT;

-- INSERT OR REPLACE deletes rows without firing a delete trigger, so inserts are guarded as well.
CREATE TRIGGER event_in_order BEFORE INSERT ON event
WHEN NEW.position IS NOT (SELECT ifnull(max(position), 0) + 1 FROM event)
    OR EXISTS (SELECT 1 FROM event WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'eventfold: known event or position'); END;
CREATE TRIGGER event_no_update BEFORE UPDATE ON event
BEGIN SELECT RAISE(ABORT, 'eventfold: the log is append-only'); END;
"""

# The dictionary of tags. Their ids are those of postings.
_TAG = """
CREATE TABLE tag (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
"""
# The index of tags and types, in runs: one for each stretch of the log, sorted by tag (runs.py, postings.py).
_RUN_TABLES = """
CREATE TABLE run (
    start INTEGER NOT NULL,      -- the position before its first event
    id INTEGER NOT NULL UNIQUE,
    "end" INTEGER NOT NULL,      -- that of its last
    state INTEGER NOT NULL,      -- 0: being written, 1: complete, 2: replaced by a larger one, and being deleted
    crc INTEGER NOT NULL,        -- of id, start, end and state, as in event
    PRIMARY KEY (start, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE posting (
    run INTEGER NOT NULL,
    tag INTEGER NOT NULL,        -- an id of `tag`, or -type for the events of a type
    last INTEGER NOT NULL,       -- the last of its positions
    type INTEGER NOT NULL,       -- of all its events; 0: they have several types
    positions BLOB NOT NULL,     -- see postings.py
    crc INTEGER NOT NULL,        -- of tag, last, type and positions, as in event
    PRIMARY KEY (run, tag, last)
) STRICT, WITHOUT ROWID;
"""
# A complete run is not changed: it is only replaced, as a whole, and deleted after that.
RUNS = f"""{_RUN_TABLES}
CREATE TRIGGER run_no_update BEFORE UPDATE ON run
WHEN NEW.start IS NOT OLD.start OR NEW.id IS NOT OLD.id OR NEW."end" IS NOT OLD."end" OR NEW.state < OLD.state
BEGIN SELECT RAISE(ABORT, 'eventfold: a run of the index is not changed'); END;
CREATE TRIGGER run_no_delete BEFORE DELETE ON run WHEN OLD.state = 1
BEGIN SELECT RAISE(ABORT, 'eventfold: a run of the index is not deleted before it is replaced'); END;
CREATE TRIGGER run_no_replace BEFORE INSERT ON run
WHEN EXISTS (SELECT 1 FROM run WHERE id = NEW.id OR (start = NEW.start AND state = 1 AND NEW.state = 1))
BEGIN SELECT RAISE(ABORT, 'eventfold: known run of the index'); END;
CREATE TRIGGER posting_no_update BEFORE UPDATE ON posting
BEGIN SELECT RAISE(ABORT, 'eventfold: a posting of the index is not changed'); END;
CREATE TRIGGER posting_no_delete BEFORE DELETE ON posting
WHEN EXISTS (SELECT 1 FROM run WHERE id = OLD.run AND state = 1)
BEGIN SELECT RAISE(ABORT, 'eventfold: a complete run of the index is not changed'); END;
CREATE TRIGGER posting_no_insert BEFORE INSERT ON posting
WHEN EXISTS (SELECT 1 FROM run WHERE id = NEW.run AND state <> 0)
BEGIN SELECT RAISE(ABORT, 'eventfold: a complete run of the index is not changed'); END;
"""
INDEXED = """
CREATE TABLE indexed (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    through INTEGER NOT NULL,
    crc INTEGER NOT NULL         -- of through, as in event
) STRICT;
"""
# Parts of the index that are not yet in its tables, so that a process need not read their events (saved_segments.py).
SEGMENT = """
CREATE TABLE segment (
    start INTEGER PRIMARY KEY,   -- the position before its first event
    "end" INTEGER NOT NULL,      -- that of its last
    labels BLOB NOT NULL,
    crc INTEGER NOT NULL         -- CRC-32 of the columns above
) STRICT;
"""
# A cache, not part of the log.
SNAPSHOT = """
CREATE TABLE snapshot (
    key TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    position INTEGER NOT NULL,
    event BLOB NOT NULL,
    state BLOB NOT NULL,
    crc INTEGER NOT NULL         -- of the store's id and the columns above, as in event
) STRICT, WITHOUT ROWID;
"""
# Inline read models: a process without their code may not append events of these types.
INLINED = """
CREATE TABLE inlined (
    name TEXT PRIMARY KEY,
    code TEXT NOT NULL,
    types TEXT NOT NULL,         -- joined by newlines
    ticket TEXT NOT NULL,
    crc INTEGER NOT NULL         -- of the columns above, as in event
) STRICT, WITHOUT ROWID;
"""
# No event is deleted until archives exist: `sealed` will list archived ranges, and its triggers will then allow
# inserts.
NO_DELETE = """
CREATE TRIGGER event_no_delete BEFORE DELETE ON event
BEGIN SELECT RAISE(ABORT, 'eventfold: the log is append-only'); END;
CREATE TRIGGER sealed_no_insert BEFORE INSERT ON sealed
BEGIN SELECT RAISE(ABORT, 'eventfold: no event can be moved away yet'); END;
CREATE TRIGGER sealed_no_update BEFORE UPDATE ON sealed
BEGIN SELECT RAISE(ABORT, 'eventfold: no event can be moved away yet'); END;
CREATE TRIGGER sealed_no_delete BEFORE DELETE ON sealed
BEGIN SELECT RAISE(ABORT, 'eventfold: no event can be moved away yet'); END;
"""

# The dictionaries are part of the log: a changed name would change the meaning of events.
_FROZEN = """
CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table}
BEGIN SELECT RAISE(ABORT, 'eventfold: the log is append-only'); END;
CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table}
BEGIN SELECT RAISE(ABORT, 'eventfold: the log is append-only'); END;
"""
_UNIQUE = """
CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table}
WHEN EXISTS (SELECT 1 FROM {table} WHERE {known})
BEGIN SELECT RAISE(ABORT, 'eventfold: known {table}'); END;
"""
_STORE = """
CREATE TRIGGER store_keeps_id BEFORE UPDATE ON store
WHEN NEW.id <> OLD.id AND EXISTS (SELECT 1 FROM event)
BEGIN SELECT RAISE(ABORT, 'eventfold: a store keeps its id'); END;
CREATE TRIGGER store_no_delete BEFORE DELETE ON store
BEGIN SELECT RAISE(ABORT, 'eventfold: a store keeps its id'); END;
"""

_KNOWN_NAME = "id = NEW.id OR name = NEW.name"
CREATE_INDEX = "".join(
    (
        _TAG,
        RUNS,
        INDEXED,
        SEGMENT,
        _FROZEN.format(table="tag"),
        _UNIQUE.format(table="tag", known=_KNOWN_NAME),
    )
)
INDEX_TABLES = ("segment", "indexed", "posting", "run", "tag")
DROP_INDEX = "".join(f"DROP TABLE IF EXISTS {table};" for table in INDEX_TABLES)
CREATE = "".join(
    (
        _TABLES,
        CREATE_INDEX,
        SNAPSHOT,
        INLINED,
        NO_DELETE,
        *(_FROZEN.format(table=table) for table in ("type", "request")),
        _UNIQUE.format(table="type", known=_KNOWN_NAME),
        _UNIQUE.format(table="request", known="key = NEW.key"),
        _UNIQUE.format(table="store", known="1"),
        _STORE,
    )
)

COLUMNS = 'position, id, type, version, data, tags, time, occurred, metadata, "offset", size, format, key, crc'
# An event as it is read: the bytes of its checksum in reverse order, before its key, for row_checksums.py.
_REVERSED_CHECKSUM = "(crc * 256 + (crc & 16711935) * 16776960) % 4294967295"
ROW = (
    'position, id, type, version, data, tags, time, occurred, metadata, "offset", size, format, '
    f"{_REVERSED_CHECKSUM}, key"
)
HEAD = "SELECT position, id, time FROM event ORDER BY position DESC LIMIT 1"
HEAD_AND_EPOCH = (
    "SELECT position, id, (SELECT epoch FROM store WHERE one = 1) FROM event ORDER BY position DESC LIMIT 1"
)
INSERT_EVENT = f"INSERT INTO event ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)"  # noqa: S608
_AFTER_POSITION, _VALUES = COLUMNS.partition(",")[2], ",".join(f"?{n}" for n in range(2, 15))
INSERT_NEXT = f"INSERT INTO event ({_AFTER_POSITION}) VALUES ({_VALUES})"  # noqa: S608 (the same row; SQLite places it)
# Rows of one statement. Fewer statements take a quarter less time for a row, and each releases the interpreter, which
# another thread that never waits then keeps for 5 ms.
_MANY = (1_000, 100, 1)
INSERT_REQUEST = "INSERT INTO request (key, first, crc) VALUES (?,?,?)"
BY_ID = f"SELECT {ROW} FROM event WHERE id = ?"  # noqa: S608
POSITION_OF = "SELECT position FROM event WHERE id = ?"
BY_KEY = "SELECT key, first, crc FROM request WHERE key = ?"
KEYS = "SELECT key, first, crc FROM request WHERE key > ? ORDER BY key LIMIT ?"
BY_POSITION = f"SELECT {ROW} FROM event WHERE position = ?"  # noqa: S608
ID_AT = "SELECT id FROM event WHERE position = ?"
BETWEEN = f"SELECT {ROW} FROM event WHERE position BETWEEN ? AND ? ORDER BY position"  # noqa: S608
THROUGH = "SELECT through, crc FROM indexed"
DEFINITIONS = "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"


encode_row = msgspec.msgpack.Encoder().encode  # a row, for its checksum


def with_checksum(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Append the checksum to a row: the CRC-32 of its columns as a MessagePack array."""
    return (*row, crc32(encode_row(row)))


def insert_events(connection: apsw.Connection, columns: Sequence[Any]) -> None:
    """Insert the rows of events, whose columns are given one after another."""
    insert_many(connection, INSERT_EVENT, 14, columns)


def insert_many(connection: apsw.Connection, insert: str, width: int, columns: Sequence[Any]) -> None:
    """Insert rows of `width` columns, which are given one after another, with few statements."""
    start = 0
    for rows in _MANY:
        size = width * rows
        end = start + (len(columns) - start) // size * size
        parts = [columns[at : at + size] for at in range(start, end, size)]
        if parts:
            connection.executemany(_with_rows(insert, width, rows), parts)
        start = end


@cache
def _with_rows(insert: str, width: int, rows: int) -> str:
    return insert + f",({','.join('?' * width)})" * (rows - 1)


class Identity(NamedTuple):
    """`id` 32 hex digits; `epoch` from 1; `created` µs since 1970 UTC."""

    id: str
    epoch: int
    created: int


def read_identity(connection: apsw.Connection) -> Identity:
    """Read the store's id, epoch and time of creation. Raises StoreDamaged if the row is missing or damaged."""
    row = connection.execute("SELECT id, epoch, created, crc FROM store").fetchone()
    if row is None or with_checksum(row[:-1]) != row:
        raise inconsistency_error("it has lost its id")
    return Identity(*row[:-1])


def create_identity(connection: apsw.Connection) -> None:
    """Assign the store's id and epoch, inside the transaction that creates the store."""
    row = with_checksum((secrets.token_hex(16), 1, time.time_ns() // 1000))
    connection.execute("INSERT INTO store (one, id, epoch, created, crc) VALUES (1, ?, ?, ?, ?)", row)
    write_through(connection, 0)


def read_through(connection: apsw.Connection) -> int:
    """The position through which the index tables are complete. Raises StoreDamaged if the row is damaged."""
    return verify_mark(connection.execute(THROUGH).fetchone())


def verify_mark(row: tuple[Any, ...] | None) -> int:
    """The position of a row of `indexed`, None if there is none. Raises StoreDamaged if the row is damaged."""
    if row is None or with_checksum(row[:-1]) != row:
        raise index_error("the mark of the index does not have its checksum")
    return row[0]


def write_through(connection: apsw.Connection, position: int) -> None:
    """Set that position, inside a transaction of the caller, and drop the saved segments up to it."""
    connection.execute(
        "INSERT OR REPLACE INTO indexed (one, through, crc) VALUES (1, ?, ?)", with_checksum((position,))
    )
    connection.execute("DELETE FROM segment WHERE start < ?", (position,))


def write_identity(connection: apsw.Connection, store_id: str, epoch: int) -> None:
    """Set the store's id and epoch, inside a transaction of the caller."""
    row = with_checksum((store_id, epoch, read_identity(connection).created))
    connection.execute("UPDATE store SET id = ?, epoch = ?, created = ?, crc = ?", row)


@cache
def expected_definitions() -> frozenset[tuple[str, str]]:
    """Name and SQL of each table, index and trigger of eventfold."""
    connection = apsw.Connection(":memory:")
    connection.execute(CREATE)
    return frozenset(connection.execute(DEFINITIONS))


def check_definitions(connection: apsw.Connection, path: str) -> None:
    """Verify that the tables, indexes and triggers of eventfold are unchanged. Additional ones are allowed."""
    lost = expected_definitions().difference(connection.execute(DEFINITIONS))
    if lost:
        names = ", ".join(sorted(name for name, _ in lost))
        raise StoreDamaged(
            f"The definition of {names} in {path} is not the one that eventfold wrote.",
            "Stop writing to it, keep a copy as it is, and restore a backup.",
            path=path,
        )
