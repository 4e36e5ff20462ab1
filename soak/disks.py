"""Layers under SQLite: one that fails at the nth call, and one that records what a power cut would leave.

Knows: apsw's VFS. Does not know: the files' content. It is for child processes, where it becomes SQLite's default.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

HEAD = struct.Struct("<cHqi")  # kind, length of the file's name, offset, length of the data
SECTOR = 512
Meet = Callable[[str, str, int, bytes], None]  # operation, path, offset, data


class Layer(apsw.VFS):
    """SQLite's own file system with a call before every operation that may fail, or be lost."""

    def __init__(self, meet: Meet) -> None:
        self.base = apsw.vfs_names()[0]
        self.meet = meet
        super().__init__("soak", self.base, makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        """Open a file that reports its operations."""
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name or "")
        self.meet("open", path, 0, b"")
        return File(self, name, flags, path)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        """Report the removal of a file, and remove it."""
        self.meet("delete", filename, 0, b"")
        super().xDelete(filename, syncdir)


class File(apsw.VFSFile):
    """A file that reports its operations to the layer's function before it runs them."""

    def __init__(self, layer: Layer, name: Any, flags: list[int], path: str) -> None:
        super().__init__(layer.base, name, flags)
        self._layer, self._path = layer, path

    def xRead(self, amount: int, offset: int) -> bytes:
        """Read."""
        self._layer.meet("read", self._path, offset, b"")
        return super().xRead(amount, offset)

    def xWrite(self, data: Any, offset: int) -> None:
        """Write."""
        self._layer.meet("write", self._path, offset, bytes(data))
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        """Sync."""
        self._layer.meet("sync", self._path, 0, b"")
        super().xSync(flags)

    def xTruncate(self, newsize: int) -> None:
        """Set the size."""
        self._layer.meet("truncate", self._path, newsize, b"")
        super().xTruncate(newsize)

    def xFileSize(self) -> int:
        """Return the size."""
        self._layer.meet("size", self._path, 0, b"")
        return super().xFileSize()

    def xLock(self, level: int) -> None:
        """Lock the file."""
        self._layer.meet("lock", self._path, 0, b"")
        super().xLock(level)


class Failing:
    """Fails at the nth call of one operation, a number of times."""

    def __init__(self) -> None:
        self.operation, self.left, self.times, self.fired = "", -1, 0, 0
        self._error: Callable[[], Exception] = IOError

    def arm(self, operation: str, nth: int, times: int, error: Callable[[], Exception]) -> None:
        """Fail from the nth call on, counted from 1 now, until it has failed `times` times."""
        self.operation, self.left, self.times, self._error = operation, nth, times, error

    def disarm(self) -> None:
        """Let everything work."""
        self.left, self.times = -1, 0

    def __call__(self, operation: str, path: str, offset: int, data: bytes) -> None:
        if operation != self.operation or self.times <= 0:
            return
        self.left -= 1
        if self.left <= 0:
            self.times -= 1
            self.fired += 1
            raise self._error()


class Recording:
    """Records every operation of all processes in one file; ends the process at the nth write or sync."""

    def __init__(self, path: Path, last: int) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._left = last

    def __call__(self, operation: str, path: str, offset: int, data: bytes) -> None:
        if operation not in ("write", "sync", "truncate", "delete"):
            return
        name = path.encode()
        head = HEAD.pack(operation[0].encode(), len(name), offset, len(data))
        os.write(self._file, head + name + data)
        self._left -= 1
        if self._left == 0:
            os._exit(0)


def after_power_cut(record: Path, into: Path, dice: random.Random) -> None:
    """Write the files as a disk may have them: all that was synced, and of the rest any sectors of any writes, or none.

    The removal of a file counts as synced: SQLite never relies on one that was not.
    """
    synced, pending = dict[str, bytearray](), dict[str, list[tuple[bytes, int, bytes]]]()
    for kind, name, offset, data in _operations(record.read_bytes()):
        if kind == b"d":
            synced.pop(name, None)
            pending.pop(name, None)
            continue
        content = synced.setdefault(name, bytearray())
        if kind == b"s":
            for each, at, what in pending.pop(name, []):
                _apply(content, each, at, what)
        else:
            pending.setdefault(name, []).append((kind, offset, data))
    keep = dice.choice((0.0, 1.0, 0.5, 0.9, dice.random()))
    torn = dice.random() < 0.5
    for name, rest in pending.items():
        for kind, offset, data in rest:
            if kind == b"t" or not torn:
                if dice.random() < keep:
                    _apply(synced[name], kind, offset, data)
                continue
            for start in range(0, len(data), SECTOR):
                if dice.random() < keep:
                    _apply(synced[name], kind, offset + start, data[start : start + SECTOR])
    for name, content in synced.items():
        (into / Path(name).name).write_bytes(content)


def _operations(text: bytes) -> Any:
    at = 0
    while at + HEAD.size <= len(text):
        kind, name, offset, size = HEAD.unpack_from(text, at)
        at += HEAD.size
        yield kind, text[at : at + name].decode(), offset, text[at + name : at + name + size]
        at += name + size


def _apply(content: bytearray, kind: bytes, offset: int, data: bytes) -> None:
    if kind == b"t":
        del content[offset:]
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data
