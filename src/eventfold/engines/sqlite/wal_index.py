"""The index of the write-ahead log (the file -shm), held so that no SQLite library begins it again under another one.

SQLite tells the first that opens the index from the others by a POSIX lock on one of its bytes, and the first one cuts
the file down to nothing. A second SQLite library in the process (pandas, the module `sqlite3`) does not see the locks
of the other, which are the process's own, and drops all of them whenever it closes the file: the next to open it takes
itself for the first, in this process or in another one, and whoever has the index mapped into memory dies of SIGBUS.
A lock of an open file description (Linux) is seen by every library and dropped by none.

Knows: how SQLite opens an index (sqlite.org/src/file/src/os_unix.c, unixLockSharedMemory). Does not know: connections.
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

CHECKPOINT_LOCK_BYTE = 121  # the byte that a checkpoint holds a lock on
MAPPED_BYTES = 136  # bytes: two copies of the header, and how far checkpoints have come
MAP_FAILED = ctypes.c_void_p(-1).value
OPEN_LOCK_BYTE = 128  # the byte that whoever has the index open holds a shared lock on
TRUNCATED_BYTES = 3  # bytes: the size to which SQLite cuts an index that nobody has open
TRUNCATION_TIMEOUT_S = 1.0  # how long another process may be at cutting it
POLL_INTERVAL_S = 0.001


class _Mapping:
    """The beginning of an index in memory, for reading only, until nothing refers to it."""

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


HeaderWords = Sequence[int]  # the header of an index by 8 bytes (sqlite.org/walformat), as it is at every moment


class LockedIndex:
    """A descriptor that holds an index, and what its header says once SQLite has written it."""

    def __init__(self, file: int) -> None:
        self.file = file
        self.header: HeaderWords | None = None

    def close(self, *, unlock: bool = True) -> None:
        """Close the descriptor, and drop the lock, which a mapping that is still in use would keep."""
        self.header = None
        if unlock:
            byte_range_locks.unlock(self.file, OPEN_LOCK_BYTE, 1)
        os.close(self.file)

    def map_header(self) -> None:
        """Let `words` tell what the header says. Not a descriptor more: closing one would drop SQLite's locks."""
        with suppress(OSError, AttributeError, ValueError):
            if self.header is None and os.fstat(self.file).st_size >= MAPPED_BYTES:
                mapping = _Mapping(self.file)
                words: Any = (ctypes.c_uint64 * (MAPPED_BYTES // 8)).from_address(mapping.address)
                words.mapping = mapping  # there as long as the words are
                self.header = words


def lock_index(database: str) -> int | None:
    """A descriptor that holds the index of a database, taken before SQLite opens it or afterwards; None if it cannot.

    It must stay open as long as this process uses the database: closing it drops the locks of SQLite's own descriptors.
    An index that nobody has open is cut, as by SQLite, and is read from the log again.
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
    """A descriptor of the index, and whether it may be written to. Who may write the database may write its index."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC), True
    except FileNotFoundError:
        if not os.access(database, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise  # SQLite could open what is made here for reading only: let it make one itself
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
        return False  # what is in it may be of a process that died, and cannot be cut: SQLite makes one in memory
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
