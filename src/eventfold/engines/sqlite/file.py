"""A store file that this process has open: its connections, its idle time, forks, and its closing.

Knows: the guard, lock, pool and presence of the file. Does not know: events. Apart from the guard's descriptor, the
file is never opened outside SQLite: closing such a descriptor drops SQLite's locks for the whole process, and
acknowledged commits may be lost.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import apsw

from eventfold.core.mutex import Mutex
from eventfold.engines.sqlite import open_files
from eventfold.engines.sqlite.connection import (
    READER_FLAGS,
    configure,
    connect_immutable,
    is_readable_without_locks,
    set_busy_timeout,
)
from eventfold.engines.sqlite.errors import connect, record_errno, translate_errno, warn_if_in_memory
from eventfold.engines.sqlite.file_guards import FileGuard, refuse_links
from eventfold.engines.sqlite.file_opening import check_path, create_store, ensure_wal_mode, is_new, not_wal_error
from eventfold.engines.sqlite.file_presence import FilePresence
from eventfold.engines.sqlite.pool import Pool
from eventfold.engines.sqlite.schema import Identity, check_definitions, read_identity
from eventfold.engines.sqlite.writer_lock import WriterLock
from eventfold.errors import InvalidInput, StoreClosed, StoreDamaged, StoreReadOnly

PRESENCE_CHECK_INTERVAL_S = 1.0  # between checks that the file is still the one at its path


class File:
    """A store file that this process has open. `presence`: whether it is still the file that was opened."""

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
        self.wal_pages = 0
        self.guard = FileGuard()
        self._fork_generation = open_files.fork_generation
        self.pool = Pool(self._connect_reader, self._connect_writer, self._release_guard)
        self.presence = FilePresence(self.path, self.real_path, self.pool.close_idle)
        self._may_create = self._opened = self._closed = False
        self._next_presence_check = self._next_link_check = 0.0
        self.on_reopen: Callable[[], None] = lambda: None  # called after the file was closed while idle
        self.max_idle, self.last_used = max_idle, time.monotonic()  # seconds; monotonic time of the last use
        self._is_idle = False
        self._reopen_mutex = Mutex()

    def open(self, create: bool) -> Identity:
        """Recognize or create the store. Returns its identity. Raises the errors that `Store` documents."""
        return open_files.retry_with_free_descriptors(lambda: self._open(create))

    def _open(self, create: bool) -> Identity:
        existed = self.check_path(create)
        self._may_create = create and not self.readonly
        try:
            self.acquire_guard()
            self.guard.lock_shared_early()
            self.presence.is_immutable = self.guard.is_wal_mode and is_readable_without_locks(self.real_path)
            open_files.forkable_files.add(self)
            connection = self.pool.reader()
        except BaseException:
            self.guard.release()
            raise
        try:
            if is_new(connection, self.path):
                create_store(connection, self.path, self.guard, self.lock, create=self._may_create, existed=existed)
            check_definitions(connection, self.path)
            found = read_identity(connection)
            if ensure_wal_mode(connection, self.path, self.lock, self._timeout):
                self.guard.lock_shared()
            self.presence.remember()
            self.presence.detector = self.guard.open_overwrite_detector(self.lock.is_held)
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
        """Refuse a path where a store cannot be opened: see file_opening.check_path."""
        return check_path(self.path, self.real_path, create and not self.readonly)

    def _connect_reader(self) -> apsw.Connection:
        return self._connect(READER_FLAGS)

    def _connect(self, more_flags: int = 0) -> apsw.Connection:
        was_idle = self._is_idle
        if was_idle:
            self._reopen_mutex.run(self._reacquire)
        connection = open_files.retry_with_free_descriptors(lambda: self._connect_once(more_flags))
        if was_idle:
            try:
                is_new(connection, self.path)  # raises if another version has upgraded it meanwhile
                check_definitions(connection, self.path)
            except BaseException:
                connection.close()
                self._release_all()  # the next use checks again
                raise
        return connection

    def _connect_once(self, more_flags: int) -> apsw.Connection:
        flags = more_flags | (apsw.SQLITE_OPEN_READONLY if self.readonly else apsw.SQLITE_OPEN_READWRITE)
        if self._may_create:
            flags |= apsw.SQLITE_OPEN_CREATE
        if self.presence.is_immutable:
            connection = connect_immutable(self.real_path, more_flags)
        else:
            connection = connect(self.real_path, flags=flags, statementcachesize=200)
        try:
            configure(connection, timeout=self._timeout, full_sync=self.full_sync)
            if self._opened:  # this also opens the WAL, so that a failure is reported here
                mode = connection.pragma("journal_mode")
                if self.presence.detector is None:
                    self.presence.detector = self.guard.open_overwrite_detector(self.lock.is_held)
                if mode != "wal" and not self.readonly and not self.presence.is_immutable:
                    raise not_wal_error(self.path, mode)
        except BaseException as error:
            record_errno(error, connection)
            connection.close()
            raise
        return connection

    def set_busy_timeout(self, connection: apsw.Connection) -> None:
        """Let a connection wait for locks of other programs for the store's timeout."""
        set_busy_timeout(connection, self._timeout)

    def reader(self) -> apsw.Connection:
        """A connection for reading, for this caller only. Return it by `pool.return_reader` or `pool.discard`."""
        self.check()
        self.last_used = now = time.monotonic()
        if now > self._next_presence_check or self.presence.is_immutable:
            self._next_presence_check = now + PRESENCE_CHECK_INTERVAL_S
            self.presence.is_in_place()
            self.check()
        return self.pool.reader()

    def writer(self) -> apsw.Connection:
        """The connection for writing. Return it to the pool. Raises StoreReadOnly, StoreUnsafe."""
        self.check()
        self.last_used = now = time.monotonic()
        pages = self.presence.detector
        if pages is not None and not pages.is_unchanged():
            self.presence.check_overwritten()
        if now > self._next_link_check:
            refuse_links(self.real_path)
            # Set after the check, so that the next call checks a refused file again.
            self._next_link_check = now + PRESENCE_CHECK_INTERVAL_S
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
        self.presence.forget_wal()

    def reopen_after_fork(self) -> None:
        """After a fork, in the parent."""
        self.pool.resume()

    def abandon_after_fork(self) -> open_files.FileId | None:
        """After a fork, in the child: see open_files.py."""
        self.lock.abandon_after_fork()
        return self.presence.file_id if self.pool.is_in_use else None

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
        self.presence.forget_wal()
        self.lock.close_unless_waiting()
        self._release_guard()

    def _release_guard(self) -> None:
        """After the last connection was closed: close the guard's descriptors and unmap the WAL index."""
        self.presence.detector = None
        self.guard.release()

    def _reacquire(self) -> None:
        """Open the file again, which must be the same file. The next read verifies its head."""
        if not self._is_idle:  # another thread has done it meanwhile
            return
        self.acquire_guard()
        self.guard.lock_shared_early()
        if not self.presence.is_in_place():
            self.check()
        self.on_reopen()
        self._is_idle = False  # last: until then no other thread has a connection, so no transaction is under way

    @property
    def is_idle(self) -> bool:
        """Whether it was closed while idle, until its next use."""
        return self._is_idle

    @property
    def is_inherited(self) -> bool:
        """Whether this process is a forked child of the process that opened the file."""
        return self._fork_generation != open_files.fork_generation

    def check(self) -> None:
        """Raises StoreClosed or StoreDamaged if the file may not be used: closed, inherited by a fork, replaced."""
        if self._closed or self.presence.damage is not None or self._fork_generation != open_files.fork_generation:
            raise self._unusable_error()

    def _unusable_error(self) -> StoreClosed | StoreDamaged:
        if self.is_inherited:
            return StoreClosed(
                f"{self.path} was opened before this process was forked.",
                "Open a new Store in the child: connections of the parent cannot be shared.",
                path=self.path,
            )
        if self.presence.damage is not None and not self._closed:
            return self.presence.damage
        return StoreClosed(f"The store {self.path} was closed.", "Open it again.", path=self.path)

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
