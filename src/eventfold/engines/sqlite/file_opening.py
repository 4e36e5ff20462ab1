"""Opening of a store file: recognize a store, create one in an empty file, keep the file in WAL mode.

Knows: paths, the layout number, journal modes. Does not know: the life of an open file, events.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat

import apsw

from eventfold.engines.sqlite import open_files
from eventfold.engines.sqlite.connection import set_busy_timeout
from eventfold.engines.sqlite.errors import MAX_PATH_BYTES, translate_errno
from eventfold.engines.sqlite.file_guards import FileGuard
from eventfold.engines.sqlite.schema import APPLICATION_ID, CREATE, LAYOUT, OLDEST_LAYOUT, create_identity
from eventfold.engines.sqlite.writer_lock import WriterLock
from eventfold.errors import NotAStore, StoreClosed, StoreDamaged, StoreNotFound, StoreUnsafe, StoreVersionMismatch

JOURNAL_MODE_TIMEOUT_S = 2.0  # to wait for other programs to close a file whose journal mode must be reset


def check_path(path: str, real_path: str, create: bool) -> bool:
    """Refuse a path where a store cannot exist, or is missing and may not be created. Returns whether one exists.

    `real_path` is the path without links. Raises the errors of `File.open`.
    """
    if len(os.fsencode(real_path)) >= MAX_PATH_BYTES:
        raise translate_errno(errno.ENAMETOOLONG, path)
    try:
        found = os.stat(real_path)
    except FileNotFoundError:
        found = None
    except OSError as error:
        raise translate_errno(error.errno or 0, path) from error
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise translate_errno(errno.EISDIR, path)
    if found is not None and not stat.S_ISREG(found.st_mode):  # opening a pipe would block
        raise NotAStore(f"{path} is a pipe or a device, not a file.", "Give the path of a file.", path=path)
    if found is not None and (found.st_dev, found.st_ino) in open_files.inherited_files:
        raise StoreClosed(
            f"{path} was in use when this process was forked, and SQLite cannot use it in the child.",
            "Fork when no call is in progress, or start processes by spawn.",
            path=path,
        )
    if found is not None:
        return True
    folder = os.path.dirname(real_path)
    if not os.path.isdir(folder):
        raise StoreNotFound(
            f"There is no store at {path}: its folder {folder} does not exist.",
            f"Check the path, or create the folder first: mkdir -p {shlex.quote(folder)}.",
            path=path,
        )
    if not create:
        raise StoreNotFound(
            f"There is no store at {path}.",
            f"Check the path, or create one: eventfold init {shlex.quote(path)}.",
            path=path,
            creatable=True,
        )
    return False


def is_new(connection: apsw.Connection, path: str) -> bool:
    """Whether the file is empty. Raises NotAStore or StoreVersionMismatch if it is not a store of this layout."""
    connection.execute("BEGIN")  # one snapshot: another process may be creating the store
    try:
        application, layout = connection.pragma("application_id"), connection.pragma("user_version")
        empty = not connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
    finally:
        if connection.in_transaction:  # an error may have ended it; that error is the one to raise
            connection.execute("ROLLBACK")
    if application == APPLICATION_ID and layout == LAYOUT:
        return False
    if application == APPLICATION_ID and layout > LAYOUT:
        raise StoreVersionMismatch(
            f"{path} has layout {layout}, and this version of eventfold supports layouts up to {LAYOUT}.",
            "Upgrade eventfold: pip install -U eventfold.",
            path=path,
            layout=layout,
        )
    if application == APPLICATION_ID and layout >= OLDEST_LAYOUT:
        raise older_layout_error(path, layout)
    if application == 0 and layout == 0 and empty:
        return True
    raise NotAStore(
        f"{path} is an SQLite database of another program.",
        "Give the store a file of its own.",
        path=path,
    )


def create_store(
    connection: apsw.Connection, path: str, guard: FileGuard, lock: WriterLock, *, create: bool, existed: bool
) -> None:
    """Create the tables under the writer lock, so that only one of several processes creates them.

    Raises NotAStore for an empty file unless `create`, StoreDamaged for one that `existed` and was a store.
    """
    if connection.readonly("main"):
        create = False
    else:
        lock.acquire()
    try:
        if not is_new(connection, path):  # another process created it
            return
        if not create:
            raise NotAStore(
                f"{path} is an empty file.",
                f"Create a store in it: eventfold init {shlex.quote(path)}.",
                path=path,
            )
        if existed and lock.read_note():  # do not recreate a store that lost its content
            raise StoreDamaged(
                f"{path} is an empty file, and it was a store with events.",
                f"Restore a backup; to create a new store, remove the file and {lock.path}.",
                path=path,
            )
        connection.pragma("journal_mode", "wal")
        guard.write_entry_mark()
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.execute(CREATE)
            create_identity(connection)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {LAYOUT}")
            connection.execute("COMMIT")
            # Now the database file itself identifies the store, even if its WAL is lost.
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    finally:
        lock.release()


def ensure_wal_mode(connection: apsw.Connection, path: str, lock: WriterLock, timeout: float) -> bool:
    """Set journal_mode=WAL again if another program changed it. Returns whether the file is in WAL mode.

    Raises StoreUnsafe if the file is in use and the mode cannot be set. Read-only stores leave the mode as it is.
    """
    mode = connection.pragma("journal_mode")
    if mode == "wal" or connection.readonly("main"):
        return mode == "wal"
    lock.acquire()
    try:
        connection.set_busy_timeout(int(min(timeout, JOURNAL_MODE_TIMEOUT_S) * 1000))
        if connection.pragma("journal_mode", "wal") != "wal":
            raise not_wal_error(path, mode)
    except (apsw.BusyError, apsw.LockedError) as error:
        raise not_wal_error(path, mode) from error
    finally:
        set_busy_timeout(connection, timeout)
        lock.release()
    return True


def not_wal_error(path: str, mode: str) -> StoreUnsafe:
    """The error for a file in use that another program took out of WAL mode."""
    return StoreUnsafe(
        f"{path} was set to journal_mode={mode} by another program, and is in use: it cannot be set back to "
        "WAL, which a store needs.",
        "Nothing was written: close the other programs that have the file open, then open the store again.",
        path=path,
        journal_mode=mode,
    )


def older_layout_error(path: str, layout: int) -> StoreVersionMismatch:
    """The error for a store of an older layout."""
    return StoreVersionMismatch(
        f"{path} has layout {layout}, and this version of eventfold writes layout {LAYOUT}.",
        f"Stop the processes that use it, then upgrade it once: eventfold upgrade {shlex.quote(path)}.",
        path=path,
        layout=layout,
    )
