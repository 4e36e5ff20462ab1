"""Files that are not used close what they have open: after a time, or when the process has no descriptor left.

A file that was closed so is opened again by its next use, and is then compared with what it was.
Knows: which files are open in this process, when each was used. Does not know: how a file closes and opens itself.
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
from eventfold.engines.sqlite.system import NO_DESCRIPTOR
from eventfold.errors import InvalidInput, StoreUnavailable

T = TypeVar("T")
SHORTEST_LOOK_S, LONGEST_LOOK_S = 0.05, 5.0
FEWEST_CLOSED = 8  # files closed when a descriptor is missing


class Idle(Protocol):
    """Something that has a file open, and may let go of it for a while."""

    real: str
    max_idle: float | None
    used: float  # when, by the monotonic clock

    def rest(self) -> bool:
        """Close everything, unless something is in use. Returns whether nothing is open any more."""
        ...


files: WeakSet[Idle] = WeakSet()
_mutex = Mutex()
_thread: threading.Thread | None = None


def check_max_idle(seconds: object) -> None:
    """Raises InvalidInput for what is no length of time."""
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0):
        raise InvalidInput(
            f"max_idle={seconds!r} is no length of time.", "Give a number of seconds above 0, or None for never."
        )


def add(file: Idle) -> None:
    """Look after a file from now on."""
    _mutex.run(_add, file)


def remove(file: Idle) -> None:
    """It is closed."""
    _mutex.run(files.discard, file)


def with_descriptors(work: Callable[[], T]) -> T:
    """What `work` returns; if the process has no descriptor left, again, once files not used for longest are closed."""
    try:
        return work()
    except (OSError, apsw.CantOpenError, apsw.IOError, StoreUnavailable) as error:
        if _errno_of(error) not in NO_DESCRIPTOR:
            raise
        by_use = sorted(_mutex.run(_open_files), key=lambda file: file.used)
        if not _rest(by_use, max(FEWEST_CLOSED, len(by_use) // 4)):
            raise
        return work()


def _errno_of(error: BaseException) -> object:
    if isinstance(error, StoreUnavailable):
        return error.fields.get("errno")
    return error.errno if isinstance(error, OSError) else getattr(error, "system_errno", 0)


def _rest(some: Iterable[Idle], most: int) -> int:
    closed = 0
    for file in some:
        if closed == most:
            break
        closed += file.rest()
    return closed


def _open_files() -> list[Idle]:
    return list(files)


def _add(file: Idle) -> None:
    global _thread
    files.add(file)
    if file.max_idle is not None and (_thread is None or not _thread.is_alive()):
        _thread = threading.Thread(target=_run, name="eventfold-idle", daemon=True)
        _thread.start()


def _run() -> None:
    """Close files that are idle for too long, until no open file has such a time."""
    while (pause := _mutex.run(_look)) is not None:
        time.sleep(pause)


def _look() -> float | None:
    """One look at all files. Returns how long to wait for the next, or None if none is needed."""
    global _thread
    limits: dict[str, float] = {}
    for file in tuple(files):
        if file.max_idle is not None:
            limits[file.real] = min(file.max_idle, limits.get(file.real, file.max_idle))
    if not limits:
        _thread = None
        return None
    now = time.monotonic()
    for file in tuple(files):  # rows in a store's own file are kept by another object, to which its limit applies, too
        if (limit := limits.get(file.real)) is not None and now - file.used > limit:
            file.rest()
    return min(max(min(limits.values()) / 4, SHORTEST_LOOK_S), LONGEST_LOOK_S)


def _in_child() -> None:
    """After a fork: the thread is the parent's, and so are the files."""
    global _mutex, _thread
    _mutex, _thread = Mutex(), None
    files.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
