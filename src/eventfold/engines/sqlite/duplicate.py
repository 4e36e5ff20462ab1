"""A copy of a store, made while it is in use: under its name there is the whole copy, in its own epoch, or nothing.

It is written beside, under a name of its own, and renamed once it is whole and on the disk. What a killed process has
left under that name is removed by the next backup to the same path.
Knows: SQLite's own way of copying pages, files and their folder. Does not know: what is in them, but for the epoch.
"""

from __future__ import annotations

import os
from contextlib import suppress

import apsw

from eventfold.engines.sqlite.faults import connected, keep_errno, translated
from eventfold.engines.sqlite.identity import identity_of, take_identity
from eventfold.engines.sqlite.system import refused_by_system
from eventfold.errors import EventfoldError, NotAStore, StoreBusy, StoreFull

try:
    import fcntl
except ImportError:  # Windows: of two backups to one path at once the later fails, in the system's words
    fcntl = None  # type: ignore[assignment]

STEP = 1_000  # pages between two moments at which an interrupt is heard
BESIDE = ("-wal", "-journal", "-shm")


def backup(source: apsw.Connection, path: str) -> None:
    """Copy a store page by page; the copy begins a new epoch, so that cursors are verified. All of it, or no file.

    Raises NotAStore if something is at `path`, StoreBusy if another backup to `path` is being made, StoreFull without
    room for the copy.
    """
    path = os.path.abspath(path)
    _refuse_existing(path)
    partial = partial_of(path)
    try:
        file = _claim(path, partial)
    except OSError as error:
        raise _failed(refused_by_system(error.errno or 0, path), path) from error
    try:
        _copy(source, partial)
        os.fsync(file)
        _refuse_existing(path)
        os.rename(partial, path)
        _sync_folder(path)
    except BaseException as error:
        _remove(partial)
        if isinstance(error, OSError):
            raise _failed(refused_by_system(error.errno or 0, path), path) from error
        if isinstance(error, apsw.Error):
            found = translated(error, path)
            if isinstance(error, (apsw.CorruptError, apsw.NotADBError)):  # what was read, not what was written
                found = translated(error, source.db_filename("main"))
            raise _failed(found, path) from error
        raise
    finally:
        os.close(file)


def partial_of(path: str) -> str:
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


def _claim(path: str, partial: str) -> int:
    """An empty file to copy into, which no other process copies into. Its descriptor is to be closed."""
    while True:
        file = os.open(partial, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if fcntl is None or _is_at(file, partial):
                for end in BESIDE:
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


def _is_at(file: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _copy(source: apsw.Connection, partial: str) -> None:
    target = connected(partial)
    try:
        # Nobody reads this file before it is whole and synced by the caller, so it needs no journal meanwhile.
        target.pragma("journal_mode", "off")
        target.pragma("synchronous", "off")
        source.execute("BEGIN; SELECT 1 FROM store")  # a snapshot: or every commit meanwhile makes it begin again
        try:
            with target.backup("main", source, "main") as copying:
                while not copying.done:
                    copying.step(STEP)
        finally:
            if source.in_transaction:  # an error may have ended it, and is the one to be raised
                source.execute("ROLLBACK")
        identity = identity_of(target)
        take_identity(target, identity.id, identity.epoch + 1)
        if target.pragma("journal_mode", "wal") != "wal":
            raise apsw.IOError("the copy does not take the journal mode of a store")
        target.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    except BaseException as error:
        keep_errno(error, target)
        raise
    finally:
        target.close()
    with suppress(FileNotFoundError):
        if os.stat(f"{partial}-wal").st_size:
            raise apsw.IOError("a part of the copy stayed in its write-ahead log")


def _sync_folder(path: str) -> None:
    if os.name != "posix":
        return
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _remove(partial: str) -> None:
    for each in (partial, *(partial + end for end in BESIDE)):
        with suppress(OSError):  # it stays, and the next backup to this path removes it
            os.remove(each)


def _failed(error: EventfoldError, path: str) -> EventfoldError:
    """The same error, about a copy."""
    if isinstance(error, StoreFull):
        return StoreFull(
            f"There is no room for a copy at {path}: the disk or quota is full.",
            "Nothing is left of the copy, and the store is as it was: make room, then back up again.",
            path=path,
        )
    return type(error)(f"No copy was made at {path}: {error.what}", error.now, **error.fields)
