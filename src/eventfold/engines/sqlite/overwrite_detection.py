"""Detects that a database file or its write-ahead log was overwritten in place: `cp old.db live.db`, `truncate`, `dd`.

In WAL mode only checkpoints write to the database file, and the WAL index shows each one before its first write: if the
file has another time or size but the index is unchanged, the file was overwritten.
SQLite writes to the WAL where the index says, without reading it: in an overwritten WAL, new events are unreadable.
Knows: times and sizes of files, the formats of WAL and index (sqlite.org/walformat). Does not know: connections, the
content of pages.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from eventfold.core.mutex import Mutex
from eventfold.engines.sqlite import byte_range_locks
from eventfold.engines.sqlite.wal_index import CHECKPOINT_LOCK_BYTE, HeaderWords, LockedIndex

# Offsets in the index header, in words of 8 bytes: frames in the WAL, its salt, frames copied, frames to copy.
FRAMES_WORD, SALT_WORD, COPIED_WORD, ATTEMPTED_WORD = 2, 4, 12, 16
LOW_32_BITS = 0xFFFFFFFF  # the half of a word that contains a number of frames
WAL_HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24  # bytes
IS_LITTLE_ENDIAN = sys.byteorder == "little"
HEADER_SALT_OFFSET, FRAME_SALT_OFFSET = 16, 8  # of 8 bytes each


class WalFile:
    """The file -wal of a database. Its descriptor is opened by the first check and closed with this object.

    Closing it drops no lock: SQLite locks the database and the index, never the WAL.
    """

    def __init__(self, path: str, header: HeaderWords | None) -> None:
        """`header`: the mapped header of the index, valid while the index is locked."""
        self._file = -1
        self._path, self._header = path, header
        self._last_frame = (0, 0)  # the last frame seen, and the salt of its WAL
        self._frame_size = 0  # bytes; known once the index has a header, and then the same for all time

    def is_intact(self) -> bool:
        """Whether the WAL contains the last frame seen, or begins as the index says. True if unknown.

        One system call, 2 µs. Overwriting elsewhere in the WAL is detected by reads.
        """
        words = self._header
        if words is None or not IS_LITTLE_ENDIAN:
            return True
        for _ in range(3):  # attempts: another process may be writing the header of the index
            salt, frames = words[SALT_WORD], words[FRAMES_WORD] & LOW_32_BITS
            if not frames:  # restarted: its header is written with the first frame
                return True
            last, of = self._last_frame
            place = (
                WAL_HEADER_BYTES + (last - 1) * self._frame_size + FRAME_SALT_OFFSET
                if of == salt
                else HEADER_SALT_OFFSET
            )
            try:
                if self._file < 0:
                    self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
                found = os.pread(self._file, 8, place)
            except OSError:  # removal is detected elsewhere; without a descriptor nothing is known
                return True
            if int.from_bytes(found, "little") == salt:
                if of != salt:
                    self._frame_size = _frame_size(words)
                self._last_frame = (frames, salt)
                return True
            if words[SALT_WORD] != salt:  # restarted meanwhile
                return True
        return False

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)


def _frame_size(words: HeaderWords) -> int:
    size = words[1] >> 48  # two bytes; 1 stands for 65,536
    return FRAME_HEADER_BYTES + (size & 0xFE00) + ((size & 1) << 16)


Mark = tuple[int, int, int] | None


class OverwriteDetector:
    """Detects writes to one database file that are not by a checkpoint."""

    def __init__(self, file: int, index: LockedIndex | None, wal_path: str, is_writing: Callable[[], bool]) -> None:
        """`file` and `index` must stay open; `is_writing`: whether a process may be running a checkpoint."""
        self._file, self._index, self._is_writing = file, index, is_writing
        self._header: HeaderWords | None = None if index is None else index.header
        self._mutex = Mutex()
        self.wal = WalFile(wal_path, self._header)
        self._state: Mark = (
            self._read_state()
        )  # read before the time of the file, which then includes all earlier writes
        self._stat = self._stat_file()

    def read_mark(self) -> Mark:
        """Call it before a read, and pass the result to `is_unchanged_since` afterwards. No system call."""
        return self._read_state()

    def is_unchanged_since(self, mark: Mark) -> bool:
        """Whether nothing wrote to the file since it was last verified, and no checkpoint ran since `mark`.

        One system call (fstat). If it is False, call `accept_checkpoint`.
        """
        state = self._read_state()
        if state == mark and self._stat_file() == self._stat:
            self._state = state
            return True
        return False

    def is_unchanged(self) -> bool:
        """Whether nothing wrote to the file since it was last verified. One system call, as `is_unchanged_since`."""
        words = self._header  # as in `_read_state` and `_stat_file`
        state = None if words is None else (words[SALT_WORD], words[COPIED_WORD], words[ATTEMPTED_WORD])
        found = os.fstat(self._file)
        if (found.st_mtime_ns, found.st_size) == self._stat:
            self._state = state
            return True
        return False

    def accept_checkpoint(self) -> bool:
        """Accept writes that may be of a checkpoint. Returns False if the file was overwritten.

        One thread at a time: a size that was read before another thread accepted a larger one looks like a shrunk file.
        """
        return self._mutex.run(self._accept)

    def _accept(self) -> bool:
        state = self._read_state()
        stat = self._stat_file()
        if stat == self._stat:
            self._state = state
            return True
        if stat[1] < self._stat[1]:  # the database of an append-only log never shrinks
            return False
        if self._header is None:
            self._stat = stat
            return True
        if state == self._state:
            if self._is_checkpointing(self._header):
                return True  # decided after it ends
            return self._read_state() != state
        self._state, self._stat = state, stat
        return True

    def _is_checkpointing(self, words: HeaderWords) -> bool:
        """Whether a checkpoint may be running: it has begun and not ended."""
        if words[COPIED_WORD] & LOW_32_BITS == words[ATTEMPTED_WORD] & LOW_32_BITS:
            return False
        held = self._index is not None and byte_range_locks.is_locked(self._index.file, CHECKPOINT_LOCK_BYTE, 1)
        return held or self._is_writing()

    def _read_state(self) -> Mark:
        words = self._header
        return None if words is None else (words[SALT_WORD], words[COPIED_WORD], words[ATTEMPTED_WORD])

    def _stat_file(self) -> tuple[int, int]:
        found = os.fstat(self._file)
        return found.st_mtime_ns, found.st_size
