"""Backups and copies of a store in use, and the new epoch that begins after a restore by other tools.

A backup is written to a temporary name, and renamed once it is complete and on disk: at its path is the whole copy, in
an epoch of its own, or nothing. A temporary file that a killed process left is removed by the next backup to that path.
Knows: SQLite's backup API, the store's identity row, the note in the lock file. Does not know: events.
"""

from __future__ import annotations

import os
from contextlib import suppress

import apsw

from eventfold.engines.sqlite.errors import connect, record_errno, translate_errno, translate_error
from eventfold.engines.sqlite.file import File
from eventfold.engines.sqlite.replica import DROP_MARK, copy_refuses, read_mark
from eventfold.engines.sqlite.schema import read_identity, write_identity
from eventfold.errors import EventfoldError, NotAStore, StoreBusy, StoreFull
from eventfold.ports.services import RestoreResult

try:
    import fcntl
except ImportError:  # Windows: of two concurrent backups to one path the later fails with an error of the system
    fcntl = None  # type: ignore[assignment]

PAGES_PER_STEP = 1_000  # an interrupt is handled between two steps
SIDE_FILE_SUFFIXES = ("-wal", "-journal", "-shm")


def backup(source: apsw.Connection, path: str, *, keep_identity: bool = False) -> None:
    """Copy a store page by page. The copy begins a new epoch, so that cursors are verified. On failure no file is left.

    `keep_identity`: leave the epoch as it is, and the mark of a copy of a log that is elsewhere.

    Raises NotAStore if something is at `path`, StoreBusy if another backup to `path` is being made, StoreFull if the
    disk has no space for the copy.
    """
    path = os.path.abspath(path)
    _refuse_existing(path)
    partial = partial_path(path)
    try:
        file = _create_partial(path, partial)
    except OSError as error:
        raise _backup_error(translate_errno(error.errno or 0, path), path) from error
    try:
        _copy(source, partial, keep_identity)
        os.fsync(file)
        _refuse_existing(path)
        os.rename(partial, path)
        _sync_directory(path)
    except BaseException as error:
        _remove(partial)
        if isinstance(error, OSError):
            raise _backup_error(translate_errno(error.errno or 0, path), path) from error
        if isinstance(error, apsw.Error):
            found = translate_error(error, path)
            if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):  # the source is damaged, not the copy
                found = translate_error(error, source.db_filename("main"))
            raise _backup_error(found, path) from error
        raise
    finally:
        os.close(file)


def partial_path(path: str) -> str:
    """The temporary name under which a copy is written."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.eventfold-partial")


def _refuse_existing(path: str) -> None:
    if os.path.lexists(path):
        raise NotAStore(f"{path} exists already.", "Give the backup a path of its own.", path=path)
    for end in ("-wal", "-journal"):
        with suppress(FileNotFoundError, NotADirectoryError):
            if os.stat(path + end).st_size:  # SQLite would read it as part of the copy
                raise NotAStore(
                    f"{path}{end} belongs to a database that is no longer at {path}.",
                    "Give the backup a path of its own, or move that file away.",
                    path=path + end,
                )


def _create_partial(path: str, partial: str) -> int:
    """Create an empty, locked file to copy into. The caller closes the descriptor."""
    while True:
        file = os.open(partial, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if fcntl is None or _is_same_file(file, partial):
                for end in SIDE_FILE_SUFFIXES:
                    with suppress(FileNotFoundError):
                        os.remove(partial + end)
                os.ftruncate(file, 0)
                return file
        except BlockingIOError as error:
            os.close(file)
            raise StoreBusy(
                f"Another backup to {path} is being made.", "Wait until it has ended, or give another path.", path=path
            ) from error
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # another process has renamed or removed it since


def _is_same_file(file: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _copy(source: apsw.Connection, partial: str, keep_identity: bool) -> None:
    target = connect(partial)
    try:
        # The file is not read before it is complete and synced, so it needs no journal meanwhile.
        target.pragma("journal_mode", "off")
        target.pragma("synchronous", "off")
        source.execute("BEGIN; SELECT 1 FROM store")  # a read snapshot: otherwise each commit restarts the backup
        try:
            with target.backup("main", source, "main") as copying:
                while not copying.done:
                    copying.step(PAGES_PER_STEP)
        finally:
            if source.in_transaction:  # an error may have ended it; that error is the one to raise
                source.execute("ROLLBACK")
        if not keep_identity:  # a backup of a copy is a store of its own, in an epoch of its own
            target.execute(DROP_MARK)
            identity = read_identity(target)
            write_identity(target, identity.id, identity.epoch + 1)
        if target.pragma("journal_mode", "wal") != "wal":
            raise apsw.IOError("the copy does not take the journal mode of a store")
        target.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except BaseException as error:
        record_errno(error, target)
        raise
    finally:
        target.close()
    with suppress(FileNotFoundError):
        if os.stat(f"{partial}-wal").st_size:
            raise apsw.IOError("a part of the copy stayed in its write-ahead log")


def _sync_directory(path: str) -> None:
    if os.name != "posix":
        return
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _remove(partial: str) -> None:
    for each in (partial, *(partial + end for end in SIDE_FILE_SUFFIXES)):
        with suppress(OSError):  # the next backup to this path removes it
            os.remove(each)


def _backup_error(error: EventfoldError, path: str) -> EventfoldError:
    """The same error, worded for the copy."""
    if isinstance(error, StoreFull):
        return StoreFull(
            f"There is no space for a copy at {path}: the disk or quota is full.",
            "The copy was removed, and the store is unchanged: free space, then back up again.",
            path=path,
        )
    return type(error)(f"No copy was made at {path}: {error.what}", error.remedy, **error.fields)


def begin_epoch(file: File, timeout: float) -> RestoreResult:
    """Begin a new epoch, greater than any epoch noted in the lock file. Raises the errors of opening a store.

    An older copy lacks the last acknowledged event, so a normal `open` refuses it before this.
    """
    file.open(create=False)
    try:
        file.lock.acquire()
        connection = file.writer()
        try:
            connection.set_busy_timeout(int(timeout * 1000))
            connection.execute("BEGIN IMMEDIATE")
            if (address := read_mark(connection)) is not None:
                raise copy_refuses(file.path, address)
            before = read_identity(connection)
            epoch = max(before.epoch, _noted_epoch(file, before.id)) + 1
            write_identity(connection, before.id, epoch)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            file.pool.return_writer(connection)
            file.lock.release()
    finally:
        file.close()
    return RestoreResult(before.id, before.epoch, epoch)


def _noted_epoch(file: File, store_id: str) -> int:
    """The epoch noted in the lock file, which may be later than that of the copy; 0 if there is no note."""
    words = file.lock.read_note().split(" ")
    return int(words[1]) if len(words) > 1 and words[0] == store_id and words[1].isdigit() else 0
