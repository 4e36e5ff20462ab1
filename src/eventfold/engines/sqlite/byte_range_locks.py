"""Byte-range locks that belong to an open file description (Linux), not to the process.

Every SQLite library sees them, in this process and in others, and closing another descriptor does not drop them.
Knows: fcntl. Does not know: the meaning of a byte.
"""

from __future__ import annotations

import os
import struct

try:
    import fcntl
except ImportError:  # Windows: its locks belong to descriptors anyway
    fcntl = None  # type: ignore[assignment]

FLOCK_FORMAT = "hhqqi"  # struct flock
AVAILABLE = hasattr(fcntl, "F_OFD_SETLK")


def try_lock(file: int, first: int, size: int, *, exclusive: bool = False) -> bool:
    """Acquire a lock, or convert the held one, without waiting. Returns whether it was acquired."""
    if fcntl is None or not AVAILABLE:
        return False
    kind = fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK
    return _set_lock(file, first, size, kind)


def unlock(file: int, first: int, size: int) -> None:
    """Release locks on these bytes."""
    if fcntl is not None and AVAILABLE:
        _set_lock(file, first, size, fcntl.F_UNLCK)


def is_locked(file: int, first: int, size: int) -> bool:
    """Whether another open file description or process has a lock on any of these bytes. False if unknown."""
    if fcntl is None or not AVAILABLE:
        return False
    request = struct.pack(FLOCK_FORMAT, fcntl.F_WRLCK, os.SEEK_SET, first, size, 0)
    try:
        found = fcntl.fcntl(file, fcntl.F_OFD_GETLK, request)
    except OSError:
        return False
    return struct.unpack_from(FLOCK_FORMAT, found)[0] != fcntl.F_UNLCK


def _set_lock(file: int, first: int, size: int, kind: int) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack(FLOCK_FORMAT, kind, os.SEEK_SET, first, size, 0))
    except OSError:  # held elsewhere, or a file system without such locks
        return False
    return True
