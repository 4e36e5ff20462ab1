"""Room: what SQLite reports, in the library's words. No driver's traceback reaches a user.

Knows: apsw's exceptions. Does not know: what was being done; whoever calls says it.

What the operating system refuses at a file of a store, in the library's words.

Knows: error numbers, and how to find out why a file could not be opened without opening it. Does not know: SQLite.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache, wraps
from types import CoroutineType
from typing import Any, ParamSpec, TypeVar

import apsw

from eventfold.errors import (
    EventfoldError,
    InvalidInput,
    NotAStore,
    StoreBusy,
    StoreDamaged,
    StoreFull,
    StoreNotFound,
    StoreReadOnly,
    StoreUnavailable,
)

DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
DESCRIPTOR_ERRNOS = {errno.EMFILE, errno.ENFILE}
PERMISSION_ERRNOS = {errno.EACCES, errno.EPERM, errno.EROFS}
NOT_FOUND_ERRNOS = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
MAX_PATH_BYTES = 512  # bytes of a path that SQLite opens
MEMORY_FILE_SYSTEMS = {0x01021994: "tmpfs", 0x858458F6: "ramfs"}  # statfs(2)
NOT_DURABLE = "nothing there survives a restart of the machine"

_warned_paths: set[str] = set()


def translate_errno(number: int, path: str) -> EventfoldError:
    """The library's error for an error number of the operating system, met at a file of a store."""
    reason = os.strerror(number)
    if number in DISK_FULL_ERRNOS:
        return StoreFull(
            f"There is no room to write to {path}: the disk or quota is full.",
            "Nothing of this append was written: make room, then append again.",
            path=path,
        )
    if number in DESCRIPTOR_ERRNOS:
        return StoreUnavailable(
            f"{path} cannot be opened: {_describe_descriptor_limit(number)}.",
            "Nothing was written and nothing is damaged: close files or stores that are not needed, or raise the limit "
            "(ulimit -n), then try again.",
            path=path,
            errno=number,
        )
    if number in PERMISSION_ERRNOS:
        return StoreReadOnly(
            f"{path} cannot be opened or written to ({reason}).",
            "Nothing was written: check the rights of the file and its folder, and how its file system is mounted.",
            path=path,
            errno=number,
        )
    if number == errno.EISDIR:
        return NotAStore(f"{path} is a folder.", "Give the path of a file in it, for example store.db.", path=path)
    if number in NOT_FOUND_ERRNOS:
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
    return disk_error(path, reason, number)


def _describe_descriptor_limit(number: int) -> str:
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


def memory_file_system(path: str) -> str:
    """The kind of file system a file is on, where it is one in memory ("tmpfs", "ramfs"); otherwise nothing."""
    if sys.platform != "linux":
        return ""
    found = ctypes.create_string_buffer(1024)  # struct statfs, which begins with the kind
    with suppress(OSError, AttributeError):
        if _libc().statfs(os.fsencode(path), found) == 0:
            return MEMORY_FILE_SYSTEMS.get(ctypes.c_long.from_buffer(found).value & 0xFFFFFFFF, "")
    return ""


def warn_if_in_memory(path: str, real: str) -> None:
    """A warning in the log named "eventfold", once a path, if the file will not survive a restart of the machine."""
    if path not in _warned_paths and (kind := memory_file_system(real)):
        import logging  # here: most stores are on a disk

        _warned_paths.add(path)
        logging.getLogger("eventfold").warning("%s is on a %s: %s.", path, kind, NOT_DURABLE)


def disk_error(path: str, reason: str, number: int = 0) -> StoreUnavailable:
    """The error for a disk that did not answer, of which it is not known that anything on it is damaged."""
    return StoreUnavailable(
        f"The system could not read or write {path} ({reason}).",
        "Nothing is known to be damaged: look at the disk and at the system's log (dmesg), then try again.",
        path=path,
        detail=reason,
        errno=number,
    )


def diagnose_open_failure(path: str) -> int:
    """Why a file could not be opened, where SQLite does not say: found out without opening that file."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in DESCRIPTOR_ERRNOS:
            return error.errno
    if len(os.fsencode(path)) >= MAX_PATH_BYTES:
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


P = ParamSpec("P")
T = TypeVar("T")


def is_uncommitted(error: apsw.Error, connection: apsw.Connection) -> bool:
    """Whether a commit that failed like this cannot have happened: there was no room for the frame that makes it one.

    After any other failure, of an fsync for example, that frame may be there, and survive.
    """
    if isinstance(error, apsw.FullError):
        return True
    return (
        getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_WRITE and connection.system_errno in DISK_FULL_ERRNOS
    )


def record_errno(error: BaseException, connection: apsw.Connection) -> None:
    """Remember with an error of SQLite's what the operating system had answered, for `translated`."""
    if isinstance(error, (apsw.CantOpenError, apsw.IOError)):
        number = connection.system_errno
        if isinstance(error, apsw.CantOpenError) and number in (0, errno.ENOENT):
            # SQLite has tried again without making the file, and no longer says why it could not be made.
            number = diagnose_open_failure(connection.db_filename("main"))
        error.system_errno = number  # type: ignore[attr-defined]


def connect(path: str, **options: Any) -> apsw.Connection:
    """A connection to a file, with `apsw.Connection`'s options. SQLite does not say why one cannot be made: it is found
    out at once, before what stands in its way has gone.
    """
    try:
        return apsw.Connection(path, **options)
    except apsw.CantOpenError as error:
        error.system_errno = diagnose_open_failure(path)  # type: ignore[attr-defined]
        raise


def translate_error(error: apsw.Error, path: str) -> EventfoldError:
    """The library's error for one of SQLite's."""
    detail = str(error)
    number: int = getattr(error, "system_errno", 0)
    match error:
        case apsw.BusyError() | apsw.LockedError():
            return StoreBusy(
                f"{path} was locked by another program for too long.",
                "Nothing was written: try again, or find who holds it (a backup, an open transaction).",
                path=path,
            )
        case apsw.FullError():
            return translate_errno(errno.ENOSPC, path)
        case apsw.ReadOnlyError() | apsw.PermissionsError() | apsw.AuthError():
            return StoreReadOnly(
                f"{path} cannot be written to ({detail}).",
                "Nothing was written: check the rights of the file and its folder.",
                path=path,
            )
        case apsw.NotADBError():
            return NotAStore(
                f"{path} is no SQLite file, or its beginning was overwritten.",
                "Check the path; if it was a store, restore a backup.",
                path=path,
            )
        case apsw.CorruptError() | apsw.SQLError():  # our SQL is the same for every store: what it names is gone
            return StoreDamaged(
                f"{path} is damaged ({detail}).",
                "Stop writing to it, keep a copy as it is, and restore a backup.",
                path=path,
            )
        case apsw.CantOpenError():
            if not hasattr(error, "system_errno"):
                number = diagnose_open_failure(path)
            return translate_errno(number, path) if number else disk_error(path, detail)
        case apsw.IOError():
            # Of reads, writes and syncs only what is beyond doubt: SQLite's own word for the rest is "disk I/O error".
            known = DISK_FULL_ERRNOS | DESCRIPTOR_ERRNOS | {errno.EROFS, errno.ESTALE}
            return translate_errno(number, path) if number in known else disk_error(path, detail, number)
        case apsw.NoMemError():
            return StoreUnavailable(
                f"There is no memory left to work on {path}.",
                "Nothing is known to be damaged: free some memory, then try again.",
                path=path,
            )
        case _:
            return StoreUnavailable(
                f"SQLite refused to work on {path}: {detail} ({type(error).__name__}).",
                "If it happens again, check the file (eventfold stats) and restore a backup if it is broken.",
                path=path,
                detail=detail,
            )


def inconsistency_error(what: str) -> StoreDamaged:
    """The error for two places of the file that must agree and do not."""
    return StoreDamaged(
        f"The file is damaged: {what}.", "Stop writing to it, keep a copy as it is, and restore a backup.", detail=what
    )


def translate_errors(method: Callable[P, CoroutineType[Any, Any, T]]) -> Callable[P, CoroutineType[Any, Any, T]]:
    """Translates whatever SQLite raises inside an engine's method. The engine's first argument has `.path`."""

    @wraps(method)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(*args, **kwargs)
        except apsw.Error as error:
            raise translate_error(error, getattr(args[0], "path", "the store")) from error
        except UnicodeDecodeError as error:
            raise inconsistency_error(f"a text in it is no text any more ({error.reason})") from error
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"{error.object!r} is no text that can be stored.", "Use text without lone surrogates."
            ) from error

    return wrapped
