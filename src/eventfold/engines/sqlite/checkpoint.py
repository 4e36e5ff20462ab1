"""When the write-ahead log (WAL) is copied into the database file, and how: bounded work, in an append without a slice.

A checkpoint copies the pages written since the last one, so its duration is bounded by their number. It never waits for
readers until the WAL is long: the next write reuses the WAL once everything is copied and no reader needs it.
Knows: the length of the WAL. Does not know: what was written, locks (the writer holds its lock).
"""

from __future__ import annotations

import apsw

from eventfold.engines.sqlite.file import File

CHECKPOINT_PAGES = 4_000  # 16 MB of WAL; at 1,000 pages bulk appends are 1.4 to 2 times slower
LONG_WAL = 2  # so many times as long, readers that overlap have prevented its reuse: wait for them
RESET_TIMEOUT_MS = 20  # time for readers to leave the WAL before it is restarted


class Checkpoint:
    """The checkpoints of one writer."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._done_at = 0  # pages of the WAL at the last attempt

    def is_due(self) -> bool:
        """Whether so many pages were written since the last attempt."""
        pages = self._file.wal_pages
        if pages < self._done_at:  # the WAL was reused
            self._done_at = 0
        return pages - self._done_at >= CHECKPOINT_PAGES

    def run(self, connection: apsw.Connection) -> None:
        """Copy the WAL into the database file, as far as readers allow; always under the writer lock.

        Because of the lock, the WAL-reset bug of older SQLite versions (sqlite.org/wal.html#walresetbug) cannot occur:
        no eventfold process writes meanwhile. Other programs do not respect the lock.
        """
        pages = self._file.wal_pages
        is_long = pages >= LONG_WAL * CHECKPOINT_PAGES
        connection.set_busy_timeout(RESET_TIMEOUT_MS if is_long else 0)
        try:
            connection.wal_checkpoint(
                mode=apsw.SQLITE_CHECKPOINT_RESTART if is_long else apsw.SQLITE_CHECKPOINT_PASSIVE
            )
            self._done_at = pages
        except apsw.Error:
            # A reader uses an old snapshot, or the disk is full. What was committed stays valid: retry when the WAL has
            # grown further.
            self._done_at = pages - CHECKPOINT_PAGES + CHECKPOINT_PAGES // 4
        finally:
            self._file.set_busy_timeout(connection)
