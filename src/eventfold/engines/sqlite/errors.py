"""Errors of SQLite and of the operating system, translated to the library's errors: users see none of the driver's.

Knows: the exceptions of apsw, error numbers, how to find out why a file cannot be opened without opening it. Does
not know: what was being done (the caller says it).
"""

from __future__ import annotations

import ctypes
import errno
import os
import shlex
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
    """The library's error for an error number of the operating system at a file of a store."""
    reason = os.strerror(number)
    if number in DISK_FULL_ERRNOS:
        return StoreFull(
            f"There is no space to write to {path}: the disk or quota is full.",
            "Nothing of this append was written: free space, then append again.",
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
    """The type of a file's file system if it is in memory ("tmpfs", "ramfs"), otherwise an empty string."""
    if sys.platform != "linux":
        return ""
    found = ctypes.create_string_buffer(1024)  # struct statfs, which begins with the type
    with suppress(OSError, AttributeError):
        if _libc().statfs(os.fsencode(path), found) == 0:
            return MEMORY_FILE_SYSTEMS.get(ctypes.c_long.from_buffer(found).value & 0xFFFFFFFF, "")
    return ""


def warn_if_in_memory(path: str, real: str) -> None:
    """Log a warning, once per path, if the file will not survive a restart of the machine. Logger: "eventfold"."""
    if path not in _warned_paths and (kind := memory_file_system(real)):
        import logging  # imported here: most stores are on a disk

        _warned_paths.add(path)
        logging.getLogger("eventfold").warning("%s is on a %s: %s.", path, kind, NOT_DURABLE)


def disk_error(path: str, reason: str, number: int = 0) -> StoreUnavailable:
    """The error for a failed read or write of the disk; the data may be undamaged."""
    return StoreUnavailable(
        f"The system could not read or write {path} ({reason}).",
        "Nothing is known to be damaged: check the disk and the system log (dmesg), then try again.",
        path=path,
        detail=reason,
        errno=number,
    )


def diagnose_open_failure(path: str) -> int:
    """The error number that explains why SQLite could not open a file, found without opening that file."""
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
        space = os.statvfs(folder)
        if not space.f_bavail or (space.f_files and not space.f_favail):
            return errno.ENOSPC
    return errno.ENOENT if missing else 0


P = ParamSpec("P")
T = TypeVar("T")


def is_uncommitted(error: apsw.Error, connection: apsw.Connection) -> bool:
    """Whether a failed COMMIT certainly wrote nothing: the disk had no space for its commit frame.

    After any other failure, for example of fsync, the frame may be in the file and survive.
    """
    if isinstance(error, apsw.FullError):
        return True
    return (
        getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_WRITE and connection.system_errno in DISK_FULL_ERRNOS
    )


def record_errno(error: BaseException, connection: apsw.Connection) -> None:
    """Store the error number of the operating system on an error of SQLite, for `translate_error`."""
    if isinstance(error, (apsw.CantOpenError, apsw.IOError)):
        number = connection.system_errno
        if isinstance(error, apsw.CantOpenError) and number in (0, errno.ENOENT):
            # SQLite retried without creating the file and has lost the reason why it could not be created.
            number = diagnose_open_failure(connection.db_filename("main"))
        error.system_errno = number  # type: ignore[attr-defined]


def connect(path: str, **options: Any) -> apsw.Connection:
    """Open a connection, with the options of `apsw.Connection`. SQLite does not report why opening fails, so the reason
    is determined at once.
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
                f"{path} was locked by another program until the timeout.",
                "Nothing was written: try again, or find the program that holds it (a backup, an open transaction).",
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
                f"{path} is not an SQLite file, or its header was overwritten.",
                "Check the path; if it was a store, restore a backup.",
                path=path,
            )
        case (
            apsw.CorruptError() | apsw.SQLError()
        ):  # the SQL is constant: an unknown table or column means a damaged schema
            return StoreDamaged(
                f"{path} is damaged ({detail}).",
                f"Stop writing to it, keep a copy as it is, and run eventfold verify {shlex.quote(path)}: it says if "
                "eventfold reindex is enough; otherwise restore a backup.",
                path=path,
            )
        case apsw.CantOpenError():
            if not hasattr(error, "system_errno"):
                number = diagnose_open_failure(path)
            return translate_errno(number, path) if number else disk_error(path, detail)
        case apsw.IOError():
            # Only error numbers that are certain; SQLite reports all others as "disk I/O error".
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


def as_eventfold_error(error: Exception, path: str) -> EventfoldError:
    """The library's error for any exception."""
    if isinstance(error, EventfoldError):
        return error
    if isinstance(error, apsw.Error):
        return translate_error(error, path)
    what = f"{type(error).__name__}: {str(error).rstrip('.')}."
    return StoreUnavailable(what, "See what it says.", path=path)


def refuse_full_disk(error: apsw.Error, connection: apsw.Connection, path: str, command: str) -> None:
    """Raises StoreFull if a command of eventfold, whose transaction was rolled back, failed for lack of space."""
    record_errno(error, connection)
    if isinstance(translate_error(error, path), StoreFull):
        raise StoreFull(
            f"There is no space for eventfold {command} at {path} or in the folder for temporary files.",
            f"Nothing was changed: free space, then run it again: eventfold {command} {shlex.quote(path)}.",
            path=path,
        ) from error


def inconsistency_error(what: str) -> StoreDamaged:
    """The error for two parts of the file that must agree and do not."""
    return StoreDamaged(
        f"The file is damaged: {what}.", "Stop writing to it, keep a copy as it is, and restore a backup.", detail=what
    )


def index_error(what: str) -> StoreDamaged:
    """The error for an index that does not agree with the events, from which it can be rebuilt."""
    return StoreDamaged(
        f"The file is damaged: {what}.",
        "Stop writing to it, keep a copy as it is, and run eventfold verify: it says if eventfold reindex is enough.",
        detail=what,
    )


def translate_errors(method: Callable[P, CoroutineType[Any, Any, T]]) -> Callable[P, CoroutineType[Any, Any, T]]:
    """Decorator: translate errors of SQLite raised by an engine's method. The engine has an attribute `path`."""

    @wraps(method)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(*args, **kwargs)
        except DRIVER_ERRORS as error:
            raise as_engine_error(error, getattr(args[0], "path", "the store")) from error

    return wrapped


DRIVER_ERRORS = (apsw.Error, UnicodeDecodeError, UnicodeEncodeError)


def as_engine_error(error: Exception, path: str) -> EventfoldError:
    """An error of SQLite, of DRIVER_ERRORS, as one of eventfold."""
    if isinstance(error, UnicodeDecodeError):
        return inconsistency_error(f"a text in it is not valid UTF-8 ({error.reason})")
    if isinstance(error, UnicodeEncodeError):
        return InvalidInput(f"{error.object!r} cannot be stored as text.", "Use text without lone surrogates.")
    assert isinstance(error, apsw.Error)
    return translate_error(error, path)
