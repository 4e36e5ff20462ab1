"""Whether the write-ahead log is still the one that its index describes: `truncate`, `cp` and `dd` leave another one.

SQLite writes to it where its index says, whatever is there, and does not look at what it wrote before: the events go to
a file that no one can read again. Knows: the format of a log (sqlite.org/walformat). Does not know: connections.
"""

from __future__ import annotations

import os
import sys

from eventfold.engines.sqlite.wal_index import Words

FRAMES, SALT = 2, 4  # of the index's header in words of 8 bytes: how many frames the log has; which log it is
COUNT = 0xFFFFFFFF  # the half of the word that counts frames
HEADER, FRAME_HEADER = 32, 24  # bytes
LITTLE = sys.byteorder == "little"
HEADER_SALT, FRAME_SALT = 16, 8  # where the salt is in each, 8 bytes


class LogFile:
    """The file -wal of a database. A descriptor of it is kept from the first look on, until nothing refers to this.

    Closing it drops no lock: SQLite locks the database and the index, never the log.
    """

    def __init__(self, path: str, words: Words | None) -> None:
        """`words`: the header of the index, while it is held."""
        self._file = -1
        self._path, self._words = path, words
        self._known = (0, 0)  # the last frame that was seen, and in which log

    def is_whole(self) -> bool:
        """Whether the log has the last frame that was seen, or else begins as its index says. True if it is unknown.

        One call of the system, 2 µs. What is overwritten elsewhere in the log is noticed by those who read it.
        """
        words = self._words
        if words is None or not LITTLE:
            return True
        # Three looks before it is said: another process may be at writing the header of the index.
        return self._agrees(words) or self._agrees(words) or self._agrees(words)

    def _agrees(self, words: Words) -> bool:
        salt, frames = words[SALT], words[FRAMES] & COUNT
        if not frames:  # begun again: its header is written with the first frame
            return True
        last, of = self._known
        place = HEADER + (last - 1) * self._frame_size(words) + FRAME_SALT if of == salt else HEADER_SALT
        try:
            if self._file < 0:
                self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            found = os.pread(self._file, 8, place)
        except OSError:  # that it was removed is noticed by its name; without a descriptor nothing can be told
            return True
        if int.from_bytes(found, "little") == salt:
            self._known = (frames, salt)
            return True
        return words[SALT] != salt  # begun again meanwhile

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    def _frame_size(self, words: Words) -> int:
        size = words[1] >> 48  # two bytes; 1 stands for 65,536
        return FRAME_HEADER + (size & 0xFE00) + ((size & 1) << 16)
