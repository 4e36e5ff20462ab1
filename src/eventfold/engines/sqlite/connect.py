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
from functools import cache
from typing import Any

import apsw

from eventfold.engines.sqlite import forks, idle, immutable
from eventfold.engines.sqlite.faults import connected, keep_errno
from eventfold.engines.sqlite.folder import Folder
from eventfold.engines.sqlite.guard import Guard, refuse_links
from eventfold.engines.sqlite.identity import Identity, give_birth, identity_of
from eventfold.engines.sqlite.lock import WriterLock
from eventfold.engines.sqlite.overwritten import Mark, Pages
from eventfold.engines.sqlite.pool import Pool
from eventfold.engines.sqlite.schema import APPLICATION_ID, CREATE, DEFINITIONS, LAYOUT, OLDEST
from eventfold.engines.sqlite.system import LONGEST_PATH, refused_by_system, warn_of_memory
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

JOURNAL_WAIT = 2.0  # seconds to wait for others to leave a file whose journal mode is to be set again
GLANCE = 1.0  # seconds between looks at whether the file is still the one at its path


class File:
    """A store file opened by this process: its connections, and whether it is still the file that was opened."""

    def __init__(self, path: str, *, readonly: bool, full: bool, timeout: float, max_idle: float | None = None) -> None:
        idle.check_max_idle(max_idle)
        if "\0" in path or path != path.encode("utf-8", "replace").decode():
            raise InvalidInput(f"{path!r} is no path that SQLite can open.", "Use a path in valid UTF-8.", path=path)
        self.path = os.path.abspath(path)
        self.real = os.path.realpath(path)  # where SQLite keeps the log's files, whatever links lead there
        self.readonly, self.full, self._timeout = readonly, full, timeout
        self.lock = WriterLock(self.real, timeout)
        self.damage: StoreDamaged | None = None
        self.wal_pages = 0
        self.guard = Guard()
        self._generation = forks.generation
        self.pool = Pool(self._connect, self._connect_writer, self._let_go)
        self._may_create = self._opened = self._closed = self._immutable = False
        self._identity: tuple[int, int] | None = None
        self._wal_identity: tuple[int, int] | None = None
        self._folder = Folder(os.path.dirname(self.real))
        self._glance_at = self._links_at = 0.0
        self._pages: Pages | None = None
        self.overwritten: StoreDamaged | None = None
        self.on_change: Callable[[], None] = lambda: None  # called when a checkpoint has changed the file
        self.max_idle, self.used = max_idle, time.monotonic()  # seconds; when a connection was asked for last
        self._resting = False

    def open(self, create: bool) -> Identity:
        """Recognise or create the store. Returns who it is. Raises the errors that `Store` documents."""
        return idle.with_descriptors(lambda: self._open(create))

    def _open(self, create: bool) -> Identity:
        existed = self.check_path(create)
        self._may_create = create and not self.readonly
        try:
            self.take()
            self.guard.set_early()
            self._immutable = self.guard.has_log and immutable.is_closed_for_good(self.real)
            forks.forkable.add(self)
            connection = self.pool.reader()
        except BaseException:
            self.guard.lift()
            raise
        try:
            if self._is_new(connection):
                self._create(connection, create, existed)
            check_definitions(connection, self.path)
            found = identity_of(connection)
            if self._log_ahead(connection):
                self.guard.set()
            self._identity, self._wal_identity = _identity(self.path), _identity(self.real + "-wal")
            self._pages = self.guard.pages(self.lock.is_held)
        except BaseException as error:
            keep_errno(error, connection)
            self.pool.discard(connection)
            self.lock.close()
            self.guard.lift()
            raise
        self._may_create, self._opened = False, True
        self.pool.done(connection)
        idle.add(self)
        warn_of_memory(self.path, self.real)
        return found

    def take(self) -> None:
        """Take hold of the file by the entry at the path. Raises StoreUnsafe if it has, or is used by, another one."""
        try:
            idle.with_descriptors(lambda: self.guard.take(self.real, self._may_create))
        except OSError as error:
            raise refused_by_system(error.errno or 0, self.path) from error

    def check_path(self, create: bool) -> bool:
        """Refuse a path at which no store can be, or is not and may not be made. Returns whether a file is there.

        Raises the errors of `open`.
        """
        if len(os.fsencode(self.real)) >= LONGEST_PATH:
            raise refused_by_system(errno.ENAMETOOLONG, self.path)
        try:
            found = os.stat(self.real)
        except FileNotFoundError:
            found = None
        except OSError as error:
            raise refused_by_system(error.errno or 0, self.path) from error
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise refused_by_system(errno.EISDIR, self.path)
        if found is not None and not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for its other end
            raise NotAStore(
                f"{self.path} is no file, but a pipe or a device.", "Give the path of a file.", path=self.path
            )
        if found is not None and (found.st_dev, found.st_ino) in forks.inherited:
            raise StoreClosed(
                f"{self.path} was in use when this process was forked, and SQLite cannot begin anew in the child.",
                "Fork when nobody reads or writes, or start processes by spawn.",
                path=self.path,
            )
        if found is not None:
            return True
        folder = os.path.dirname(self.real)
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
        if application == APPLICATION_ID and layout >= OLDEST:
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
            if existed and self.lock.noted():  # a store that lost its content is not to be made anew by accident
                raise StoreDamaged(
                    f"{self.path} is an empty file, and it was a store with events in it.",
                    f"Restore a backup; to begin anew, remove the file and {self.lock.path}.",
                    path=self.path,
                )
            connection.pragma("journal_mode", "wal")
            self.guard.mark()
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.execute(CREATE)
                give_birth(connection)
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

    def _log_ahead(self, connection: apsw.Connection) -> bool:
        """Whether the file has a write-ahead log, which is set again where another program has set another journal.

        Raises StoreUnsafe if that cannot be done since the file is in use. Who only reads may do without.
        """
        mode = connection.pragma("journal_mode")
        if mode == "wal" or self.readonly or connection.readonly("main"):
            return mode == "wal"
        self.lock.acquire()
        try:
            connection.set_busy_timeout(int(min(self._timeout, JOURNAL_WAIT) * 1000))
            if connection.pragma("journal_mode", "wal") != "wal":
                raise self._unlogged(mode)
        except (apsw.BusyError, apsw.LockedError) as error:
            raise self._unlogged(mode) from error
        finally:
            self.patient(connection)
            self.lock.release()
        return True

    def _unlogged(self, mode: str) -> StoreUnsafe:
        return StoreUnsafe(
            f"{self.path} was set to journal_mode={mode} by another program, and is in use: it cannot be set back to "
            "WAL, which a store needs.",
            "Nothing was written: close the other programs that have the file open, then open the store again.",
            path=self.path,
            journal_mode=mode,
        )

    def _connect(self) -> apsw.Connection:
        if self._resting:
            self._end_rest()
        return idle.with_descriptors(self._connect_once)

    def _connect_once(self) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READONLY if self.readonly else apsw.SQLITE_OPEN_READWRITE
        if self._may_create:
            flags |= apsw.SQLITE_OPEN_CREATE
        if self._immutable:
            connection = immutable.connected_immutable(self.real)
        else:
            connection = connected(self.real, flags=flags, statementcachesize=200)
        try:
            self._configure(connection)
            if self._opened:  # it opens the log as well: should that not be possible, it is said here
                mode = connection.pragma("journal_mode")
                if self._pages is None:
                    self._pages = self.guard.pages(self.lock.is_held)
                if mode != "wal" and not self.readonly and not self._immutable:
                    raise self._unlogged(mode)
        except BaseException as error:
            keep_errno(error, connection)
            connection.close()
            raise
        return connection

    def _configure(self, connection: apsw.Connection) -> None:
        self.patient(connection)
        # Closing must neither checkpoint outside the writers' lock nor unlink a WAL someone still writes to.
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        keep = ctypes.c_int(1)
        connection.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, ctypes.addressof(keep))
        connection.wal_autocheckpoint(0)
        connection.pragma("synchronous", "full" if self.full else "normal")
        connection.pragma("cache_size", -16_000)  # KiB
        connection.pragma("temp_store", "memory")
        if sys.platform == "darwin":
            connection.pragma("fullfsync", 1)  # there, a plain fsync leaves data in the drive's cache

    def patient(self, connection: apsw.Connection) -> None:
        """Let a connection wait for another program's lock as long as a writer waits for its turn."""
        connection.set_busy_timeout(int(self._timeout * 1000))

    def reader(self) -> apsw.Connection:
        """A connection for the caller alone, to be given back by `done` or `discard`."""
        self.check()
        self.used = now = time.monotonic()
        if now > self._glance_at or self._immutable:
            self._glance_at = now + GLANCE
            self.in_place()
            self.check()
        return self.pool.reader()

    def writer(self) -> apsw.Connection:
        """The connection for the writer, to be given back to the pool. Raises StoreReadOnly, StoreUnsafe."""
        self.check()
        self.used = now = time.monotonic()
        self.is_settled(self.mark())
        if now > self._links_at:
            refuse_links(self.real)
            self._links_at = now + GLANCE  # only now: where it is refused, it is looked at again the next time
        return self.pool.writer()

    def _connect_writer(self) -> apsw.Connection:
        connection = None if self.readonly else self._connect()
        if connection is None or connection.readonly("main"):
            raise StoreReadOnly(
                f"{self.path} is open for reading only.",
                "Nothing was written: open it without readonly=True, with rights to write the file and its folder.",
                path=self.path,
            )
        connection.set_wal_hook(self._wal_grew)
        self.guard.mark()
        return connection

    def _wal_grew(self, _connection: Any, _name: str, pages: int) -> int:
        self.wal_pages = pages
        return apsw.SQLITE_OK

    def pause(self) -> None:
        """Before a fork: no connection is open in the moment of it."""
        self.pool.pause()
        self._wal_identity = None  # with nobody here at the file, another program may rightly end its log

    def resume(self) -> None:
        """After it, in the parent."""
        self.pool.resume()

    def disown(self) -> forks.Identity | None:
        """After it, in the child: see forks.py."""
        self.lock.disown()
        return self._identity if self.pool.in_use else None

    def rest(self) -> bool:
        """Close everything, if nothing is in use, until the next connection is asked for. Returns whether it did."""
        return not self._resting and not self._closed and not self.inherited and self.pool.rest(self._rest)

    def _rest(self) -> None:
        self._resting = True
        self._wal_identity = None  # with nobody here at the file, another program may rightly end its log
        self.lock.rest()
        self._let_go()

    def _let_go(self) -> None:
        """No connection is open any more: neither is anything else of the file, nor mapped into memory."""
        self._pages = None
        self.guard.lift()

    def _end_rest(self) -> None:
        """Hold the file again, which must be the one that was opened. Its head is verified by the next read."""
        self.take()
        self.guard.set_early()
        self._resting = False
        if not self.in_place():
            self.check()

    @property
    def inherited(self) -> bool:
        """Whether this process is a child, by fork, of the one that opened the file."""
        return self._generation != forks.generation

    def check(self) -> None:
        """Raise if this file may not be used: closed, inherited over a fork, or no longer the file at its path."""
        if self._closed or self.damage is not None or self._generation != forks.generation:
            raise self._refusal()

    def _refusal(self) -> StoreClosed | StoreDamaged:
        if self.inherited:
            return StoreClosed(
                f"{self.path} was opened before this process was forked.",
                "Open a new Store in the child; the parent's connections cannot be shared.",
                path=self.path,
            )
        if self.damage is not None and not self._closed:
            return self.damage
        return StoreClosed(f"The store {self.path} was closed.", "Open it again.", path=self.path)

    def mark(self) -> Mark:
        """To be taken before a read, and given to `is_settled` after it."""
        pages = self._pages
        return None if pages is None else pages.mark()

    def is_settled(self, mark: Mark) -> bool:
        """Whether what was read since `mark` is of one moment: it is read again if not. 1 µs.

        A checkpoint ran meanwhile: another SQLite library in this process may have dropped the locks that would have
        kept it from what was being read. Raises StoreDamaged if the file was overwritten.
        """
        pages = self._pages
        if pages is None or pages.is_settled(mark):
            return True
        self._settle(pages)
        return self.mark() == mark and not self._immutable

    def _settle(self, pages: Pages) -> None:
        if not pages.settle():
            self.damage = self.overwritten = StoreDamaged(
                f"{self.path} was overwritten (cp, rsync --inplace) while this process had it open.",
                "Nothing was read or acknowledged after it: stop every process that uses the store, put the copy there "
                f"without a -wal and -shm file beside it, then say so: eventfold restored {shlex.quote(self.path)}.",
                path=self.path,
            )
            raise self.damage
        if self._immutable:  # a program that may write here has done so: what is in memory does not hold
            self.pool.close_idle()
        self.on_change()

    def in_place(self) -> bool:
        """Whether the path still leads to the file, and the WAL, that this process has open. 3 µs, or 6."""
        try:
            self.is_settled(self.mark())
        except StoreDamaged:
            return False
        if self._pages is not None and not self._pages.log.is_whole():
            self.damage = self.overwritten = StoreDamaged(
                f"The write-ahead log of {self.path} was overwritten or cut while this process had it open.",
                "Nothing is acknowledged after it: stop every process that uses the store, copy its files as they are, "
                "and open it again, which says what is lost.",
                path=self.path,
            )
            return False
        mark = self._folder.look()
        if self._folder.same(mark) and self._wal_identity is not None:
            return True
        try:
            here, wal = _identity(self.path), _identity(self.real + "-wal")
        except OSError:  # the disk, or a right, is missing: this tells nothing about where the file is
            return True
        if here != self._identity:
            self.damage = self._gone("was replaced or removed")
            return False
        if self._immutable and wal is not None:  # a program that may write here has opened the file
            self._immutable = False
            self.pool.close_idle()
        if wal != self._wal_identity:
            if self._wal_identity is None:
                self._wal_identity = wal
            else:
                self.damage = self._gone("lost its write-ahead log")
                return False
        if self.path == self.real:  # a link could be turned elsewhere without a trace in this folder
            self._folder.keep(mark)
        return True

    def _gone(self, what: str) -> StoreDamaged:
        return StoreDamaged(
            f"{self.path} {what} while this process had it open.",
            "Close the store and open it again; if a backup was put in its place, followers must start from it.",
            path=self.path,
        )

    def was_restored(self, known: int, found: int) -> StoreDamaged:
        """The error for a store that is in another epoch than when it was opened here. Nothing is read after it."""
        self.damage = StoreDamaged(
            f"{self.path} was opened in epoch {known}, and is in epoch {found} now: it was restored meanwhile.",
            "Close the store and open it again; what was remembered of it may be gone.",
            path=self.path,
            known=known,
            found=found,
        )
        return self.damage

    def went_back(self, acknowledged: int, head: int) -> StoreDamaged:
        """The error for a log without the last event that is known to have been committed. Nothing is read after it."""
        self.damage = StoreDamaged(
            f"{self.path} ends at position {head} and does not hold the event acknowledged at position {acknowledged}.",
            f"If its write-ahead log ({self.real}-wal) was removed, put it back; if an older copy was put here on "
            f"purpose, say so: eventfold restored {shlex.quote(self.path)}.",
            path=self.path,
            acknowledged=acknowledged,
            head=head,
        )
        return self.damage

    @property
    def left_behind(self) -> bool:
        """Whether the log holds what a process left that died, and only this process is there to bring it in."""
        if self.readonly or not self.guard.alone:
            return False
        with suppress(OSError):
            return os.stat(f"{self.real}-wal").st_size > 0
        return False

    def close(self) -> None:
        """Close every connection that is not in use; those that are close when they are given back."""
        if self._closed or self.inherited:
            return
        self._closed = True
        self.pool.close()
        forks.forkable.discard(self)
        idle.remove(self)
        self.lock.close()


def _identity(path: str) -> tuple[int, int] | None:
    """Which file is there, or None. Raises OSError where that cannot be found out."""
    try:
        found = os.stat(path)  # stat opens nothing, so no lock is touched
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


@cache
def _definitions() -> frozenset[tuple[str, str]]:
    connection = apsw.Connection(":memory:")
    connection.execute(CREATE)
    return frozenset(connection.execute(DEFINITIONS))


def check_definitions(connection: apsw.Connection, path: str) -> None:
    """Tables, indexes and guards must be those that eventfold wrote; what others added beside them is theirs."""
    lost = _definitions().difference(connection.execute(DEFINITIONS))
    if lost:
        names = ", ".join(sorted(name for name, _ in lost))
        raise StoreDamaged(
            f"In {path} the definition of {names} is not the one that eventfold wrote.",
            "Stop writing to it, keep a copy as it is, and restore a backup.",
            path=path,
        )
