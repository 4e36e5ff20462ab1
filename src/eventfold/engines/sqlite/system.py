"""What the operating system refuses at a file of a store, in the library's words.

Knows: error numbers, and how to find out why a file could not be opened without opening it. Does not know: SQLite.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from contextlib import suppress
from functools import cache

from eventfold.errors import EventfoldError, NotAStore, StoreFull, StoreNotFound, StoreReadOnly, StoreUnavailable

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_DESCRIPTOR = {errno.EMFILE, errno.ENFILE}
NO_RIGHT = {errno.EACCES, errno.EPERM, errno.EROFS}
NO_FILE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
LONGEST_PATH = 512  # bytes of a path that SQLite opens
IN_MEMORY = {0x01021994: "tmpfs", 0x858458F6: "ramfs"}  # statfs(2)
NOT_DURABLE = "nothing there survives a restart of the machine"

_warned: set[str] = set()


def refused_by_system(number: int, path: str) -> EventfoldError:
    """The library's error for an error number of the operating system, met at a file of a store."""
    reason = os.strerror(number)
    if number in NO_ROOM:
        return StoreFull(
            f"There is no room to write to {path}: the disk or quota is full.",
            "Nothing of this append was written: make room, then append again.",
            path=path,
        )
    if number in NO_DESCRIPTOR:
        return StoreUnavailable(
            f"{path} cannot be opened: {_descriptors(number)}.",
            "Nothing was written and nothing is damaged: close files or stores that are not needed, or raise the limit "
            "(ulimit -n), then try again.",
            path=path,
            errno=number,
        )
    if number in NO_RIGHT:
        return StoreReadOnly(
            f"{path} cannot be opened or written to ({reason}).",
            "Nothing was written: check the rights of the file and its folder, and how its file system is mounted.",
            path=path,
            errno=number,
        )
    if number == errno.EISDIR:
        return NotAStore(f"{path} is a folder.", "Give the path of a file in it, for example store.db.", path=path)
    if number in NO_FILE:
        return StoreNotFound(
            f"{path} cannot be opened ({reason}).",
            "Check the path: every folder on the way to it must be there, and no name may be too long.",
            path=path,
            errno=number,
        )
    if number == errno.ESTALE:
        return StoreUnavailable(
            f"{path} is on a network file system that no longer knows it ({reason}).",
            "Mount it again; keep a store on a local disk.",
            path=path,
            errno=number,
        )
    return disk_failed(path, reason, number)


def _descriptors(number: int) -> str:
    if number == errno.ENFILE:
        return "the system has no file descriptor left"
    limit = ""
    with suppress(ImportError, OSError):  # no such module on Windows
        import resource

        limit = f" (its limit is {resource.getrlimit(resource.RLIMIT_NOFILE)[0]})"
    return f"this process has no file descriptor left{limit}"


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def file_system(path: str) -> str:
    """The kind of file system a file is on, where it is one in memory ("tmpfs", "ramfs"); otherwise nothing."""
    if sys.platform != "linux":
        return ""
    found = ctypes.create_string_buffer(1024)  # struct statfs, which begins with the kind
    with suppress(OSError, AttributeError):
        if _libc().statfs(os.fsencode(path), found) == 0:
            return IN_MEMORY.get(ctypes.c_long.from_buffer(found).value & 0xFFFFFFFF, "")
    return ""


def warn_of_memory(path: str, real: str) -> None:
    """A warning in the log named "eventfold", once a path, if the file will not survive a restart of the machine."""
    if path not in _warned and (kind := file_system(real)):
        import logging  # here: most stores are on a disk

        _warned.add(path)
        logging.getLogger("eventfold").warning("%s is on a %s: %s.", path, kind, NOT_DURABLE)


def disk_failed(path: str, reason: str, number: int = 0) -> StoreUnavailable:
    """The error for a disk that did not answer, of which it is not known that anything on it is damaged."""
    return StoreUnavailable(
        f"The system could not read or write {path} ({reason}).",
        "Nothing is known to be damaged: look at the disk and at the system's log (dmesg), then try again.",
        path=path,
        detail=reason,
        errno=number,
    )


def probed(path: str) -> int:
    """Why a file could not be opened, where SQLite does not say: found out without opening that file."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in NO_DESCRIPTOR:
            return error.errno
    if len(os.fsencode(path)) >= LONGEST_PATH:
        return errno.ENAMETOOLONG
    folder, missing = os.path.dirname(path) or ".", False
    try:
        os.stat(folder)
        if stat.S_ISDIR(os.stat(path).st_mode):
            return errno.EISDIR
        may_use = os.access(path, os.R_OK | os.W_OK)
    except FileNotFoundError as error:
        if not os.path.isdir(folder):
            return error.errno or 0
        may_use = missing = True
    except OSError as error:
        return error.errno or 0
    if not may_use or not os.access(folder, os.W_OK | os.X_OK):
        return errno.EACCES
    if hasattr(os, "statvfs"):
        room = os.statvfs(folder)
        if not room.f_bavail or (room.f_files and not room.f_favail):
            return errno.ENOSPC
    return errno.ENOENT if missing else 0
