"""Room: a second hold on the store file, which no careless close can drop.

SQLite tells the last connection of all from the others by a POSIX lock, and every such lock of a process goes when
the process closes any descriptor of the file: `open("store.db").read(16)` is enough. The next program that closes
the store then takes itself for the last, removes the write-ahead log, and what is acknowledged afterwards goes to
a file that is not there any more. A lock of an open file description (Linux) on the same bytes does not go.
Knows: where SQLite's shared lock lies. Does not know: connections.
"""

from __future__ import annotations

import os
import struct

try:
    import fcntl
except ImportError:  # Windows: its locks belong to descriptors anyway
    fcntl = None  # type: ignore[assignment]

SHARED_FIRST, SHARED_SIZE = 0x40000002, 510  # sqlite.org/fileformat: the lock-byte page


class Guard:
    """Held from opening to closing. Where the system has no such locks, a lost log is noticed only afterwards."""

    def __init__(self) -> None:
        self._file: int | None = None

    def set(self, path: str) -> None:
        """Take hold of the file. It is opened once and read never; closed after SQLite's own descriptors."""
        command = getattr(fcntl, "F_OFD_SETLK", None)
        if fcntl is None or command is None:
            return
        lock = struct.pack("hhqqi", fcntl.F_RDLCK, os.SEEK_SET, SHARED_FIRST, SHARED_SIZE, 0)
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.fcntl(self._file, command, lock)
        except OSError:  # a file system without them: as on other systems
            self.lift()

    def lift(self) -> None:
        """Let go."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    __del__ = lift
