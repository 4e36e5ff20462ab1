"""Room: being told by Linux that a file was written to, so that whoever waits for that need not keep asking.

Knows: inotify, which Python lacks and the C library has; nothing is opened. Does not know: SQLite, what was written.
A hint and no more: where nobody tells, or it is told too early, asking now and then must do.
"""

from __future__ import annotations

import ctypes
import os
import select
import sys
from contextlib import suppress

from eventfold.core.mutex import Mutex

MODIFIED = 2  # IN_MODIFY


class Notice:
    """Waits until one file is written to. `wake` from any thread; waiting and closing are for one."""

    def __init__(self, path: str) -> None:
        """Raises OSError where the system does not tell: it is not Linux, or too many files are watched already."""
        if sys.platform != "linux":
            raise OSError("only Linux tells")
        libc = ctypes.CDLL(None, use_errno=True)
        self._told = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._told < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        if libc.inotify_add_watch(self._told, os.fsencode(path), MODIFIED) < 0:
            os.close(self._told)
            raise OSError(ctypes.get_errno(), "inotify_add_watch")
        self._woken = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._mutex = Mutex()
        self._closed = False
        self._either = select.poll()
        for each in (self._told, self._woken):
            self._either.register(each, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        """Whether the file was written to since the last wait; at the latest when the time is over, or on `wake`."""
        self._either.poll(seconds * 1000)
        with suppress(BlockingIOError):
            return bool(os.read(self._told, 65_536))
        return False

    def wake(self) -> None:
        """End a wait, this one or the next."""
        if sys.platform == "linux":
            self._mutex.run(self._wake)

    def _wake(self) -> None:
        if sys.platform == "linux" and not self._closed:
            os.eventfd_write(self._woken, 1)

    def close(self) -> None:
        """Let go of both descriptors."""
        self._mutex.run(self._close)

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._told)
            os.close(self._woken)

    def __del__(self) -> None:
        if hasattr(self, "_woken") and hasattr(self, "_closed"):  # no thread came to wait, and to close it
            self._close()


def notice_of(path: str) -> Notice | None:
    """A notice of a file, or None where the system does not tell."""
    try:
        return Notice(path)
    except (OSError, AttributeError):
        return None
