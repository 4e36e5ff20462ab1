"""Whether pages of a database were written by something else than a checkpoint: `cp old.db live.db`, one inode.

Only checkpoints write to the database file while it has a write-ahead log, and each is seen in the log's index before
its first write: a file with another time or size, whose index says what it said, was overwritten.
Knows: times and sizes of a file, the index of its log. Does not know: connections, and what is in the pages.

Whether the write-ahead log is still the one that its index describes: `truncate`, `cp` and `dd` leave another one.

SQLite writes to it where its index says, whatever is there, and does not look at what it wrote before: the events go to
a file that no one can read again. Knows: the format of a log (sqlite.org/walformat). Does not know: connections.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from eventfold.engines.sqlite import byte_range_locks
from eventfold.engines.sqlite.wal_index import CHECKPOINT_LOCK_BYTE, HeaderWords, LockedIndex

# In the index's header, in words of 8 bytes: how many frames the log has; which log it is; frames in the file.
FRAMES_WORD, SALT_WORD, COPIED_WORD, ATTEMPTED_WORD = 2, 4, 12, 16
LOW_32_BITS = 0xFFFFFFFF  # the half of a word that counts frames
WAL_HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24  # bytes
IS_LITTLE_ENDIAN = sys.byteorder == "little"
HEADER_SALT_OFFSET, FRAME_SALT_OFFSET = 16, 8  # where the salt is in each, 8 bytes


class WalFile:
    """The file -wal of a database. A descriptor of it is kept from the first look on, until nothing refers to this.

    Closing it drops no lock: SQLite locks the database and the index, never the log.
    """

    def __init__(self, path: str, header: HeaderWords | None) -> None:
        """`words`: the header of the index, while it is held."""
        self._file = -1
        self._path, self._header = path, header
        self._last_frame = (0, 0)  # the last frame that was seen, and in which log

    def is_intact(self) -> bool:
        """Whether the log has the last frame that was seen, or else begins as its index says. True if it is unknown.

        One call of the system, 2 µs. What is overwritten elsewhere in the log is noticed by those who read it.
        """
        words = self._header
        if words is None or not IS_LITTLE_ENDIAN:
            return True
        # Three looks before it is said: another process may be at writing the header of the index.
        return self._matches_index(words) or self._matches_index(words) or self._matches_index(words)

    def _matches_index(self, words: HeaderWords) -> bool:
        salt, frames = words[SALT_WORD], words[FRAMES_WORD] & LOW_32_BITS
        if not frames:  # begun again: its header is written with the first frame
            return True
        last, of = self._last_frame
        place = (
            WAL_HEADER_BYTES + (last - 1) * self._frame_size(words) + FRAME_SALT_OFFSET
            if of == salt
            else HEADER_SALT_OFFSET
        )
        try:
            if self._file < 0:
                self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            found = os.pread(self._file, 8, place)
        except OSError:  # that it was removed is noticed by its name; without a descriptor nothing can be told
            return True
        if int.from_bytes(found, "little") == salt:
            self._last_frame = (frames, salt)
            return True
        return words[SALT_WORD] != salt  # begun again meanwhile

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    def _frame_size(self, words: HeaderWords) -> int:
        size = words[1] >> 48  # two bytes; 1 stands for 65,536
        return FRAME_HEADER_BYTES + (size & 0xFE00) + ((size & 1) << 16)


Mark = tuple[int, int, int] | None


class OverwriteDetector:
    """The pages of one database file, as they were when last found in order."""

    def __init__(self, file: int, index: LockedIndex | None, wal_path: str, is_writing: Callable[[], bool]) -> None:
        """`file` and `index` are held while this is used; `is_writing`: whether a process may be at a checkpoint.

        `log`: the path of the write-ahead log.
        """
        self._file, self._index, self._is_writing = file, index, is_writing
        self._header: HeaderWords | None = None if index is None else index.header
        self.wal = WalFile(wal_path, self._header)
        self._state: Mark = (
            self._read_state()
        )  # first: what was written up to then is in the time that is asked for next
        self._stat = self._stat_file()

    def read_mark(self) -> Mark:
        """To be taken before a read, and given to `is_settled` after it. No call of the system."""
        return self._read_state()

    def is_unchanged_since(self, mark: Mark) -> bool:
        """Whether nothing wrote to the file since what was found in order, and no checkpoint ran since `mark`.

        One call of the system (fstat); if it is false, `settle` tells more.
        """
        state = self._read_state()
        if state == mark and self._stat_file() == self._stat:
            self._state = state
            return True
        return False

    def accept_checkpoint(self) -> bool:
        """Whether what was written to the file may be a checkpoint's; it is then taken to be in order."""
        state = self._read_state()
        stat = self._stat_file()
        if stat == self._stat:
            self._state = state
            return True
        if stat[1] < self._stat[1]:  # a log only grows
            return False
        if self._header is None:
            self._stat = stat
            return True
        if state == self._state:
            if self._is_checkpointing(self._header):
                return True  # not known before it ends
            return self._read_state() != state
        self._state, self._stat = state, stat
        return True

    def _is_checkpointing(self, words: HeaderWords) -> bool:
        """Whether a checkpoint may be under way: it was begun, and has not ended."""
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
