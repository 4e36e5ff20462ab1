"""Older layouts of a store file, brought to today's: one step from each layout to the next, in one transaction.

No step rewrites an event: rows that were written keep their bytes and their checksums. While an upgrade runs no other
process has the file open: SQLite's own exclusive lock sees to it, which every open store stands against.
Knows: what each layout changed; the lock, the copy and the checks around it. Does not know: how a store is opened.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable

import apsw

from eventfold.engines.sqlite.backup import backup
from eventfold.engines.sqlite.errors import connect, inconsistency_error
from eventfold.engines.sqlite.file import File
from eventfold.engines.sqlite.schema import (
    APPLICATION_ID,
    HEAD,
    INLINED,
    LAYOUT,
    NO_DELETE,
    OLDEST_LAYOUT,
    SNAPSHOT,
    check_definitions,
    read_identity,
    with_checksum,
)
from eventfold.errors import NotAStore, StoreBusy, StoreVersionMismatch
from eventfold.ports.engine import UpgradeResult

MAX_COPY_NAMES = 1_000  # names that are tried for the copy


def _upgrade_to_2(connection: apsw.Connection) -> None:
    """Snapshots and registrations get checksums; `sealed` is guarded. Snapshots are dropped: they cost time only."""
    rows = connection.execute("SELECT name, code, types, ticket FROM inlined").fetchall()
    connection.execute("DROP TABLE snapshot; DROP TABLE inlined; DROP TRIGGER event_no_delete")
    connection.execute(SNAPSHOT + INLINED + NO_DELETE)
    connection.executemany(
        "INSERT INTO inlined (name, code, types, ticket, crc) VALUES (?,?,?,?,?)", map(with_checksum, rows)
    )


# Layout n to n + 1, in order. When a step is no longer the last, it keeps a copy of the definitions that it makes.
STEPS: dict[int, Callable[[apsw.Connection], None]] = {1: _upgrade_to_2}


def upgrade(file: File, timeout: float, copy: str | None, copies: bool) -> UpgradeResult:
    """Bring the file to today's layout; with nothing to do, nothing is touched.

    `copy`: where a copy is written first; None: beside the store, unless `copies` is false. Raises StoreNotFound,
    NotAStore, StoreVersionMismatch, StoreDamaged, StoreBusy: the file is then as it was.
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
        had = _read_layout(connection, file.path)
        if had == LAYOUT:
            return UpgradeResult(had, LAYOUT)
        file.lock.acquire()
        file.guard.write_entry_mark()
        try:
            _lock_exclusively(connection, file.path)
            had = _read_layout(connection, file.path)
            kept = (copy or _free_path(f"{file.path}.layout-{had}")) if copies and had < LAYOUT else None
            if kept is not None:
                backup(connection, kept)
            _run_steps(connection, had, file.path)
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        finally:
            connection.close()  # before the next writer's turn: only then may others come to the file
            file.lock.release()
    finally:
        connection.close()
        file.lock.close()
    return UpgradeResult(had, LAYOUT, kept)


def _read_layout(connection: apsw.Connection, path: str) -> int:
    """The file's layout. Raises NotAStore, StoreVersionMismatch where no step leads from it."""
    application, layout = connection.pragma("application_id"), connection.pragma("user_version")
    if application != APPLICATION_ID or layout < OLDEST_LAYOUT:
        raise NotAStore(f"{path} is no store of eventfold's.", "Check the path.", path=path)
    if layout > LAYOUT:
        raise StoreVersionMismatch(
            f"{path} has layout {layout}, and this eventfold knows layouts up to {LAYOUT}.",
            "Upgrade eventfold: pip install -U eventfold.",
            path=path,
            layout=layout,
        )
    return layout


def _lock_exclusively(connection: apsw.Connection, path: str) -> None:
    """Hold the file from now on, to the exclusion of everyone. Raises StoreBusy if anyone has it open."""
    connection.set_busy_timeout(0)
    connection.pragma("locking_mode", "exclusive")
    connection.pragma("synchronous", "full")
    try:
        connection.execute("BEGIN EXCLUSIVE; COMMIT")
    except (apsw.BusyError, apsw.LockedError) as error:
        raise StoreBusy(
            f"{path} is open in another process, or in another store of this one.",
            "Nothing was changed: stop everything that uses it, then run the command again: "
            f"eventfold upgrade {shlex.quote(path)}.",
            path=path,
        ) from error


def _run_steps(connection: apsw.Connection, had: int, path: str) -> None:
    """The steps and the checks, in one transaction. Whatever fails, the file stays as it was."""
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
                raise inconsistency_error(f"after its upgrade the table {table} is not whole")
        if (connection.execute(HEAD).fetchone(), read_identity(connection)) != before:
            raise inconsistency_error("its upgrade did not keep the log's end and its id")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _free_path(path: str) -> str:
    """The path, or with a number the first at which nothing lies. An upgrade that was interrupted left a copy there."""
    for number in range(1, MAX_COPY_NAMES):
        name = path if number == 1 else f"{path}.{number}"
        if not os.path.lexists(name):
            return name
    return f"{path}.{MAX_COPY_NAMES}"
