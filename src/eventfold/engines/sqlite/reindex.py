"""Rebuilds the index of a store file, the tables `tag`, `run`, `posting`, `indexed` and
`segment`, from the rows of the events.

All in one transaction, under the exclusive lock of an upgrade. Every event is verified when it is read. Memory is
bounded: the entries are in a temporary table on disk, where SQLite sorts them.
If the file has damaged pages, the old tables are not dropped: pages that they refer to may belong to other tables. They
are only taken out of the schema, and a VACUUM then writes the file without their pages.
Knows: what the index contains. Does not know: what was wrong with the earlier one.
"""

from __future__ import annotations

import shlex
from contextlib import suppress

import apsw

from eventfold.engines.sqlite import runs
from eventfold.engines.sqlite.dictionary import NameDictionary
from eventfold.engines.sqlite.errors import (
    connect,
    inconsistency_error,
    record_errno,
    refuse_full_disk,
    translate_error,
)
from eventfold.engines.sqlite.file import File
from eventfold.engines.sqlite.file_opening import older_layout_error
from eventfold.engines.sqlite.read import RowDecoder
from eventfold.engines.sqlite.schema import (
    CREATE_INDEX,
    DROP_INDEX,
    HEAD,
    INDEX_TABLES,
    LAYOUT,
    check_definitions,
    write_through,
)
from eventfold.engines.sqlite.upgrade import lock_exclusively, read_layout
from eventfold.ports.services import ReindexResult

EVENTS_PER_STEP = 1_000
CACHE_KIB = 64_000  # pages in memory, before they are written to the WAL

_CREATE_ENTRIES = "CREATE TEMP TABLE entry (name TEXT NOT NULL, position INTEGER NOT NULL, type INTEGER NOT NULL)"
_INSERT_ENTRY = "INSERT INTO temp.entry SELECT ?, position, type FROM main.event WHERE position = ?"
# Ids in the order of names: the tables and their indexes then grow in order.
_INSERT_TAGS = "INSERT INTO main.tag (name) SELECT DISTINCT name FROM temp.entry ORDER BY name"
_ENTRIES = """SELECT -type AS tag, position, type FROM main.event
    UNION ALL SELECT t.id, e.position, e.type FROM temp.entry e CROSS JOIN main.tag t ON t.name = e.name
    ORDER BY tag, position"""


def reindex(file: File, timeout: float) -> ReindexResult:
    """Rebuild the index of the file.

    Raises StoreNotFound, NotAStore, StoreVersionMismatch, StoreDamaged, CorruptEvent, StoreBusy: the file is then
    unchanged.
    """
    file.check_path(create=False)
    try:
        file.acquire_guard()
        connection = connect(file.real_path, flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.set_busy_timeout(int(timeout * 1000))
            _check_layout(connection, file.path)
            file.lock.acquire()
            file.guard.write_entry_mark()
            try:
                lock_exclusively(connection, file.path, "reindex")
                _check_layout(connection, file.path)  # again: another process may have upgraded it
                connection.pragma("temp_store", "file")
                connection.pragma("cache_size", -CACHE_KIB)
                try:
                    is_intact = _is_intact(connection)
                    done = _rebuild(connection, file.path, drops=is_intact)
                except apsw.Error as error:
                    refuse_full_disk(error, connection, file.path, "reindex")
                    raise
                if not is_intact:
                    _remove_unused_pages(connection, file.path)
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            finally:
                connection.close()  # before the lock is released: only then may others open the file
                file.lock.release()
        finally:
            connection.close()
            file.lock.close()
        return done
    finally:
        file.guard.release()


def _check_layout(connection: apsw.Connection, path: str) -> None:
    if (layout := read_layout(connection, path)) != LAYOUT:
        raise older_layout_error(path, layout)


def _is_intact(connection: apsw.Connection) -> bool:
    """Whether SQLite's own check finds nothing in the whole file."""
    try:
        return connection.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",)
    except (apsw.CorruptError, UnicodeDecodeError):
        return False


def _detach_index(connection: apsw.Connection) -> None:
    """Take the tables of the index out of the schema, without reading or freeing their pages."""
    connection.pragma("writable_schema", "on")
    connection.execute(f"DELETE FROM sqlite_schema WHERE tbl_name IN ({', '.join(map(repr, INDEX_TABLES))})")
    connection.pragma("writable_schema", "reset")


def _remove_unused_pages(connection: apsw.Connection, path: str) -> None:
    """Write the file without the pages of the old index. The new index is committed already."""
    try:
        connection.execute("VACUUM")
    except apsw.Error as error:
        record_errno(error, connection)
        cause = translate_error(error, path)
        raise type(cause)(
            f"The index of {path} was rebuilt, but the pages of the damaged one could not be removed: {cause.what}",
            f"The store can be used; with free space, remove them later: eventfold reindex {shlex.quote(path)}.",
            path=path,
        ) from error
    if not _is_intact(connection):
        raise inconsistency_error("pages of it are damaged that are not of the index, which was rebuilt")


def _rebuild(connection: apsw.Connection, path: str, *, drops: bool) -> ReindexResult:
    """Rebuild the index in one transaction; `drops`: whether the old tables can be dropped."""
    connection.execute(_CREATE_ENTRIES)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if drops:
            connection.execute(DROP_INDEX)
        else:
            _detach_index(connection)
        connection.execute(CREATE_INDEX)
        row = connection.execute(HEAD).fetchone()
        head: int = row[0] if row else 0
        rows = RowDecoder(NameDictionary("type"))
        for first in range(0, head, EVENTS_PER_STEP):
            events = rows.between(connection, first, min(head, first + EVENTS_PER_STEP))
            connection.executemany(_INSERT_ENTRY, [(tag, event.position) for event in events for tag in event.tag_set])
        connection.execute(_INSERT_TAGS)
        if head:
            runs.write_run(connection, 0, head, connection.execute(_ENTRIES))
        write_through(connection, head)
        done = _verify(connection, head, path)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(apsw.Error):  # the earlier error is the one to raise
                connection.execute("ROLLBACK")
        raise
    return done


def _verify(connection: apsw.Connection, head: int, path: str) -> ReindexResult:
    """Compare the new index with the events, within the transaction."""
    check_definitions(connection, path)
    for table in ("event", "type", *INDEX_TABLES):
        if connection.execute(f"PRAGMA integrity_check({table})").fetchone() != ("ok",):
            raise inconsistency_error(f"the table {table} is damaged")
    entries = head + connection.execute("SELECT count(*) FROM temp.entry").get
    found = runs.count_events(connection)
    if found != entries:
        raise inconsistency_error(f"the rebuilt index has {found} entries, and the events need {entries}")
    return ReindexResult(head, connection.execute("SELECT count(*) FROM tag").get, found)
