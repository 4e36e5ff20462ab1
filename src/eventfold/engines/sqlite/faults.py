"""Room: what SQLite reports, in the library's words. No driver's traceback reaches a user.

Knows: apsw's exceptions. Does not know: what was being done; whoever calls says it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import wraps
from types import CoroutineType
from typing import Any, ParamSpec, TypeVar

import apsw

from eventfold.engines.sqlite.system import NO_DESCRIPTOR, NO_ROOM, disk_failed, probed, refused_by_system
from eventfold.errors import (
    EventfoldError,
    InvalidInput,
    NotAStore,
    StoreBusy,
    StoreDamaged,
    StoreReadOnly,
    StoreUnavailable,
)

P = ParamSpec("P")
T = TypeVar("T")


def unwritten(error: apsw.Error, connection: apsw.Connection) -> bool:
    """Whether a commit that failed like this cannot have happened: there was no room for the frame that makes it one.

    After any other failure, of an fsync for example, that frame may be there, and survive.
    """
    if isinstance(error, apsw.FullError):
        return True
    return getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_WRITE and connection.system_errno in NO_ROOM


def keep_errno(error: BaseException, connection: apsw.Connection) -> None:
    """Remember with an error of SQLite's what the operating system had answered, for `translated`."""
    if isinstance(error, (apsw.CantOpenError, apsw.IOError)):
        number = connection.system_errno
        if isinstance(error, apsw.CantOpenError) and number in (0, errno.ENOENT):
            # SQLite has tried again without making the file, and no longer says why it could not be made.
            number = probed(connection.db_filename("main"))
        error.system_errno = number  # type: ignore[attr-defined]


def connected(path: str, **options: Any) -> apsw.Connection:
    """A connection to a file, with `apsw.Connection`'s options. SQLite does not say why one cannot be made: it is found
    out at once, before what stands in its way has gone.
    """
    try:
        return apsw.Connection(path, **options)
    except apsw.CantOpenError as error:
        error.system_errno = probed(path)  # type: ignore[attr-defined]
        raise


def translated(error: apsw.Error, path: str) -> EventfoldError:
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
            return refused_by_system(errno.ENOSPC, path)
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
                number = probed(path)
            return refused_by_system(number, path) if number else disk_failed(path, detail)
        case apsw.IOError():
            # Of reads, writes and syncs only what is beyond doubt: SQLite's own word for the rest is "disk I/O error".
            known = NO_ROOM | NO_DESCRIPTOR | {errno.EROFS, errno.ESTALE}
            return refused_by_system(number, path) if number in known else disk_failed(path, detail, number)
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


def disagreement(what: str) -> StoreDamaged:
    """The error for two places of the file that must agree and do not."""
    return StoreDamaged(
        f"The file is damaged: {what}.", "Stop writing to it, keep a copy as it is, and restore a backup.", detail=what
    )


def in_our_words(method: Callable[P, CoroutineType[Any, Any, T]]) -> Callable[P, CoroutineType[Any, Any, T]]:
    """Translates whatever SQLite raises inside an engine's method. The engine's first argument has `.path`."""

    @wraps(method)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await method(*args, **kwargs)
        except apsw.Error as error:
            raise translated(error, getattr(args[0], "path", "the store")) from error
        except UnicodeDecodeError as error:
            raise disagreement(f"a text in it is no text any more ({error.reason})") from error
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"{error.object!r} is no text that can be stored.", "Use text without lone surrogates."
            ) from error

    return wrapped
