"""Upgrades a store file of an older layout: one step from each layout to the next, all in one transaction.

No step rewrites an event: existing rows keep their bytes and checksums. During an upgrade no other process has the file
open: SQLite's exclusive lock ensures it, which every open store prevents.
Knows: what each layout changed; the lock, the copy and the checks of an upgrade. Does not know: how a store is opened.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable

import apsw

from eventfold.engines.sqlite import runs
from eventfold.engines.sqlite.backup import backup
from eventfold.engines.sqlite.errors import connect, inconsistency_error, refuse_full_disk
from eventfold.engines.sqlite.file import File
from eventfold.engines.sqlite.schema import (
    APPLICATION_ID,
    HEAD,
    INDEXED,
    INLINED,
    LAYOUT,
    NO_DELETE,
    OLDEST_LAYOUT,
    RUNS,
    SEGMENT,
    SNAPSHOT,
    check_definitions,
    read_identity,
    read_through,
    with_checksum,
)
from eventfold.errors import NotAStore, StoreBusy, StoreVersionMismatch
from eventfold.ports.services import UpgradeResult

MAX_COPY_NAMES = 1_000  # names tried for the copy


def _upgrade_to_2(connection: apsw.Connection) -> None:
    """Add checksums to snapshots and registrations, and triggers to `sealed`. Snapshots are dropped: a cache."""
    rows = connection.execute("SELECT name, code, types, ticket FROM inlined").fetchall()
    connection.execute("DROP TABLE snapshot; DROP TABLE inlined; DROP TRIGGER event_no_delete")
    connection.execute(SNAPSHOT + INLINED + NO_DELETE)
    connection.executemany(
        "INSERT INTO inlined (name, code, types, ticket, crc) VALUES (?,?,?,?,?)", map(with_checksum, rows)
    )


def _upgrade_to_3(connection: apsw.Connection) -> None:
    """Move the index of types into the table `tagged`, and add the mark through which the index tables are complete.

    A column of `event` gets another name, which rewrites no row: processes of older layouts that have the file open, or
    had closed it while idle, name it in each INSERT, so that SQLite refuses what they append.
    """
    connection.execute("ALTER TABLE event RENAME COLUMN codec TO encoding")
    connection.execute("DROP INDEX event_type")
    connection.execute(
        "INSERT INTO tagged (tag, position, type) SELECT -type, position, type FROM event ORDER BY type DESC, position"
    )
    connection.execute(INDEXED)
    through: int = connection.execute("SELECT ifnull(max(position), 0) FROM event").get
    connection.execute("INSERT INTO indexed (one, through, crc) VALUES (1, ?, ?)", with_checksum((through,)))


def _upgrade_to_4(connection: apsw.Connection) -> None:
    """Add the table of saved segments."""
    connection.execute(SEGMENT)


def _upgrade_to_5(connection: apsw.Connection) -> None:
    """Write the index of tags and types as a run of postings, and drop the table that had a row for each entry.

    A column of `event` gets another name again: see the step to 3.
    """
    connection.execute("ALTER TABLE event RENAME COLUMN encoding TO format")
    connection.execute(RUNS)
    through = read_through(connection)  # entries behind the mark are of a merge that has not ended
    if through:
        entries = "SELECT tag, position, type FROM tagged WHERE position <= ? ORDER BY tag, position"
        runs.write_run(connection, 0, through, connection.execute(entries, (through,)))
    connection.execute("DROP TABLE tagged")


# From layout n to n + 1. A step that is no longer the last needs its own copy of the definitions that it creates.
STEPS: dict[int, Callable[[apsw.Connection], None]] = {
    1: _upgrade_to_2,
    2: _upgrade_to_3,
    3: _upgrade_to_4,
    4: _upgrade_to_5,
}


def upgrade(file: File, timeout: float, copy: str | None, copies: bool) -> UpgradeResult:
    """Upgrade the file to the current layout; a file of the current layout is not touched.

    `copy`: where a copy is written first; None: beside the store, unless `copies` is false. Raises StoreNotFound,
    NotAStore, StoreVersionMismatch, StoreDamaged, StoreBusy: the file is then unchanged.
    """
    file.check_path(create=False)
    try:
        file.acquire_guard()
        return _upgrade(file, timeout, copy, copies)
    finally:
        file.guard.release()


def _upgrade(file: File, timeout: float, copy: str | None, copies: bool) -> UpgradeResult:
    connection = connect(file.real_path, flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(int(timeout * 1000))
        had = read_layout(connection, file.path)
        if had == LAYOUT:
            return UpgradeResult(had, LAYOUT)
        file.lock.acquire()
        file.guard.write_entry_mark()
        try:
            lock_exclusively(connection, file.path, "upgrade")
            had = read_layout(connection, file.path)
            kept = (copy or _free_path(f"{file.path}.layout-{had}")) if copies and had < LAYOUT else None
            if kept is not None:
                backup(connection, kept)
            try:
                _run_steps(connection, had, file.path)
            except apsw.Error as error:
                refuse_full_disk(error, connection, file.path, "upgrade")
                raise
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        finally:
            connection.close()  # before the lock is released: only then may others open the file
            file.lock.release()
    finally:
        connection.close()
        file.lock.close()
    return UpgradeResult(had, LAYOUT, kept)


def read_layout(connection: apsw.Connection, path: str) -> int:
    """Read the file's layout. Raises NotAStore, or StoreVersionMismatch if it cannot be upgraded."""
    application, layout = connection.pragma("application_id"), connection.pragma("user_version")
    if application != APPLICATION_ID or layout < OLDEST_LAYOUT:
        raise NotAStore(f"{path} is not a store of eventfold.", "Check the path.", path=path)
    if layout > LAYOUT:
        raise StoreVersionMismatch(
            f"{path} has layout {layout}, and this version of eventfold supports layouts up to {LAYOUT}.",
            "Upgrade eventfold: pip install -U eventfold.",
            path=path,
            layout=layout,
        )
    return layout


def lock_exclusively(connection: apsw.Connection, path: str, command: str) -> None:
    """Lock the file exclusively, for a command of eventfold. Raises StoreBusy if it is open elsewhere."""
    connection.set_busy_timeout(0)
    connection.pragma("locking_mode", "exclusive")
    connection.pragma("synchronous", "full")
    try:
        connection.execute("BEGIN EXCLUSIVE; COMMIT")
    except (apsw.BusyError, apsw.LockedError) as error:
        raise StoreBusy(
            f"{path} is open in another process, or in another store of this one.",
            "Nothing was changed: stop everything that uses it, then run the command again: "
            f"eventfold {command} {shlex.quote(path)}.",
            path=path,
        ) from error


def _run_steps(connection: apsw.Connection, had: int, path: str) -> None:
    """Run the steps and checks in one transaction. After a failure the file is unchanged."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        before = connection.execute(HEAD).fetchone(), read_identity(connection)
        for layout in range(had, LAYOUT):
            STEPS[layout](connection)
        connection.execute(f"PRAGMA user_version = {LAYOUT}")
        check_definitions(connection, path)
        for table in ("store", "snapshot", "inlined", "sealed", "request"):
            found = connection.execute(f"PRAGMA integrity_check({table})").fetchone()
            if found != ("ok",):
                raise inconsistency_error(f"the table {table} is damaged after the upgrade")
        if (connection.execute(HEAD).fetchone(), read_identity(connection)) != before:
            raise inconsistency_error("the upgrade changed the head of the log or the store's id")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _free_path(path: str) -> str:
    """The first unused path: `path`, or `path` with a number. An interrupted upgrade may have left a copy."""
    for number in range(1, MAX_COPY_NAMES):
        name = path if number == 1 else f"{path}.{number}"
        if not os.path.lexists(name):
            return name
    return f"{path}.{MAX_COPY_NAMES}"
