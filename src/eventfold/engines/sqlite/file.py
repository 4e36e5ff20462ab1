"""Room: opening a store file: recognising it, creating it, the settings that make it durable, staying alive.

Knows: files, pragmas, forks. Does not know: events. But for its guard, the file is never opened outside SQLite:
closing such a descriptor drops SQLite's locks for the whole process, and acknowledged commits with them.
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

JOURNAL_MODE_TIMEOUT_S = 2.0  # seconds to wait for others to leave a file whose journal mode is to be set again
PRESENCE_CHECK_INTERVAL_S = 1.0  # seconds between looks at whether the file is still the one at its path


class File:
    """A store file opened by this process: its connections, and whether it is still the file that was opened."""

    def __init__(
        self, path: str, *, readonly: bool, full_sync: bool, timeout: float, max_idle: float | None = None
    ) -> None:
        open_files.check_max_idle(max_idle)
        if "\0" in path or path != path.encode("utf-8", "replace").decode():
            raise InvalidInput(f"{path!r} is no path that SQLite can open.", "Use a path in valid UTF-8.", path=path)
        self.path = os.path.abspath(path)
        self.real_path = os.path.realpath(path)  # where SQLite keeps the log's files, whatever links lead there
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
        self.on_checkpoint: Callable[[], None] = lambda: None  # called when a checkpoint has changed the file
        self.max_idle, self.last_used = max_idle, time.monotonic()  # seconds; when a connection was asked for last
        self._is_idle = False

    def open(self, create: bool) -> Identity:
        """Recognise or create the store. Returns who it is. Raises the errors that `Store` documents."""
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
        """Take hold of the file by the entry at the path. Raises StoreUnsafe if it has, or is used by, another one."""
        try:
            open_files.retry_with_free_descriptors(lambda: self.guard.acquire(self.real_path, self._may_create))
        except OSError as error:
            raise translate_errno(error.errno or 0, self.path) from error

    def check_path(self, create: bool) -> bool:
        """Refuse a path at which no store can be, or is not and may not be made. Returns whether a file is there.

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
        if found is not None and not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for its other end
            raise NotAStore(
                f"{self.path} is no file, but a pipe or a device.", "Give the path of a file.", path=self.path
            )
        if found is not None and (found.st_dev, found.st_ino) in open_files.inherited_files:
            raise StoreClosed(
                f"{self.path} was in use when this process was forked, and SQLite cannot begin anew in the child.",
                "Fork when nobody reads or writes, or start processes by spawn.",
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
        """Whether the file is empty. Raises NotAStore or StoreVersionMismatch if it is someone else's."""
        connection.execute("BEGIN")  # one snapshot: somebody may be creating the store between two looks
        try:
            application, layout = connection.pragma("application_id"), connection.pragma("user_version")
            empty = not connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
        finally:
            if connection.in_transaction:  # an error may have ended it, and is the one to be raised
                connection.execute("ROLLBACK")
        if application == APPLICATION_ID and layout == LAYOUT:
            return False
        if application == APPLICATION_ID and layout > LAYOUT:
            raise StoreVersionMismatch(
                f"{self.path} has layout {layout}, and this eventfold knows layouts up to {LAYOUT}.",
                "Upgrade eventfold: pip install -U eventfold.",
                path=self.path,
                layout=layout,
            )
        if application == APPLICATION_ID and layout >= OLDEST_LAYOUT:
            raise StoreVersionMismatch(
                f"{self.path} has layout {layout}, and this eventfold writes layout {LAYOUT}.",
                f"Stop the processes that use it, then upgrade it once: eventfold upgrade {shlex.quote(self.path)}.",
                path=self.path,
                layout=layout,
            )
        if application == 0 and layout == 0 and empty:
            return True
        raise NotAStore(
            f"{self.path} is an SQLite database of another program.",
            "Give the store a file of its own.",
            path=self.path,
        )

    def _create(self, connection: apsw.Connection, create: bool, existed: bool) -> None:
        """Under the writers' lock, so that of several processes one creates and the others find a store."""
        if self.readonly or connection.readonly("main"):
            create = False
        else:
            self.lock.acquire()
        try:
            if not self._is_new(connection):  # another process was first
                return
            if not create:
                raise NotAStore(
                    f"{self.path} is an empty file.",
                    f"Create a store in it: eventfold init {shlex.quote(self.path)}.",
                    path=self.path,
                )
            if existed and self.lock.read_note():  # a store that lost its content is not to be made anew by accident
                raise StoreDamaged(
                    f"{self.path} is an empty file, and it was a store with events in it.",
                    f"Restore a backup; to begin anew, remove the file and {self.lock.path}.",
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
                # From now on the file itself says what it is, also to someone who lost the log beside it.
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        finally:
            self.lock.release()

    def _ensure_wal_mode(self, connection: apsw.Connection) -> bool:
        """Whether the file has a write-ahead log, which is set again where another program has set another journal.

        Raises StoreUnsafe if that cannot be done since the file is in use. Who only reads may do without.
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
            if self._opened:  # it opens the log as well: should that not be possible, it is said here
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
        # Closing must neither checkpoint outside the writers' lock nor unlink a WAL someone still writes to.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        keep = ctypes.c_int(1)
        connection.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, ctypes.addressof(keep))
        connection.wal_autocheckpoint(0)
        connection.pragma("synchronous", "full" if self.full_sync else "normal")
        connection.pragma("cache_size", -16_000)  # KiB
        connection.pragma("temp_store", "memory")
        if sys.platform == "darwin":
            connection.pragma("fullfsync", 1)  # there, a plain fsync leaves data in the drive's cache

    def set_busy_timeout(self, connection: apsw.Connection) -> None:
        """Let a connection wait for another program's lock as long as a writer waits for its turn."""
        connection.set_busy_timeout(int(self._timeout * 1000))

    def reader(self) -> apsw.Connection:
        """A connection for the caller alone, to be given back by `done` or `discard`."""
        self.check()
        self.last_used = now = time.monotonic()
        if now > self._next_presence_check or self._immutable:
            self._next_presence_check = now + PRESENCE_CHECK_INTERVAL_S
            self.is_in_place()
            self.check()
        return self.pool.reader()

    def writer(self) -> apsw.Connection:
        """The connection for the writer, to be given back to the pool. Raises StoreReadOnly, StoreUnsafe."""
        self.check()
        self.last_used = now = time.monotonic()
        self.is_unchanged_since(self.read_mark())
        if now > self._next_link_check:
            refuse_links(self.real_path)
            self._next_link_check = (
                now + PRESENCE_CHECK_INTERVAL_S
            )  # only now: where it is refused, it is looked at again the next time
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
        """Before a fork: no connection is open in the moment of it."""
        self.pool.pause()
        self._wal_id = None  # with nobody here at the file, another program may rightly end its log

    def reopen_after_fork(self) -> None:
        """After it, in the parent."""
        self.pool.resume()

    def abandon_after_fork(self) -> open_files.FileId | None:
        """After it, in the child: see open_files.py."""
        self.lock.abandon_after_fork()
        return self._file_id if self.pool.is_in_use else None

    def close_while_idle(self) -> bool:
        """Close everything, if nothing is in use, until the next connection is asked for. Returns whether it did."""
        return (
            not self._is_idle
            and not self._closed
            and not self.is_inherited
            and self.pool.close_if_unused(self._release_all)
        )

    def _release_all(self) -> None:
        self._is_idle = True
        self._wal_id = None  # with nobody here at the file, another program may rightly end its log
        self.lock.close_unless_waiting()
        self._release_guard()

    def _release_guard(self) -> None:
        """No connection is open any more: neither is anything else of the file, nor mapped into memory."""
        self._detector = None
        self.guard.release()

    def _reacquire(self) -> None:
        """Hold the file again, which must be the one that was opened. Its head is verified by the next read."""
        self.acquire_guard()
        self.guard.lock_shared_early()
        self._is_idle = False
        if not self.is_in_place():
            self.check()

    @property
    def is_inherited(self) -> bool:
        """Whether this process is a child, by fork, of the one that opened the file."""
        return self._fork_generation != open_files.fork_generation

    def check(self) -> None:
        """Raise if this file may not be used: closed, inherited over a fork, or no longer the file at its path."""
        if self._closed or self.damage is not None or self._fork_generation != open_files.fork_generation:
            raise self._unusable_error()

    def _unusable_error(self) -> StoreClosed | StoreDamaged:
        if self.is_inherited:
            return StoreClosed(
                f"{self.path} was opened before this process was forked.",
                "Open a new Store in the child; the parent's connections cannot be shared.",
                path=self.path,
            )
        if self.damage is not None and not self._closed:
            return self.damage
        return StoreClosed(f"The store {self.path} was closed.", "Open it again.", path=self.path)

    def read_mark(self) -> Mark:
        """To be taken before a read, and given to `is_settled` after it."""
        pages = self._detector
        return None if pages is None else pages.read_mark()

    def is_unchanged_since(self, mark: Mark) -> bool:
        """Whether what was read since `mark` is of one moment: it is read again if not. 1 µs.

        A checkpoint ran meanwhile: another SQLite library in this process may have dropped the locks that would have
        kept it from what was being read. Raises StoreDamaged if the file was overwritten.
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
                "Nothing was read or acknowledged after it: stop every process that uses the store, put the copy there "
                f"without a -wal and -shm file beside it, then say so: eventfold restored {shlex.quote(self.path)}.",
                path=self.path,
            )
            raise self.damage
        if self._immutable:  # a program that may write here has done so: what is in memory does not hold
            self.pool.close_idle()
        self.on_checkpoint()

    def is_in_place(self) -> bool:
        """Whether the path still leads to the file, and the WAL, that this process has open. 3 µs, or 6."""
        try:
            self.is_unchanged_since(self.read_mark())
        except StoreDamaged:
            return False
        if self._detector is not None and not self._detector.wal.is_intact():
            self.damage = self.overwritten = StoreDamaged(
                f"The write-ahead log of {self.path} was overwritten or cut while this process had it open.",
                "Nothing is acknowledged after it: stop every process that uses the store, copy its files as they are, "
                "and open it again, which says what is lost.",
                path=self.path,
            )
            return False
        mark = self._directory.current()
        if self._directory.is_unchanged(mark) and self._wal_id is not None:
            return True
        try:
            here, wal = _file_id(self.path), _file_id(self.real_path + "-wal")
        except OSError:  # the disk, or a right, is missing: this tells nothing about where the file is
            return True
        if here != self._file_id:
            self.damage = self._replaced_error("was replaced or removed")
            return False
        if self._immutable and wal is not None:  # a program that may write here has opened the file
            self._immutable = False
            self.pool.close_idle()
        if wal != self._wal_id:
            if self._wal_id is None:
                self._wal_id = wal
            else:
                self.damage = self._replaced_error("lost its write-ahead log")
                return False
        if self.path == self.real_path:  # a link could be turned elsewhere without a trace in this folder
            self._directory.remember(mark)
        return True

    def _replaced_error(self, what: str) -> StoreDamaged:
        return StoreDamaged(
            f"{self.path} {what} while this process had it open.",
            "Close the store and open it again; if a backup was put in its place, followers must start from it.",
            path=self.path,
        )

    def epoch_changed(self, known: int, found: int) -> StoreDamaged:
        """The error for a store that is in another epoch than when it was opened here. Nothing is read after it."""
        self.damage = StoreDamaged(
            f"{self.path} was opened in epoch {known}, and is in epoch {found} now: it was restored meanwhile.",
            "Close the store and open it again; what was remembered of it may be gone.",
            path=self.path,
            known=known,
            found=found,
        )
        return self.damage

    def history_lost(self, acknowledged: int, head: int) -> StoreDamaged:
        """The error for a log without the last event that is known to have been committed. Nothing is read after it."""
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
        """Whether the log holds what a process left that died, and only this process is there to bring it in."""
        if self.readonly or not self.guard.is_only_user:
            return False
        with suppress(OSError):
            return os.stat(f"{self.real_path}-wal").st_size > 0
        return False

    def close(self) -> None:
        """Close every connection that is not in use; those that are close when they are given back."""
        if self._closed or self.is_inherited:
            return
        self._closed = True
        self.pool.close()
        open_files.forkable_files.discard(self)
        open_files.unregister(self)
        self.lock.close()


def _file_id(path: str) -> tuple[int, int] | None:
    """Which file is there, or None. Raises OSError where that cannot be found out."""
    try:
        found = os.stat(path)  # stat opens nothing, so no lock is touched
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
