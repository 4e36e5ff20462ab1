"""The presence of an open store file: whether it was replaced, overwritten or restored since it was opened.

Knows: file ids, the directory's change time, checkpoints. Does not know: how connections are opened, events.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable

from eventfold.engines.sqlite.file_replacement import DirectoryStamp
from eventfold.engines.sqlite.open_files import FileId
from eventfold.engines.sqlite.overwrite_detection import Mark, OverwriteDetector
from eventfold.errors import StoreDamaged


class FilePresence:
    """Whether the file at a path is still the one that this process opened. `damage` is the error once it is not.

    `is_immutable`: the file is read without locks, until another program with write access opens it. `detector` is None
    while the file is not open. `close_idle_connections` is called when their cached pages are stale.
    """

    def __init__(self, path: str, real_path: str, close_idle_connections: Callable[[], None]) -> None:
        self.path, self.real_path = path, real_path
        self.damage: StoreDamaged | None = None
        self.overwritten: StoreDamaged | None = None  # `damage`, if the file or its WAL was overwritten in place
        self.detector: OverwriteDetector | None = None
        self.is_immutable = False
        self.on_checkpoint: Callable[[], None] = lambda: None  # called after a checkpoint changed the file
        self.file_id: FileId | None = None
        self._wal_id: FileId | None = None
        self._directory = DirectoryStamp(os.path.dirname(real_path))
        self._close_idle_connections = close_idle_connections

    def remember(self) -> None:
        """Remember the file and the WAL that are now at the path. Raises OSError."""
        self.file_id, self._wal_id = _file_id(self.path), _file_id(self.real_path + "-wal")

    def forget_wal(self) -> None:
        """Forget the WAL: while the file is closed here, another program may remove it."""
        self._wal_id = None

    def read_mark(self) -> Mark:
        """Call it before a read, and pass the result to `is_unchanged_since` afterwards."""
        pages = self.detector
        return None if pages is None else pages.read_mark()

    def is_unchanged_since(self, mark: Mark) -> bool:
        """Whether no checkpoint ran since `mark`; if one did, read again. 1 µs.

        A second SQLite library in this process may have dropped the locks that keep a checkpoint from overwriting pages
        that are being read. Raises StoreDamaged if the file was overwritten.
        """
        pages = self.detector
        if pages is None or pages.is_unchanged_since(mark):
            return True
        self._accept_checkpoint(pages)
        return self.read_mark() == mark and not self.is_immutable

    def check_overwritten(self) -> None:
        """Raises StoreDamaged if the file was overwritten. One system call, 1 µs."""
        pages = self.detector
        if pages is not None and not pages.is_unchanged():
            self._accept_checkpoint(pages)

    def _accept_checkpoint(self, pages: OverwriteDetector) -> None:
        if not pages.accept_checkpoint():
            self.damage = self.overwritten = StoreDamaged(
                f"{self.path} was overwritten (cp, rsync --inplace) while this process had it open.",
                "Nothing was read or acknowledged since: stop every process that uses the store, put the copy there "
                f"without a -wal and -shm file beside it, then say so: eventfold restored {shlex.quote(self.path)}.",
                path=self.path,
            )
            raise self.damage
        if self.is_immutable:  # another program wrote to the file: cached pages are stale
            self._close_idle_connections()
        self.on_checkpoint()

    def is_in_place(self) -> bool:
        """Whether the path still leads to the file and the WAL that this process has open. 3 or 6 µs."""
        pages, directory = self.detector, self._directory
        if pages is not None and not pages.is_unchanged():
            try:
                self._accept_checkpoint(pages)
            except StoreDamaged:
                return False
        if pages is not None and not pages.wal.is_intact():
            self.damage = self.overwritten = StoreDamaged(
                f"The write-ahead log of {self.path} was overwritten or cut while this process had it open.",
                "Nothing is acknowledged any more: stop every process that uses the store, copy its files as they are, "
                "and open it again: it reports what is lost.",
                path=self.path,
            )
            return False
        mark = directory.current()
        if mark is not None and mark == directory.remembered and self._wal_id is not None:
            return True
        try:
            here, wal = _file_id(self.path), _file_id(self.real_path + "-wal")
        except OSError:  # no access at the moment: the file may still be in place
            return True
        if here != self.file_id:
            self.damage = self._replaced_error("was replaced or removed")
            return False
        if self.is_immutable and wal is not None:  # another program with write access has opened the file
            self.is_immutable = False
            self._close_idle_connections()
        if wal != self._wal_id:
            if self._wal_id is None:
                self._wal_id = wal
            else:
                self.damage = self._replaced_error("lost its write-ahead log")
                return False
        if self.path == self.real_path:  # a link could be changed without a trace in this directory
            directory.remember(mark)
        return True

    def _replaced_error(self, what: str) -> StoreDamaged:
        return StoreDamaged(
            f"{self.path} {what} while this process had it open.",
            "Close the store and open it again; if a backup was put in its place, followers must start from it.",
            path=self.path,
        )

    def epoch_changed(self, known: int, found: int) -> StoreDamaged:
        """Mark the file as unusable: its epoch is not the one it was opened in. Returns the error to raise."""
        self.damage = StoreDamaged(
            f"{self.path} was opened in epoch {known}, and is in epoch {found} now: it was restored meanwhile.",
            "Close the store and open it again: data cached in this process may be gone.",
            path=self.path,
            known=known,
            found=found,
        )
        return self.damage

    def history_lost(self, acknowledged: int, head: int) -> StoreDamaged:
        """Mark the file as unusable: the last acknowledged event is gone. Returns the error to raise."""
        self.damage = StoreDamaged(
            f"{self.path} ends at position {head} and does not hold the event acknowledged at position {acknowledged}.",
            f"If its write-ahead log ({self.real_path}-wal) was removed, put it back; if an older copy was put here on "
            f"purpose, say so: eventfold restored {shlex.quote(self.path)}.",
            path=self.path,
            acknowledged=acknowledged,
            head=head,
        )
        return self.damage


def _file_id(path: str) -> FileId | None:
    """Device and inode of the file at a path, or None. Raises OSError if they cannot be read."""
    try:
        found = os.stat(path)  # stat opens nothing, so no lock is touched
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino
