"""Room: whether files are still where they were, without touching them: a folder tells when its entries changed.

To ask each file would be a stat call on it, and since Linux 6.13 a file whose times were asked for gets new ones with
its next write: the commit after that waits for one more write to the disk (0.1 ms on ext4 without a journal).
Knows: one folder. Does not know: which files matter.
"""

from __future__ import annotations

import os
import time

COARSEST_TIMESTAMP_NS = 2_500_000_000  # ns: file systems keep times as coarsely as 2 s (FAT)


Stamp = tuple[int, int, int]  # which folder, and when its entries last changed


class DirectoryStamp:
    """The entries of a folder, as they were when the files in it were last found in order."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._remembered: Stamp | None = None

    def current(self) -> Stamp | None:
        """How it is now; to be taken before its files are looked at. One stat call, 2 µs."""
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_ctime_ns

    def is_unchanged(self, mark: Stamp | None) -> bool:
        """Whether nothing was created, removed or renamed here since what was kept."""
        return mark is not None and mark == self._remembered

    def remember(self, mark: Stamp | None) -> None:
        """The files were in order after this look; kept once it is so old that any change since would show."""
        if os.name == "posix" and mark is not None and 0 < mark[2] < time.time_ns() - COARSEST_TIMESTAMP_NS:
            self._remembered = mark
