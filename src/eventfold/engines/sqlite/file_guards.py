"""Guards a database file against careless closes in this process, and against use by a second name.

SQLite recognizes the last connection by a POSIX lock, and a process loses all its POSIX locks on a file when it
closes any descriptor of it: `open("store.db").read(16)` is enough. The next program that closes the store then
believes it is the last, removes the write-ahead log, and later commits go to a deleted file. A lock of an open file
description (Linux) on the same bytes is not lost.

The write-ahead log is beside the name by which a file is opened. With a hard link, or the file alone mounted
elsewhere, one file has two logs, and each overwrites the events of the other. So every process locks a byte far
behind the end of the file, which represents the directory entry by which it opened the file: other entries have
other bytes. An extended attribute of the file, the entry mark, names the entry from the first write until the log is
empty, so that a log left by a process that died is found.
Knows: locks of the operating system, directory entries, marks. Does not know: connections, the content of the file.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from eventfold.engines.sqlite import byte_range_locks
from eventfold.engines.sqlite.overwrite_detection import OverwriteDetector
from eventfold.engines.sqlite.wal_index import LockedIndex, lock_index
from eventfold.errors import StoreUnsafe

FIRST_SHARED_BYTE, SHARED_BYTES = 0x40000002, 510  # sqlite.org/fileformat: the lock-byte page
FIRST_ENTRY_BYTE = 1 << 61  # bytes that represent directory entries, beyond the largest file of SQLite
ENTRY_BYTES = (1 << 61) - 1
ENTRY_MARK_ATTRIBUTE = "user.eventfold.entry"
WAL_FORMAT = b"\2\2"  # at byte 18 of a database in WAL mode
NO_FILE_ID = (0, 0)

FileId = tuple[int, int]  # device and inode


class DirectoryEntry(NamedTuple):
    """The directory entry by which a file is opened; its write-ahead log is in the same directory."""

    folder: FileId
    name: str

    @property
    def byte(self) -> int:
        """The byte of the file that represents this entry."""
        text = f"{self.folder[0]}:{self.folder[1]}:{self.name}".encode("utf-8", "surrogateescape")
        return (
            FIRST_ENTRY_BYTE
            + int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") % (ENTRY_BYTES - 2)
            + 1
        )


class _EntryMark(NamedTuple):
    """The mark on a file: the entry by which it was last written to, and its write-ahead log."""

    file: FileId  # a copy has the attribute of the original, and another id
    folder: FileId
    log: FileId
    path: str

    def text(self) -> bytes:
        """The content of the attribute."""
        numbers = " ".join(str(number) for pair in self[:3] for number in pair)
        return f"1 {numbers} {self.path}".encode("utf-8", "surrogateescape")


class _GuardedFile:
    """A file that this process has open, shared by all its users in the process."""

    def __init__(self, id: FileId, file: int, path: str, entry: DirectoryEntry) -> None:
        self.id, self.files, self.path, self.entry = id, [file], path, entry
        self.index: LockedIndex | None = None  # of the write-ahead log
        self.users = 0

    def close(self, *, unlock: bool = True) -> None:
        """Close every descriptor and release the locks. `unlock` is False in a forked child."""
        while self.files:
            os.close(self.files.pop())
        if self.index is not None:
            self.index.close(unlock=unlock)
            self.index = None


_guarded_files: dict[FileId, _GuardedFile] = {}
_mutex = threading.RLock()  # reentrant: the garbage collector may release one guard while another is acquired


class FileGuard:
    """The guard of one user. All users of a file in the process share its descriptors; the last one closes them.

    Closing a descriptor earlier would drop the locks of SQLite's own descriptors. On systems without locks of open file
    descriptions a lost log is detected only later; on file systems without extended attributes a log that a
    dead process left under another name is not detected.
    """

    def __init__(self) -> None:
        self._file: _GuardedFile | None = None

    def acquire(self, path: str, create: bool) -> None:
        """Acquire the guard of the file at a path without links; `create`: create an empty file if there is none.

        Raises StoreUnsafe if the file has, or is in use by, another name; OSError if it cannot be opened.
        """
        if not hasattr(os, "O_CLOEXEC"):  # Windows: its locks belong to descriptors anyway
            return
        with _mutex:
            if self._file is not None:
                return
            entry = DirectoryEntry(_file_id(os.path.dirname(path) or "."), os.path.basename(path))
            held = self._find(path, entry, create)
            if held.entry != entry:
                raise _in_use_error(path, held.path)
            held.users += 1
            self._file = held

    def _find(self, path: str, entry: DirectoryEntry, create: bool) -> _GuardedFile:
        with suppress(FileNotFoundError):
            found = os.stat(path)
            _refuse_links(path, found)
            if (known := _guarded_files.get((found.st_dev, found.st_ino))) is not None:
                return known
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o644)
        try:
            found = os.fstat(file)
            id = found.st_dev, found.st_ino
            if (known := _guarded_files.get(id)) is not None:  # it was moved here since: keep this descriptor too
                known.files.append(file)
                return known
            _refuse_links(path, found)
            held = _GuardedFile(id, file, path, entry)
            byte_range_locks.try_lock(file, entry.byte, 1)
            mark = _read_mark(file)
            if _is_open_elsewhere(file, entry.byte):
                raise _in_use_error(path, mark.path if mark is not None and mark.file == id else "")
            if mark is not None and _has_wal_elsewhere(mark, id, path, entry):
                raise _wal_elsewhere_error(path, mark.path)
        except BaseException:
            os.close(file)
            raise
        _guarded_files[id] = held
        return held

    def lock_shared_early(self) -> None:
        """Do `lock_shared` before SQLite opens the file, if the file is in WAL mode already.

        Otherwise nothing is locked: to set WAL mode, or to roll back a journal, SQLite needs exclusive access.
        """
        if self._file is not None and self.is_wal_mode and not os.path.exists(f"{self._file.path}-journal"):
            self.lock_shared()

    @property
    def is_wal_mode(self) -> bool:
        """Whether the file is in WAL mode."""
        with suppress(OSError):  # SQLite reads the same bytes next and reports the error
            return self._file is not None and os.pread(self._file.files[0], 2, 18) == WAL_FORMAT
        return False

    def lock_shared(self) -> None:
        """Prevent other programs from believing that they are the first or last to open the file, until `release`."""
        held = self._file
        if held is None or not held.files:
            return
        with _mutex:
            if byte_range_locks.try_lock(held.files[0], FIRST_SHARED_BYTE, SHARED_BYTES) and held.index is None:
                index = lock_index(held.path)
                held.index = None if index is None else LockedIndex(index)

    def open_overwrite_detector(self, is_writing: Callable[[], bool]) -> OverwriteDetector | None:
        """A detector of overwrites, or None without a descriptor. Call it after SQLite has read the file."""
        held = self._file
        if held is None or not held.files:
            return None
        if held.index is not None:
            held.index.map_header()
        return OverwriteDetector(held.files[0], held.index, f"{held.path}-wal", is_writing)

    @property
    def is_only_user(self) -> bool:
        """Whether no other user, here or in another process, has the file open. False if unknown."""
        held = self._file
        if held is None or not held.files or held.users != 1 or not byte_range_locks.AVAILABLE:
            return False
        return not byte_range_locks.is_locked(held.files[0], held.entry.byte, 1)

    def write_entry_mark(self) -> None:
        """Mark the file with the entry by which it is written to. Call it before the first write; two system calls."""
        held = self._file
        if held is None or not held.files or not hasattr(os, "setxattr"):
            return
        log = NO_FILE_ID
        with suppress(OSError):
            log = _file_id(f"{held.path}-wal")
        text = _EntryMark(held.id, held.entry.folder, log, held.path).text()
        with suppress(OSError):  # a file system without attributes
            if _read_attribute(held.files[0]) != text:
                os.setxattr(held.files[0], ENTRY_MARK_ATTRIBUTE, text)

    def release(self) -> None:
        """Release the guard. The last user in the process removes the mark if the log is empty."""
        with _mutex:
            held, self._file = self._file, None
            if held is None:
                return
            held.users -= 1
            if held.users:
                return
            if _guarded_files.get(held.id) is held:
                del _guarded_files[held.id]
            if held.files:
                _remove_mark(held)
            held.close()

    __del__ = release


def refuse_links(path: str) -> None:
    """Raises StoreUnsafe if the file at a path has a second hard link. One stat call; a missing file is allowed."""
    with suppress(FileNotFoundError):
        _refuse_links(path, os.stat(path))


def _refuse_links(path: str, found: os.stat_result) -> None:
    if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
        raise StoreUnsafe(
            f"{path} has {found.st_nlink} names (hard links): each of them has a write-ahead log of its own.",
            "Nothing was written: remove the other names (find them with: find -samefile); use symbolic links instead.",
            path=path,
            links=found.st_nlink,
        )


def _in_use_error(path: str, other: str) -> StoreUnsafe:
    named = f", {other}" if other and other != path else ""
    return StoreUnsafe(
        f"{path} is in use by another name or mount{named}, with a write-ahead log of its own there.",
        "Nothing was written: let every process open it in the same folder; mount the folder, not the file alone.",
        path=path,
        other=other,
    )


def _wal_elsewhere_error(path: str, other: str) -> StoreUnsafe:
    return StoreUnsafe(
        f"{path} was last written to as {other}, and events may still be in the write-ahead log there.",
        "Nothing was written: open and close it there, or move that log (-wal) along with the file; if it is lost, "
        "what the file itself holds is in a copy of it: cp.",
        path=path,
        other=other,
    )


def _has_wal_elsewhere(mark: _EntryMark, id: FileId, path: str, entry: DirectoryEntry) -> bool:
    """Whether a non-empty log may exist beside another entry of the file."""
    if mark.file != id or (mark.folder == entry.folder and os.path.basename(mark.path) == entry.name):
        return False
    with suppress(OSError):
        here = _file_id(f"{path}-wal")
        if here == mark.log or (path == mark.path and here[1] == mark.log[1]):  # the log was moved with the file
            return False
    with suppress(OSError):
        if _file_id(os.path.dirname(mark.path)) == mark.folder:  # the other directory is visible here
            try:
                found = os.stat(f"{mark.path}-wal")
            except FileNotFoundError:
                return False
            return mark.log in (NO_FILE_ID, (found.st_dev, found.st_ino)) and found.st_size > 0
    return True


def _file_id(path: str) -> FileId:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _read_attribute(file: int) -> bytes:
    if not hasattr(os, "getxattr"):
        return b""
    try:
        return os.getxattr(file, ENTRY_MARK_ATTRIBUTE)
    except OSError:  # no mark, or a file system without attributes
        return b""


def _read_mark(file: int) -> _EntryMark | None:
    version, _, rest = _read_attribute(file).decode("utf-8", "surrogateescape").partition(" ")
    numbers = rest.split(" ", 6)
    if version != "1" or len(numbers) != 7 or not all(each.isdecimal() for each in numbers[:6]):
        return None
    a, b, c, d, e, f = map(int, numbers[:6])
    return _EntryMark((a, b), (c, d), (e, f), numbers[6])


def _remove_mark(held: _GuardedFile) -> None:
    """Remove the mark, unless it names another entry, the log is not empty, or another process has the file open."""
    file, byte = held.files[0], held.entry.byte
    mark = _read_mark(file)
    if mark is None or mark.folder != held.entry.folder or os.path.basename(mark.path) != held.entry.name:
        return
    with suppress(OSError):
        with suppress(FileNotFoundError):
            if os.stat(f"{held.path}-wal").st_size:
                return
        if not byte_range_locks.is_locked(file, byte, 1):
            os.removexattr(file, ENTRY_MARK_ATTRIBUTE)
            if byte_range_locks.is_locked(
                file, byte, 1
            ):  # another process opened the file meanwhile and relies on the mark
                os.setxattr(file, ENTRY_MARK_ATTRIBUTE, mark.text())


def _is_open_elsewhere(file: int, byte: int) -> bool:
    """Whether the file is open by another entry than the one of this byte."""
    end = FIRST_ENTRY_BYTE + ENTRY_BYTES
    before, after = byte - FIRST_ENTRY_BYTE, end - byte - 1
    return byte_range_locks.is_locked(file, FIRST_ENTRY_BYTE, before) or byte_range_locks.is_locked(
        file, byte + 1, after
    )


def _after_fork_in_child() -> None:
    """After a fork, in the child: the locks belong to the parent, and SQLite has none in the child."""
    global _mutex
    _mutex = threading.RLock()
    for held in _guarded_files.values():
        held.close(unlock=False)
    _guarded_files.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
