"""Room: opening a store file: recognising it, creating it, the settings that make it durable, staying alive.

Knows: files, pragmas, forks. Does not know: events. But for one guard, the file is never opened outside SQLite:
closing such a descriptor drops SQLite's locks for the whole process, and acknowledged commits with them.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import sys
import time
from collections import deque
from functools import cache
from weakref import WeakSet

import apsw

from eventfold.engines.sqlite.faults import disagreement, translated
from eventfold.engines.sqlite.guard import Guard
from eventfold.engines.sqlite.lock import WriterLock
from eventfold.engines.sqlite.schema import APPLICATION_ID, CREATE, DEFINITIONS, LAYOUT
from eventfold.errors import (
    InvalidInput,
    NotAStore,
    StoreClosed,
    StoreDamaged,
    StoreNotFound,
    StoreReadOnly,
    StoreVersionMismatch,
)

IDLE = 8  # readers kept for the next caller; each may cache 16 MB of pages
GLANCE = 1.0  # seconds between looks at whether the file is still the one at its path

# Whether SQLite has the fix for the WAL-reset bug (sqlite.org/wal.html#walresetbug) does not matter here:
# checkpoints run under the writers' lock only. Writers in other programs are not ours to hold back.
_forks = 0
_open: WeakSet[File] = WeakSet()


class File:
    """A store file opened by this process: its connections, and whether it is still the file that was opened."""

    def __init__(self, path: str, *, readonly: bool, full: bool, timeout: float) -> None:
        if "\0" in path or path != path.encode("utf-8", "replace").decode():
            raise InvalidInput(f"{path!r} is no path that SQLite can open.", "Use a path in valid UTF-8.", path=path)
        self.path = os.path.abspath(path)
        self._real = os.path.realpath(path)  # where SQLite keeps the log's files, whatever links lead there
        self.readonly, self.full, self._timeout = readonly, full, timeout
        self.lock = WriterLock(self._real, timeout)
        self.damage: StoreDamaged | None = None
        self._guard = Guard()
        self._forks = _forks
        self._idle: deque[apsw.Connection] = deque()
        self._all: list[apsw.Connection] = []
        self._closed = False
        self._identity: tuple[int, int] | None = None
        self._wal_identity: tuple[int, int] | None = None
        self._glance_at = 0.0

    def open(self, create: bool) -> tuple[str, int]:
        """Recognise or create the store. Returns its id and epoch. Raises the errors that `Store` documents."""
        self._check_path(create)
        connection = self._connect(create)
        try:
            if self._is_new(connection):
                self._create(connection, create)
            _check_definitions(connection, self.path)
            found = connection.execute("SELECT id, epoch FROM store").fetchone()
            if found is None:
                raise disagreement("it has lost its id")
        except BaseException:
            connection.close()
            raise
        self._guard.set(self._real)
        self._identity, self._wal_identity = _identity(self.path), _identity(self._real + "-wal")
        self._all.append(connection)
        self._idle.append(connection)
        _open.add(self)
        return found

    def _check_path(self, create: bool) -> None:
        if os.path.isdir(self._real):
            raise NotAStore(
                f"{self.path} is a folder.", "Give the path of a file in it, for example store.db.", path=self.path
            )
        if os.path.exists(self._real):
            return
        if not create or self.readonly:
            raise StoreNotFound(
                f"There is no store at {self.path}.",
                f"Check the path, or create one: eventfold init {self.path}.",
                path=self.path,
            )
        if not os.path.isdir(os.path.dirname(self._real)):
            raise StoreNotFound(
                f"The folder of {self.path} does not exist.", "Create the folder first.", path=self.path
            )

    def _is_new(self, connection: apsw.Connection) -> bool:
        """Whether the file is empty. Raises NotAStore or StoreVersionMismatch if it is someone else's."""
        application = connection.pragma("application_id")
        layout = connection.pragma("user_version")
        if application == APPLICATION_ID and layout == LAYOUT:
            return False
        if application == APPLICATION_ID and layout > LAYOUT:
            raise StoreVersionMismatch(
                f"{self.path} has layout {layout}, and this eventfold knows layouts up to {LAYOUT}.",
                "Upgrade eventfold: pip install -U eventfold.",
                path=self.path,
                layout=layout,
            )
        if application == 0 and layout == 0 and not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
            return True
        raise NotAStore(
            f"{self.path} is an SQLite database of another program.",
            "Give the store a file of its own.",
            path=self.path,
        )

    def _create(self, connection: apsw.Connection, create: bool) -> None:
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
                    f"Create a store in it: eventfold init {self.path}.",
                    path=self.path,
                )
            connection.pragma("journal_mode", "wal")
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.execute(CREATE)
                connection.execute(
                    "INSERT INTO store VALUES (1, ?, 1, ?)", (secrets.token_hex(16), time.time_ns() // 1000)
                )
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {LAYOUT}")
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        finally:
            self.lock.release()

    def _connect(self, create: bool = False) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READONLY if self.readonly else apsw.SQLITE_OPEN_READWRITE
        if create and not self.readonly:
            flags |= apsw.SQLITE_OPEN_CREATE
        connection = apsw.Connection(self._real, flags=flags, statementcachesize=200)
        try:
            self._configure(connection)
        except BaseException:
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
        now = time.monotonic()
        if now > self._glance_at:
            self._glance_at = now + GLANCE
            self.in_place()
            self.check()
        try:
            return self._idle.pop()
        except IndexError:
            connection = self._connect()
            self._all.append(connection)
            return connection

    def done(self, connection: apsw.Connection) -> None:
        """Give a reader back."""
        if self._closed or len(self._idle) >= IDLE:
            self.discard(connection)
        else:
            self._idle.append(connection)

    def writer(self) -> apsw.Connection:
        """A new connection for the writer. Raises StoreReadOnly if the file cannot be written."""
        self.check()
        connection = None if self.readonly else self._connect()
        if connection is None or connection.readonly("main"):
            raise StoreReadOnly(
                f"{self.path} is open for reading only.",
                "Nothing was written: open it without readonly=True, with rights to write the file and its folder.",
                path=self.path,
            )
        self._all.append(connection)
        return connection

    def discard(self, connection: apsw.Connection) -> None:
        """Close a connection that is not needed, or cannot be trusted, any more."""
        if connection in self._all:
            self._all.remove(connection)
        connection.close(force=True)

    @property
    def inherited(self) -> bool:
        """Whether this process is a child, by fork, of the one that opened the file."""
        return self._forks != _forks

    def check(self) -> None:
        """Raise if this file may not be used: closed, inherited over a fork, or no longer the file at its path."""
        if self.inherited:
            raise StoreClosed(
                f"{self.path} was opened before this process was forked.",
                "Open a new Store in the child; the parent's connections cannot be shared.",
                path=self.path,
            )
        if self._closed:
            raise StoreClosed(f"The store {self.path} was closed.", "Open it again.", path=self.path)
        if self.damage is not None:
            raise self.damage

    def in_place(self) -> bool:
        """Whether the path still leads to the file, and the WAL, that this process has open. Two stat calls, 3 µs."""
        if _identity(self.path) != self._identity:
            self.damage = self._gone("was replaced or removed")
            return False
        wal = _identity(self._real + "-wal")
        if wal != self._wal_identity:
            if self._wal_identity is None:
                self._wal_identity = wal
            else:
                self.damage = self._gone("lost its write-ahead log")
                return False
        return True

    def _gone(self, what: str) -> StoreDamaged:
        return StoreDamaged(
            f"{self.path} {what} while this process had it open.",
            "Close the store and open it again; if a backup was put in its place, followers must start from it.",
            path=self.path,
        )

    def went_back(self, acknowledged: int, head: int) -> StoreDamaged:
        """The error for a log without the last event that is known to have been committed. Nothing is read after it."""
        self.damage = StoreDamaged(
            f"{self.path} ends at position {head} and does not hold the event acknowledged at position {acknowledged}.",
            f"If its write-ahead log ({self._real}-wal) was removed, put it back; if an older copy was put here on "
            f"purpose, remove {self.lock.path} and open the store again.",
            path=self.path,
            acknowledged=acknowledged,
            head=head,
        )
        return self.damage

    def disown(self) -> None:
        """In a forked child: keep the parent's connections from ever being closed, even by the end of the process."""
        for connection in self._all:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        self.lock.disown()

    def close(self) -> None:
        """Close every connection that is not in use; those that are close when they are given back."""
        if self._closed or self.inherited:
            return
        self._closed = True
        _open.discard(self)
        while self._idle:
            self.discard(self._idle.pop())
        self.lock.close()
        self._guard.lift()


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # stat opens nothing, so no lock is touched
    except OSError:
        return None
    return found.st_dev, found.st_ino


@cache
def _definitions() -> frozenset[tuple[str, str]]:
    connection = apsw.Connection(":memory:")
    connection.execute(CREATE)
    return frozenset(connection.execute(DEFINITIONS))


def _check_definitions(connection: apsw.Connection, path: str) -> None:
    """Tables, indexes and guards must be those that eventfold wrote; what others added beside them is theirs."""
    lost = _definitions().difference(connection.execute(DEFINITIONS))
    if lost:
        names = ", ".join(sorted(name for name, _ in lost))
        raise StoreDamaged(
            f"In {path} the definition of {names} is not the one that eventfold wrote.",
            "Stop writing to it, keep a copy as it is, and restore a backup.",
            path=path,
        )


def backup(source: apsw.Connection, path: str) -> None:
    """Copy a store page by page while it is in use; the copy begins a new epoch, so that cursors are verified."""
    if os.path.exists(path):
        raise NotAStore(f"{path} exists already.", "Give the backup a path of its own.", path=path)
    try:
        target = apsw.Connection(path)
        try:
            # In a snapshot, or every commit meanwhile would make it begin again.
            source.execute("BEGIN; SELECT 1 FROM store")
            try:
                with target.backup("main", source, "main") as copying:
                    while not copying.done:
                        copying.step(1_000)
            finally:
                source.execute("ROLLBACK")
            target.pragma("journal_mode", "wal")
            target.execute("UPDATE store SET epoch = epoch + 1")
            target.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except BaseException:
            target.close()
            for half in (path, path + "-journal", path + "-wal", path + "-shm"):
                if os.path.exists(half):
                    os.remove(half)
            raise
        target.close()
    except apsw.Error as error:
        raise translated(error, path) from error


def _forked() -> None:
    """In the child: nothing of the parent's is closed, ever: closing would undo what the parent is doing."""
    global _forks
    _forks += 1
    for file in tuple(_open):
        file.disown()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
