"""A faulty disk for tests: SQLite's own file system (VFS), with reads, writes, syncs and locks that can be refused."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import apsw

Fault = Callable[[], None]


def full() -> None:
    """Raise the error of a full disk."""
    raise apsw.FullError("disk full, as planted")


def broken() -> None:
    """Raise the error of a failing device."""
    raise apsw.IOError("input/output error, as planted")


EXTENDED = {
    "read": apsw.SQLITE_IOERR_READ,
    "write": apsw.SQLITE_IOERR_WRITE,
    "sync": apsw.SQLITE_IOERR_FSYNC,
    "truncate": apsw.SQLITE_IOERR_TRUNCATE,
    "size": apsw.SQLITE_IOERR_FSTAT,
    "lock": apsw.SQLITE_IOERR_LOCK,
    "unlock": apsw.SQLITE_IOERR_UNLOCK,
    "access": apsw.SQLITE_IOERR_ACCESS,
    "delete": apsw.SQLITE_IOERR_DELETE,
}


class Disk(apsw.VFS):
    """The default file system of SQLite while it is registered. `refuse` names an operation and the error it raises.

    Operations: "open", "read", "write", "sync", "truncate", "size", "lock" and "unlock", each followed by " db" or
    " wal", and "access" and "delete". The shared-memory index (-shm) is not covered: apsw has no calls for it here.
    """

    def __init__(self) -> None:
        self.base = apsw.vfs_names()[0]  # the name of the default file system
        super().__init__("faulty", self.base, makedefault=True)
        self._faults: dict[str, tuple[int, Fault]] = {}
        self._nth: tuple[int, Fault] | None = None
        self.number = errno.EIO
        self.done: list[str] = []

    def refuse_nth(self, n: int, fault: Fault | None = None) -> None:
        """Refuse the nth operation from now, of any kind, as the device would with the error `number`."""
        self.done.clear()
        self._nth = n, fault or self.fail

    def fail(self) -> None:
        """Raise the error of the latest operation with `number`, as the operating system's own calls do."""
        word = self.done[-1].split()[0]
        error = apsw.CantOpenError("planted") if word == "open" else apsw.IOError("planted")
        if word != "open":
            error.extendedresult = EXTENDED[word]
        raise error

    def xGetLastError(self) -> tuple[int, str]:
        """Return what `system_errno` reports."""
        return self.number, "planted"

    def refuse(self, operation: str, fault: Fault = broken, after: int = 0) -> None:
        """Refuse the operation from now on, after `after` more that succeed."""
        self._faults[operation] = (after, fault)

    def repair(self) -> None:
        """Remove every planted fault."""
        self._faults.clear()
        self._nth = None

    def meet(self, operation: str) -> None:
        """Count the operation and raise its planted fault, if any. Called before each operation."""
        self.done.append(operation)
        if self._nth is not None and len(self.done) == self._nth[0]:
            self._nth[1]()
        if operation in self._faults:
            left, fault = self._faults[operation]
            if left == 0:
                fault()
            self._faults[operation] = (left - 1, fault)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        """Open a file that reports to the disk before each operation."""
        self.meet(f"open {_kind(flags)}")
        return _File(self, name, flags)

    def xAccess(self, path: str, flags: int) -> bool:
        """Return whether a file exists, or may be used as the flags ask."""
        self.meet("access")
        return super().xAccess(path, flags)

    def xDelete(self, path: str, sync: bool) -> None:
        """Remove a file."""
        self.meet("delete")
        super().xDelete(path, sync)


def _kind(flags: list[int]) -> str:
    return "wal" if flags[0] & apsw.SQLITE_OPEN_WAL else "db"


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        super().__init__(disk.base, name, flags)
        self._disk = disk
        self._kind = _kind(flags)

    def xRead(self, amount: int, offset: int) -> bytes:
        self._disk.meet(f"read {self._kind}")
        return super().xRead(amount, offset)

    def xFileSize(self) -> int:
        self._disk.meet(f"size {self._kind}")
        return super().xFileSize()

    def xLock(self, level: int) -> None:
        self._disk.meet(f"lock {self._kind}")
        super().xLock(level)

    def xUnlock(self, level: int) -> None:
        self._disk.meet(f"unlock {self._kind}")
        super().xUnlock(level)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.meet(f"write {self._kind}")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._disk.meet(f"sync {self._kind}")
        super().xSync(flags)

    def xTruncate(self, size: int) -> None:
        self._disk.meet(f"truncate {self._kind}")
        super().xTruncate(size)


_gone: list[Disk] = []  # kept alive: a connection that the garbage collector closes late still calls its own disk


@contextmanager
def faulty_disk() -> Iterator[Disk]:
    """Yield a disk that fails on request. Open the connections that use it inside, and close them inside, too."""
    disk = Disk()
    try:
        yield disk
    finally:
        disk.repair()
        disk.unregister()
        _gone.append(disk)
