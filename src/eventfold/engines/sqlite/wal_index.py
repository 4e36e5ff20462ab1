"""The WAL index (the file -shm), locked so that no SQLite library truncates it while another one uses it.

SQLite recognizes the first process that opens the index by a POSIX lock on one byte, and that process truncates the
file. A second SQLite library in the process (pandas, the module `sqlite3`) does not see the locks of the first,
which belong to the process, and drops all of them when it closes the file: the next opener, in any process, believes
it is the first, and a process that has the index mapped into memory dies of SIGBUS.
A lock of an open file description (Linux) is visible to every library and is not dropped.

Knows: how SQLite opens an index (sqlite.org/src/file/src/os_unix.c, unixLockSharedMemory). Does not know:
connections.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from eventfold.engines.sqlite import byte_range_locks

CHECKPOINT_LOCK_BYTE = 121  # locked during a checkpoint
MAPPED_BYTES = 136  # two copies of the header, and the progress of checkpoints
MAP_FAILED = ctypes.c_void_p(-1).value
OPEN_LOCK_BYTE = 128  # share-locked by every process that has the index open
TRUNCATED_BYTES = 3  # the size to which SQLite truncates an index that is not open
TRUNCATION_TIMEOUT_S = 1.0  # for another process that truncates it
POLL_INTERVAL_S = 0.001


class _Mapping:
    """The first bytes of an index, mapped read-only until the last reference is gone."""

    def __init__(self, file: int) -> None:
        """Raises OSError."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
        self._libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        self.address: int = self._libc.mmap(None, MAPPED_BYTES, mmap.PROT_READ, mmap.MAP_SHARED, file, 0)
        if self.address in (None, MAP_FAILED):
            self.address = 0
            raise OSError(ctypes.get_errno(), "mmap")

    def __del__(self) -> None:
        if self.address:
            self._libc.munmap(self.address, MAPPED_BYTES)


HeaderWords = Sequence[int]  # the mapped header in words of 8 bytes (sqlite.org/walformat)


class LockedIndex:
    """A descriptor that locks an index, and the mapped header after SQLite has written it."""

    def __init__(self, file: int) -> None:
        self.file = file
        self.header: HeaderWords | None = None

    def close(self, *, unlock: bool = True) -> None:
        """Release the lock, which a mapping in use would keep, and close the descriptor."""
        self.header = None
        if unlock:
            byte_range_locks.unlock(self.file, OPEN_LOCK_BYTE, 1)
        os.close(self.file)

    def map_header(self) -> None:
        """Map the header. Opens no other descriptor: closing one would drop SQLite's locks."""
        with suppress(OSError, AttributeError, ValueError):
            if self.header is None and os.fstat(self.file).st_size >= MAPPED_BYTES:
                mapping = _Mapping(self.file)
                words: Any = (ctypes.c_uint64 * (MAPPED_BYTES // 8)).from_address(mapping.address)
                words.mapping = mapping  # keeps the mapping alive
                self.header = memoryview(words).cast("B").cast("Q")  # read at each append: twice as fast as the array


def lock_index(database: str) -> int | None:
    """Lock the index of a database, before or after SQLite opens it. Returns the descriptor, or None on failure.

    It must stay open as long as this process uses the database: closing it drops the locks of SQLite's own descriptors.
    An index that no process has open is truncated, as by SQLite, which rebuilds it from the log.
    """
    try:
        file, writable = _open(f"{database}-shm", database)
    except OSError:
        return None
    try:
        if _lock(file, writable):
            return file
    except BaseException:
        os.close(file)
        raise
    os.close(file)
    return None


def _open(path: str, database: str) -> tuple[int, bool]:
    """Open the index. Returns the descriptor and whether it is writable. Permissions are those of the database."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC), True
    except FileNotFoundError:
        if not os.access(database, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise  # SQLite could open an index created here only read-only: let SQLite create it
        store = os.stat(database)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, store.st_mode & 0o777)
        if os.geteuid() == 0:
            with suppress(OSError):
                os.fchown(file, store.st_uid, store.st_gid)
        return file, True
    except OSError:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC), False


def _lock(file: int, writable: bool) -> bool:
    if not writable and not byte_range_locks.is_locked(file, OPEN_LOCK_BYTE, 1):
        return False  # it may be stale and cannot be truncated: SQLite uses one in memory
    end = time.monotonic() + TRUNCATION_TIMEOUT_S
    while True:
        if writable and byte_range_locks.try_lock(file, OPEN_LOCK_BYTE, 1, exclusive=True):
            os.ftruncate(file, TRUNCATED_BYTES)
            return byte_range_locks.try_lock(file, OPEN_LOCK_BYTE, 1)
        if byte_range_locks.try_lock(file, OPEN_LOCK_BYTE, 1):
            return True
        if time.monotonic() > end:
            return False
        time.sleep(POLL_INTERVAL_S)
