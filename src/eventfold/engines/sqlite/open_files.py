"""Files that this process has open: closed when idle, when no file descriptor is left, and before the process forks.

A file that was closed because it is idle is opened again by its next use, and then compared with what it was.
SQLite keeps in memory which locks its process holds on a file. A forked child inherits that memory but none of the
locks, so even a new connection in the child would work without locks. Hence no file may be open at the moment of a
fork: connections are closed before it and opened again on demand. If that was not possible in time, the child gets an
error when it opens the file.
Knows: which files are open, when each was used, the fork hooks. Does not know: how a file closes and opens itself.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar
from weakref import WeakSet

import apsw

from eventfold.core.mutex import Mutex
from eventfold.engines.sqlite.errors import DESCRIPTOR_ERRNOS
from eventfold.errors import InvalidInput, StoreUnavailable

T = TypeVar("T")
MIN_CHECK_INTERVAL_S, MAX_CHECK_INTERVAL_S = 0.05, 5.0
MIN_FILES_CLOSED = 8  # closed at once when no descriptor is left


class IdleFile(Protocol):
    """A file that can be closed while it is idle."""

    real_path: str
    max_idle: float | None
    last_used: float  # monotonic clock, in seconds

    def close_while_idle(self) -> bool:
        """Close everything, unless something is in use. Returns whether everything is closed."""
        ...


files: WeakSet[IdleFile] = WeakSet()
_mutex = Mutex()
_thread: threading.Thread | None = None


def check_max_idle(seconds: object) -> None:
    """Raises InvalidInput if `seconds` is not a positive number or None."""
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0):
        raise InvalidInput(
            f"max_idle={seconds!r} is not a length of time.", "Give a number of seconds above 0, or None for never."
        )


def register(file: IdleFile) -> None:
    """Close this file when it is idle, from now on."""
    _mutex.run(_register, file)


def unregister(file: IdleFile) -> None:
    """Forget a file that was closed."""
    _mutex.run(files.discard, file)


def retry_with_free_descriptors(work: Callable[[], T]) -> T:
    """Call `work`. If no file descriptor is left, close the files that are idle for longest and call it again."""
    try:
        return work()
    except (OSError, apsw.CantOpenError, apsw.IOError, StoreUnavailable) as error:
        if _errno_of(error) not in DESCRIPTOR_ERRNOS:
            raise
        by_use = sorted(_mutex.run(_list_files), key=lambda file: file.last_used)
        if not _close_idle(by_use, max(MIN_FILES_CLOSED, len(by_use) // 4)):
            raise
        return work()


def _errno_of(error: BaseException) -> object:
    if isinstance(error, StoreUnavailable):
        return error.fields.get("errno")
    return error.errno if isinstance(error, OSError) else getattr(error, "system_errno", 0)


def _close_idle(some: Iterable[IdleFile], most: int) -> int:
    closed = 0
    for file in some:
        if closed == most:
            break
        closed += file.close_while_idle()
    return closed


def _list_files() -> list[IdleFile]:
    return list(files)


def _register(file: IdleFile) -> None:
    global _thread
    files.add(file)
    if file.max_idle is not None and (_thread is None or not _thread.is_alive()):
        _thread = threading.Thread(target=_run_idle_check, name="eventfold-idle", daemon=True)
        _thread.start()


def _run_idle_check() -> None:
    """Close idle files periodically, until no open file has `max_idle` set."""
    while (pause := _mutex.run(_check_idle)) is not None:
        time.sleep(pause)


def _check_idle() -> float | None:
    """Check all files once. Returns the seconds to the next check, or None if none is needed."""
    global _thread
    limits: dict[str, float] = {}
    for file in tuple(files):
        if file.max_idle is not None:
            limits[file.real_path] = min(file.max_idle, limits.get(file.real_path, file.max_idle))
    if not limits:
        _thread = None
        return None
    now = time.monotonic()
    for file in tuple(files):  # the read models in a store's file are another object, to which its limit applies too
        if (limit := limits.get(file.real_path)) is not None and now - file.last_used > limit:
            file.close_while_idle()
    return min(max(min(limits.values()) / 4, MIN_CHECK_INTERVAL_S), MAX_CHECK_INTERVAL_S)


FileId = tuple[int, int]

fork_generation: int = 0  # number of forks between the first process and this one
inherited_files: set[FileId] = set()  # files that SQLite wrongly regards as open in this process


class Forkable(Protocol):
    """An open file that takes part in forks."""

    def close_before_fork(self) -> None:
        """Before a fork: close the file and block its use."""
        ...

    def reopen_after_fork(self) -> None:
        """After a fork, in the parent: allow its use again."""
        ...

    def abandon_after_fork(self) -> FileId | None:
        """After a fork, in the child: give up the file. Returns its id if it was still open at the fork."""
        ...


forkable_files: WeakSet[Forkable] = WeakSet()


def _before_fork() -> None:
    for each in tuple(forkable_files):
        each.close_before_fork()


def _after_fork_in_parent() -> None:
    for each in tuple(forkable_files):
        each.reopen_after_fork()


def _after_fork_in_child() -> None:
    global fork_generation, _mutex, _thread
    fork_generation += 1
    inherited_files.update(
        identity for each in tuple(forkable_files) if (identity := each.abandon_after_fork()) is not None
    )
    forkable_files.clear()
    _mutex, _thread = Mutex(), None  # the thread and the files belong to the parent
    files.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
