"""Room: a disk that fails when told to: SQLite's own file system with writes and syncs that can be refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import apsw

Fault = Callable[[], None]


def full() -> None:
    """There is no room."""
    raise apsw.FullError("disk full, as planted")


def broken() -> None:
    """The device reports an error."""
    raise apsw.IOError("input/output error, as planted")


class Disk(apsw.VFS):
    """The default file system of SQLite while it stands. `refuse` names an operation and what happens instead.

    Operations: "write wal", "sync wal", "write db", "sync db", "truncate db", "shm".
    """

    def __init__(self) -> None:
        self.base = apsw.vfs_names()[0]  # the default one
        super().__init__("faulty", self.base, makedefault=True)
        self._faults: dict[str, tuple[int, Fault]] = {}
        self.done: list[str] = []

    def refuse(self, operation: str, fault: Fault = broken, after: int = 0) -> None:
        """From now on, after so many more that succeed."""
        self._faults[operation] = (after, fault)

    def mend(self) -> None:
        """Everything works again."""
        self._faults.clear()

    def meet(self, operation: str) -> None:
        """Called before each operation."""
        self.done.append(operation)
        if operation in self._faults:
            left, fault = self._faults[operation]
            if left == 0:
                fault()
            self._faults[operation] = (left - 1, fault)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        """A file that asks the disk before each operation."""
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        super().__init__(disk.base, name, flags)
        self._disk = disk
        self._kind = "wal" if flags[0] & apsw.SQLITE_OPEN_WAL else "db"

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.meet(f"write {self._kind}")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._disk.meet(f"sync {self._kind}")
        super().xSync(flags)

    def xTruncate(self, size: int) -> None:
        self._disk.meet(f"truncate {self._kind}")
        super().xTruncate(size)


@contextmanager
def faulty_disk() -> Iterator[Disk]:
    """Connections opened inside work on a disk that may be told to fail; close them inside, too."""
    disk = Disk()
    try:
        yield disk
    finally:
        disk.mend()
        disk.unregister()
