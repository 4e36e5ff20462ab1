"""A copy of a store, made while it is in use: under its name there is the whole copy, in its own epoch, or nothing.

It is written beside, under a name of its own, and renamed once it is whole and on the disk. What a killed process has
left under that name is removed by the next backup to the same path.
Knows: SQLite's own way of copying pages, files and their folder. Does not know: what is in them, but for the epoch.

A new epoch for a file that other tools have put back: what came after the copy is gone, and its positions are free.

Knows: the store's own row, the writers' lock, the note of the last event that was acknowledged. Does not know: events.
"""

from __future__ import annotations

import os
from contextlib import suppress

import apsw

from eventfold.engines.sqlite.errors import connect, record_errno, translate_errno, translate_error
from eventfold.engines.sqlite.file import File
from eventfold.engines.sqlite.schema import read_identity, write_identity
from eventfold.errors import EventfoldError, NotAStore, StoreBusy, StoreFull
from eventfold.ports.engine import RestoreResult

try:
    import fcntl
except ImportError:  # Windows: of two backups to one path at once the later fails, in the system's words
    fcntl = None  # type: ignore[assignment]

PAGES_PER_STEP = 1_000  # pages between two moments at which an interrupt is heard
SIDE_FILE_SUFFIXES = ("-wal", "-journal", "-shm")


def backup(source: apsw.Connection, path: str) -> None:
    """Copy a store page by page; the copy begins a new epoch, so that cursors are verified. All of it, or no file.

    Raises NotAStore if something is at `path`, StoreBusy if another backup to `path` is being made, StoreFull without
    room for the copy.
    """
    path = os.path.abspath(path)
    _refuse_existing(path)
    partial = partial_path(path)
    try:
        file = _create_partial(path, partial)
    except OSError as error:
        raise _backup_error(translate_errno(error.errno or 0, path), path) from error
    try:
        _copy(source, partial)
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
            if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):  # what was read, not what was written
                found = translate_error(error, source.db_filename("main"))
            raise _backup_error(found, path) from error
        raise
    finally:
        os.close(file)


def partial_path(path: str) -> str:
    """Where a copy is written until it is whole."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.eventfold-partial")


def _refuse_existing(path: str) -> None:
    if os.path.lexists(path):
        raise NotAStore(f"{path} exists already.", "Give the backup a path of its own.", path=path)
    for end in ("-wal", "-journal"):
        with suppress(FileNotFoundError, NotADirectoryError):
            if os.stat(path + end).st_size:  # SQLite would take it for a part of the copy
                raise NotAStore(
                    f"{path}{end} belongs to a database that is no longer at {path}.",
                    "Give the backup a path of its own, or move that file away.",
                    path=path + end,
                )


def _create_partial(path: str, partial: str) -> int:
    """An empty file to copy into, which no other process copies into. Its descriptor is to be closed."""
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
        os.close(file)  # the process before us has renamed or removed it since


def _is_same_file(file: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _copy(source: apsw.Connection, partial: str) -> None:
    target = connect(partial)
    try:
        # Nobody reads this file before it is whole and synced by the caller, so it needs no journal meanwhile.
        target.pragma("journal_mode", "off")
        target.pragma("synchronous", "off")
        source.execute("BEGIN; SELECT 1 FROM store")  # a snapshot: or every commit meanwhile makes it begin again
        try:
            with target.backup("main", source, "main") as copying:
                while not copying.done:
                    copying.step(PAGES_PER_STEP)
        finally:
            if source.in_transaction:  # an error may have ended it, and is the one to be raised
                source.execute("ROLLBACK")
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
        with suppress(OSError):  # it stays, and the next backup to this path removes it
            os.remove(each)


def _backup_error(error: EventfoldError, path: str) -> EventfoldError:
    """The same error, about a copy."""
    if isinstance(error, StoreFull):
        return StoreFull(
            f"There is no room for a copy at {path}: the disk or quota is full.",
            "Nothing is left of the copy, and the store is as it was: make room, then back up again.",
            path=path,
        )
    return type(error)(f"No copy was made at {path}: {error.what}", error.now, **error.fields)


def begin_epoch(file: File, timeout: float) -> RestoreResult:
    """Let a new epoch begin, greater than any that was noted here. Raises the errors of opening a store.

    An older copy lacks the last event that was acknowledged, so that it cannot be opened in the usual way before this.
    """
    file.open(create=False)
    try:
        file.lock.acquire()
        connection = file.writer()
        try:
            connection.set_busy_timeout(int(timeout * 1000))
            connection.execute("BEGIN IMMEDIATE")
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
    """The epoch in which the last event was acknowledged here: the copy may be from before it. 0 if none is known."""
    words = file.lock.read_note().split(" ")
    return int(words[1]) if len(words) > 1 and words[0] == store_id and words[1].isdigit() else 0
