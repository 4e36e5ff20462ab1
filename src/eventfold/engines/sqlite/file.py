"""A store file: how it is recognized, created and configured, and whether it is still the file that was opened.

Knows: files, pragmas, forks. Does not know: events. Apart from the guard's descriptor, the file is never opened outside
SQLite: closing such a descriptor drops SQLite's locks for the whole process, and acknowledged commits may be lost.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shlex
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import apsw

from eventfold.engines.sqlite import open_files
from eventfold.engines.sqlite.connection import connect_immutable, is_readable_without_locks
from eventfold.engines.sqlite.errors import MAX_PATH_BYTES, connect, record_errno, translate_errno, warn_if_in_memory
from eventfold.engines.sqlite.file_guards import FileGuard, refuse_links
from eventfold.engines.sqlite.file_replacement import DirectoryStamp
from eventfold.engines.sqlite.overwrite_detection import Mark, OverwriteDetector
from eventfold.engines.sqlite.pool import Pool
from eventfold.engines.sqlite.schema import (
    APPLICATION_ID,
    CREATE,
    LAYOUT,
    OLDEST_LAYOUT,
    Identity,
    check_definitions,
    create_identity,
    read_identity,
)
from eventfold.engines.sqlite.writer_lock import WriterLock
from eventfold.errors import (
    InvalidInput,
    NotAStore,
    StoreClosed,
    StoreDamaged,
    StoreNotFound,
    StoreReadOnly,
    StoreUnsafe,
    StoreVersionMismatch,
)

JOURNAL_MODE_TIMEOUT_S = 2.0  # to wait for other programs to close a file whose journal mode must be reset
PRESENCE_CHECK_INTERVAL_S = 1.0  # between checks that the file is still the one at its path


class File:
    """A store file that this process has open: its connections, and whether it is still the file that was opened."""

    def __init__(
        self, path: str, *, readonly: bool, full_sync: bool, timeout: float, max_idle: float | None = None
    ) -> None:
        open_files.check_max_idle(max_idle)
        if "\0" in path or path != path.encode("utf-8", "replace").decode():
            raise InvalidInput(f"SQLite cannot open the path {path!r}.", "Use a path in valid UTF-8.", path=path)
        self.path = os.path.abspath(path)
        self.real_path = os.path.realpath(path)  # without links: SQLite keeps the WAL beside it
        self.readonly, self.full_sync, self._timeout = readonly, full_sync, timeout
        self.lock = WriterLock(self.real_path, timeout)
        self.damage: StoreDamaged | None = None
        self.wal_pages = 0
        self.guard = FileGuard()
        self._fork_generation = open_files.fork_generation
        self.pool = Pool(self._connect, self._connect_writer, self._release_guard)
        self._may_create = self._opened = self._closed = self._immutable = False
        self._file_id: tuple[int, int] | None = None
        self._wal_id: tuple[int, int] | None = None
        self._directory = DirectoryStamp(os.path.dirname(self.real_path))
        self._next_presence_check = self._next_link_check = 0.0
        self._detector: OverwriteDetector | None = None
        self.overwritten: StoreDamaged | None = None
        self.on_checkpoint: Callable[[], None] = lambda: None  # called after a checkpoint changed the file
        self.on_reopen: Callable[[], None] = lambda: None  # called after the file was closed while idle
        self.max_idle, self.last_used = max_idle, time.monotonic()  # seconds; monotonic time of the last use
        self._is_idle = False

    def open(self, create: bool) -> Identity:
        """Recognize or create the store. Returns its identity. Raises the errors that `Store` documents."""
        return open_files.retry_with_free_descriptors(lambda: self._open(create))

    def _open(self, create: bool) -> Identity:
        existed = self.check_path(create)
        self._may_create = create and not self.readonly
        try:
            self.acquire_guard()
            self.guard.lock_shared_early()
            self._immutable = self.guard.is_wal_mode and is_readable_without_locks(self.real_path)
            open_files.forkable_files.add(self)
            connection = self.pool.reader()
        except BaseException:
            self.guard.release()
            raise
        try:
            if self._is_new(connection):
                self._create(connection, create, existed)
            check_definitions(connection, self.path)
            found = read_identity(connection)
            if self._ensure_wal_mode(connection):
                self.guard.lock_shared()
            self._file_id, self._wal_id = _file_id(self.path), _file_id(self.real_path + "-wal")
            self._detector = self.guard.open_overwrite_detector(self.lock.is_held)
        except BaseException as error:
            record_errno(error, connection)
            self.pool.discard(connection)
            self.lock.close()
            self.guard.release()
            raise
        self._may_create, self._opened = False, True
        self.pool.return_reader(connection)
        open_files.register(self)
        warn_if_in_memory(self.path, self.real_path)
        return found

    def acquire_guard(self) -> None:
        """Acquire the guard for the file at the path. Raises StoreUnsafe if it has, or is used by, another name."""
        try:
            open_files.retry_with_free_descriptors(lambda: self.guard.acquire(self.real_path, self._may_create))
        except OSError as error:
            raise translate_errno(error.errno or 0, self.path) from error

    def check_path(self, create: bool) -> bool:
        """Refuse a path where a store cannot exist, or is missing and may not be created. Returns whether one exists.

        Raises the errors of `open`.
        """
        if len(os.fsencode(self.real_path)) >= MAX_PATH_BYTES:
            raise translate_errno(errno.ENAMETOOLONG, self.path)
        try:
            found = os.stat(self.real_path)
        except FileNotFoundError:
            found = None
        except OSError as error:
            raise translate_errno(error.errno or 0, self.path) from error
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise translate_errno(errno.EISDIR, self.path)
        if found is not None and not stat.S_ISREG(found.st_mode):  # opening a pipe would block
            raise NotAStore(
                f"{self.path} is a pipe or a device, not a file.", "Give the path of a file.", path=self.path
            )
        if found is not None and (found.st_dev, found.st_ino) in open_files.inherited_files:
            raise StoreClosed(
                f"{self.path} was in use when this process was forked, and SQLite cannot use it in the child.",
                "Fork when no call is in progress, or start processes by spawn.",
                path=self.path,
            )
        if found is not None:
            return True
        folder = os.path.dirname(self.real_path)
        if not os.path.isdir(folder):
            raise StoreNotFound(
                f"There is no store at {self.path}: its folder {folder} does not exist.",
                f"Check the path, or create the folder first: mkdir -p {shlex.quote(folder)}.",
                path=self.path,
            )
        if not create or self.readonly:
            raise StoreNotFound(
                f"There is no store at {self.path}.",
                f"Check the path, or create one: eventfold init {shlex.quote(self.path)}.",
                path=self.path,
                creatable=True,
            )
        return False

    def _is_new(self, connection: apsw.Connection) -> bool:
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
                f"{self.path} has layout {layout}, and this version of eventfold supports layouts up to {LAYOUT}.",
                "Upgrade eventfold: pip install -U eventfold.",
                path=self.path,
                layout=layout,
            )
        if application == APPLICATION_ID and layout >= OLDEST_LAYOUT:
            raise older_layout_error(self.path, layout)
        if application == 0 and layout == 0 and empty:
            return True
        raise NotAStore(
            f"{self.path} is an SQLite database of another program.",
            "Give the store a file of its own.",
            path=self.path,
        )

    def _create(self, connection: apsw.Connection, create: bool, existed: bool) -> None:
        """Create the tables under the writer lock, so that only one of several processes creates them."""
        if self.readonly or connection.readonly("main"):
            create = False
        else:
            self.lock.acquire()
        try:
            if not self._is_new(connection):  # another process created it
                return
            if not create:
                raise NotAStore(
                    f"{self.path} is an empty file.",
                    f"Create a store in it: eventfold init {shlex.quote(self.path)}.",
                    path=self.path,
                )
            if existed and self.lock.read_note():  # do not recreate a store that lost its content
                raise StoreDamaged(
                    f"{self.path} is an empty file, and it was a store with events.",
                    f"Restore a backup; to create a new store, remove the file and {self.lock.path}.",
                    path=self.path,
                )
            connection.pragma("journal_mode", "wal")
            self.guard.write_entry_mark()
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
            self.lock.release()

    def _ensure_wal_mode(self, connection: apsw.Connection) -> bool:
        """Set journal_mode=WAL again if another program changed it. Returns whether the file is in WAL mode.

        Raises StoreUnsafe if the file is in use and the mode cannot be set. Read-only stores leave the mode as it is.
        """
        mode = connection.pragma("journal_mode")
        if mode == "wal" or self.readonly or connection.readonly("main"):
            return mode == "wal"
        self.lock.acquire()
        try:
            connection.set_busy_timeout(int(min(self._timeout, JOURNAL_MODE_TIMEOUT_S) * 1000))
            if connection.pragma("journal_mode", "wal") != "wal":
                raise self._not_wal_error(mode)
        except (apsw.BusyError, apsw.LockedError) as error:
            raise self._not_wal_error(mode) from error
        finally:
            self.set_busy_timeout(connection)
            self.lock.release()
        return True

    def _not_wal_error(self, mode: str) -> StoreUnsafe:
        return StoreUnsafe(
            f"{self.path} was set to journal_mode={mode} by another program, and is in use: it cannot be set back to "
            "WAL, which a store needs.",
            "Nothing was written: close the other programs that have the file open, then open the store again.",
            path=self.path,
            journal_mode=mode,
        )

    def _connect(self) -> apsw.Connection:
        if self._is_idle:
            self._reacquire()
        return open_files.retry_with_free_descriptors(self._connect_once)

    def _connect_once(self) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READONLY if self.readonly else apsw.SQLITE_OPEN_READWRITE
        if self._may_create:
            flags |= apsw.SQLITE_OPEN_CREATE
        if self._immutable:
            connection = connect_immutable(self.real_path)
        else:
            connection = connect(self.real_path, flags=flags, statementcachesize=200)
        try:
            self._configure(connection)
            if self._opened:  # this also opens the WAL, so that a failure is reported here
                mode = connection.pragma("journal_mode")
                if self._detector is None:
                    self._detector = self.guard.open_overwrite_detector(self.lock.is_held)
                if mode != "wal" and not self.readonly and not self._immutable:
                    raise self._not_wal_error(mode)
        except BaseException as error:
            record_errno(error, connection)
            connection.close()
            raise
        return connection

    def _configure(self, connection: apsw.Connection) -> None:
        self.set_busy_timeout(connection)
        # Closing must not checkpoint outside the writer lock, nor remove a WAL that another process writes to.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        keep = ctypes.c_int(1)
        connection.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, ctypes.addressof(keep))
        connection.wal_autocheckpoint(0)
        connection.pragma("synchronous", "full" if self.full_sync else "normal")
        connection.pragma("cache_size", -16_000)  # KiB
        connection.pragma("temp_store", "memory")
        if sys.platform == "darwin":
            connection.pragma("fullfsync", 1)  # on macOS a plain fsync leaves data in the drive's cache

    def set_busy_timeout(self, connection: apsw.Connection) -> None:
        """Let a connection wait for locks of other programs for the store's timeout."""
        connection.set_busy_timeout(int(self._timeout * 1000))

    def reader(self) -> apsw.Connection:
        """A connection for reading, for this caller only. Return it by `pool.return_reader` or `pool.discard`."""
        self.check()
        self.last_used = now = time.monotonic()
        if now > self._next_presence_check or self._immutable:
            self._next_presence_check = now + PRESENCE_CHECK_INTERVAL_S
            self.is_in_place()
            self.check()
        return self.pool.reader()

    def writer(self) -> apsw.Connection:
        """The connection for writing. Return it to the pool. Raises StoreReadOnly, StoreUnsafe."""
        self.check()
        self.last_used = now = time.monotonic()
        self.is_unchanged_since(self.read_mark())
        if now > self._next_link_check:
            refuse_links(self.real_path)
            self._next_link_check = (
                now + PRESENCE_CHECK_INTERVAL_S
            )  # set after the check: a refused file is checked again by the next call
        return self.pool.writer()

    def _connect_writer(self) -> apsw.Connection:
        connection = None if self.readonly else self._connect()
        if connection is None or connection.readonly("main"):
            raise StoreReadOnly(
                f"{self.path} is open for reading only.",
                "Nothing was written: open it without readonly=True, with rights to write the file and its folder.",
                path=self.path,
            )
        connection.set_wal_hook(self._record_wal_pages)
        self.guard.write_entry_mark()
        return connection

    def _record_wal_pages(self, _connection: Any, _name: str, pages: int) -> int:
        self.wal_pages = pages
        return apsw.SQLITE_OK

    def close_before_fork(self) -> None:
        """Before a fork: close all connections."""
        self.pool.pause()
        self._wal_id = None  # while the file is closed here, another program may remove its WAL

    def reopen_after_fork(self) -> None:
        """After a fork, in the parent."""
        self.pool.resume()

    def abandon_after_fork(self) -> open_files.FileId | None:
        """After a fork, in the child: see open_files.py."""
        self.lock.abandon_after_fork()
        return self._file_id if self.pool.is_in_use else None

    def close_while_idle(self) -> bool:
        """Close everything until the next use, unless something is in use. Returns whether it was closed."""
        return (
            not self._is_idle
            and not self._closed
            and not self.is_inherited
            and self.pool.close_if_unused(self._release_all)
        )

    def _release_all(self) -> None:
        self._is_idle = True
        self._wal_id = None  # while the file is closed here, another program may remove its WAL
        self.lock.close_unless_waiting()
        self._release_guard()

    def _release_guard(self) -> None:
        """After the last connection was closed: close the guard's descriptors and unmap the WAL index."""
        self._detector = None
        self.guard.release()

    def _reacquire(self) -> None:
        """Open the file again, which must be the same file. The next read verifies its head."""
        self.acquire_guard()
        self.guard.lock_shared_early()
        self._is_idle = False
        if not self.is_in_place():
            self.check()
        self.on_reopen()

    @property
    def is_inherited(self) -> bool:
        """Whether this process is a forked child of the process that opened the file."""
        return self._fork_generation != open_files.fork_generation

    def check(self) -> None:
        """Raises StoreClosed or StoreDamaged if the file may not be used: closed, inherited by a fork, replaced."""
        if self._closed or self.damage is not None or self._fork_generation != open_files.fork_generation:
            raise self._unusable_error()

    def _unusable_error(self) -> StoreClosed | StoreDamaged:
        if self.is_inherited:
            return StoreClosed(
                f"{self.path} was opened before this process was forked.",
                "Open a new Store in the child: connections of the parent cannot be shared.",
                path=self.path,
            )
        if self.damage is not None and not self._closed:
            return self.damage
        return StoreClosed(f"The store {self.path} was closed.", "Open it again.", path=self.path)

    def read_mark(self) -> Mark:
        """Call it before a read, and pass the result to `is_unchanged_since` afterwards."""
        pages = self._detector
        return None if pages is None else pages.read_mark()

    def is_unchanged_since(self, mark: Mark) -> bool:
        """Whether no checkpoint ran since `mark`; if one did, read again. 1 µs.

        A second SQLite library in this process may have dropped the locks that keep a checkpoint from overwriting pages
        that are being read. Raises StoreDamaged if the file was overwritten.
        """
        pages = self._detector
        if pages is None or pages.is_unchanged_since(mark):
            return True
        self._accept_checkpoint(pages)
        return self.read_mark() == mark and not self._immutable

    def _accept_checkpoint(self, pages: OverwriteDetector) -> None:
        if not pages.accept_checkpoint():
            self.damage = self.overwritten = StoreDamaged(
                f"{self.path} was overwritten (cp, rsync --inplace) while this process had it open.",
                "Nothing was read or acknowledged since: stop every process that uses the store, put the copy there "
                f"without a -wal and -shm file beside it, then say so: eventfold restored {shlex.quote(self.path)}.",
                path=self.path,
            )
            raise self.damage
        if self._immutable:  # another program wrote to the file: cached pages are stale
            self.pool.close_idle()
        self.on_checkpoint()

    def is_in_place(self) -> bool:
        """Whether the path still leads to the file and the WAL that this process has open. 3 or 6 µs."""
        try:
            self.is_unchanged_since(self.read_mark())
        except StoreDamaged:
            return False
        if self._detector is not None and not self._detector.wal.is_intact():
            self.damage = self.overwritten = StoreDamaged(
                f"The write-ahead log of {self.path} was overwritten or cut while this process had it open.",
                "Nothing is acknowledged any more: stop every process that uses the store, copy its files as they are, "
                "and open it again: it reports what is lost.",
                path=self.path,
            )
            return False
        mark = self._directory.current()
        if self._directory.is_unchanged(mark) and self._wal_id is not None:
            return True
        try:
            here, wal = _file_id(self.path), _file_id(self.real_path + "-wal")
        except OSError:  # no access at the moment: the file may still be in place
            return True
        if here != self._file_id:
            self.damage = self._replaced_error("was replaced or removed")
            return False
        if self._immutable and wal is not None:  # another program with write access has opened the file
            self._immutable = False
            self.pool.close_idle()
        if wal != self._wal_id:
            if self._wal_id is None:
                self._wal_id = wal
            else:
                self.damage = self._replaced_error("lost its write-ahead log")
                return False
        if self.path == self.real_path:  # a link could be changed without a trace in this directory
            self._directory.remember(mark)
        return True

    def _replaced_error(self, what: str) -> StoreDamaged:
        return StoreDamaged(
            f"{self.path} {what} while this process had it open.",
            "Close the store and open it again; if a backup was put in its place, followers must start from it.",
            path=self.path,
        )

    def epoch_changed(self, known: int, found: int) -> StoreDamaged:
        """Mark the file as unusable: its epoch is not the one it was opened in. Returns the error to raise."""
        self.damage = StoreDamaged(
            f"{self.path} was opened in epoch {known}, and is in epoch {found} now: it was restored meanwhile.",
            "Close the store and open it again: data cached in this process may be gone.",
            path=self.path,
            known=known,
            found=found,
        )
        return self.damage

    def history_lost(self, acknowledged: int, head: int) -> StoreDamaged:
        """Mark the file as unusable: the last acknowledged event is gone. Returns the error to raise."""
        self.damage = StoreDamaged(
            f"{self.path} ends at position {head} and does not hold the event acknowledged at position {acknowledged}.",
            f"If its write-ahead log ({self.real_path}-wal) was removed, put it back; if an older copy was put here on "
            f"purpose, say so: eventfold restored {shlex.quote(self.path)}.",
            path=self.path,
            acknowledged=acknowledged,
            head=head,
        )
        return self.damage

    @property
    def has_leftover_wal(self) -> bool:
        """Whether a process that died left events in the WAL, and only this process can checkpoint them."""
        if self.readonly or not self.guard.is_only_user:
            return False
        with suppress(OSError):
            return os.stat(f"{self.real_path}-wal").st_size > 0
        return False

    def close(self) -> None:
        """Close every unused connection. Those in use are closed when they are returned."""
        if self._closed or self.is_inherited:
            return
        self._closed = True
        self.pool.close()
        open_files.forkable_files.discard(self)
        open_files.unregister(self)
        self.lock.close()


def older_layout_error(path: str, layout: int) -> StoreVersionMismatch:
    """The error for a store of an older layout."""
    return StoreVersionMismatch(
        f"{path} has layout {layout}, and this version of eventfold writes layout {LAYOUT}.",
        f"Stop the processes that use it, then upgrade it once: eventfold upgrade {shlex.quote(path)}.",
        path=path,
        layout=layout,
    )


def _file_id(path: str) -> tuple[int, int] | None:
    """Device and inode of the file at a path, or None. Raises OSError if they cannot be read."""
    try:
        found = os.stat(path)  # stat opens nothing, so no lock is touched
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
