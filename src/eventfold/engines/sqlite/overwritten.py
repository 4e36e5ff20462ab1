"""Whether pages of a database were written by something else than a checkpoint: `cp old.db live.db`, one inode.

Only checkpoints write to the database file while it has a write-ahead log, and each is seen in the log's index before
its first write: a file with another time or size, whose index says what it said, was overwritten.
Knows: times and sizes of a file, the index of its log. Does not know: connections, and what is in the pages.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from eventfold.engines.sqlite import byte_locks
from eventfold.engines.sqlite.log_file import LogFile
from eventfold.engines.sqlite.wal_index import CHECKPOINTING, HeldIndex, Words

SALT, COPIED, ATTEMPTED = 4, 12, 16  # of the index's header in words of 8 bytes: which log it is; frames in the file
COUNT = 0xFFFFFFFF  # the half of a word that counts frames

Mark = tuple[int, int, int] | None


class Pages:
    """The pages of one database file, as they were when last found in order."""

    def __init__(self, file: int, index: HeldIndex | None, log: str, is_writing: Callable[[], bool]) -> None:
        """`file` and `index` are held while this is used; `is_writing`: whether a process may be at a checkpoint.

        `log`: the path of the write-ahead log.
        """
        self._file, self._index, self._is_writing = file, index, is_writing
        self._words: Words | None = None if index is None else index.words
        self.log = LogFile(log, self._words)
        self._state: Mark = self._look()  # first: what was written up to then is in the time that is asked for next
        self._stat = self._ask()

    def mark(self) -> Mark:
        """To be taken before a read, and given to `is_settled` after it. No call of the system."""
        return self._look()

    def is_settled(self, mark: Mark) -> bool:
        """Whether nothing wrote to the file since what was found in order, and no checkpoint ran since `mark`.

        One call of the system (fstat); if it is false, `settle` tells more.
        """
        state = self._look()
        if state == mark and self._ask() == self._stat:
            self._state = state
            return True
        return False

    def settle(self) -> bool:
        """Whether what was written to the file may be a checkpoint's; it is then taken to be in order."""
        state = self._look()
        stat = self._ask()
        if stat == self._stat:
            self._state = state
            return True
        if stat[1] < self._stat[1]:  # a log only grows
            return False
        if self._words is None:
            self._stat = stat
            return True
        if state == self._state:
            if self._is_checkpointing(self._words):
                return True  # not known before it ends
            return self._look() != state
        self._state, self._stat = state, stat
        return True

    def _is_checkpointing(self, words: Words) -> bool:
        """Whether a checkpoint may be under way: it was begun, and has not ended."""
        if words[COPIED] & COUNT == words[ATTEMPTED] & COUNT:
            return False
        held = self._index is not None and byte_locks.is_locked(self._index.file, CHECKPOINTING, 1)
        return held or self._is_writing()

    def _look(self) -> Mark:
        words = self._words
        return None if words is None else (words[SALT], words[COPIED], words[ATTEMPTED])

    def _ask(self) -> tuple[int, int]:
        found = os.fstat(self._file)
        return found.st_mtime_ns, found.st_size
