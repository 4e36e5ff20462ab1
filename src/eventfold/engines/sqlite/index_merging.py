"""The merging of one process: the tail grows with each append, and full segments of it are merged slice by slice.

A segment is saved once it is closed; several are merged at once. A slice follows the commit of an append in a
transaction of its own, so its failure refuses no append. That transaction is not synced: a merge that a power failure
undoes is repeated, and the sync of the next append comes after it.
Knows: which segments are being merged, failures. Does not know: locks (the writer's), how connections are replaced.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile

import apsw

from eventfold.engines.sqlite.compaction import FANOUT, compact, compact_more
from eventfold.engines.sqlite.errors import as_eventfold_error, record_errno
from eventfold.engines.sqlite.file import File
from eventfold.engines.sqlite.head import HeadTracker
from eventfold.engines.sqlite.idle_merge import MIN_EVENTS, IdleStep
from eventfold.engines.sqlite.merge import Merge, OutdatedMerge, StaleTail, merge_all
from eventfold.engines.sqlite.merge_schedule import (
    compaction_postings,
    retry_after,
    slice_postings,
)
from eventfold.engines.sqlite.read import Names
from eventfold.engines.sqlite.saved_segments import save
from eventfold.engines.sqlite.schema import HEAD, read_through
from eventfold.engines.sqlite.tail import CATCH_UP_ROWS, MERGE_EVENTS, Labels, Segment
from eventfold.errors import EventfoldError

COMPACTED_AT_CLOSE = FANOUT * MERGE_EVENTS  # events at most

_log = logging.getLogger("eventfold")


class IndexMerging:
    """Merges the tail of one writer. Every method is called by the thread that has the writer's connection.

    `error` is the error of the last slice, None if it succeeded.
    """

    def __init__(self, file: File, names: Names) -> None:
        self._file, self._names = file, names
        self._merge: Merge | None = None  # of the first segments of the tail; None also after an error
        self.compacts = False  # whether a compaction may be due, as one may be after each merge
        self._postings_per_event = 1.0  # of the last merge
        self.written = 0  # events appended by this process
        self._next_position = 0  # after the last append of this process
        self.others_append = False  # whether other processes appended between its last two appends
        self.is_tail_long = False  # so long that it is merged while the process is idle
        self.error: EventfoldError | None = None
        self._failures, self._retry_at = 0, 0.0  # in a row; monotonic time
        self._data_version = 0  # of SQLite: changes when another connection commits

    @property
    def is_short_lived(self) -> bool:
        """Whether this process has written so little that others, if any, merge it."""
        return self.written < CATCH_UP_ROWS

    def forget(self) -> None:
        """Forget the merge that was begun: what is committed of it is ignored by the next attempt."""
        self._merge = None

    def extend(self, connection: apsw.Connection, last: int, labels: Labels) -> None:
        """Add committed events of this process, of which `last` is the last position, to the tail."""
        tail, count = self._names.tail, len(labels.types)
        first = last + 1 - count
        self.written += count
        self.others_append = 0 < self._next_position < first
        self._next_position = last + 1
        if not (tail.segments and tail.extend(first, labels)):
            with suppress(EventfoldError, apsw.Error):  # reads report it; what was committed stays so
                if not tail.segments and self.is_short_lived and last - read_through(connection) > CATCH_UP_ROWS:
                    return  # beside others: they merge
                tail.covering(connection, last)
        segments = tail.segments
        self.is_tail_long = (
            bool(segments) and last - segments[0].start >= MIN_EVENTS and not (self._failures and self._waits)
        )

    def merge_slice(self, connection: apsw.Connection, events: int) -> bool:
        """Save a segment that was closed, or merge a slice, after an append of so many events, outside a transaction.

        Returns False if it failed: the connection may not be used any more.
        """
        tail = self._names.tail
        count = len(segments := tail.segments)
        is_saved = count < 2 or segments[-2].is_saved
        if is_saved and count <= tail.merge_segments and not (self._merge or self.compacts or self._failures):
            return True  # nothing is to be saved, merged or forgotten, as after nearly all appends
        closed = tail.closed if len(tail.segments) > 1 else ()
        if not (closed or self.compacts) or self._waits:
            return True
        if closed and not closed[-1].is_saved and not self._try(connection, lambda: self._save(connection, closed)):
            return False
        if self._merge is None and len(closed) < tail.merge_segments and not self.compacts:
            self._forget_failures()
            return True
        return self._try(connection, lambda: self._merge_some(connection, closed, events))

    @property
    def _waits(self) -> bool:
        """Whether a slice failed a short time ago."""
        return self._failures > 0 and time.monotonic() < self._retry_at

    def _try(self, connection: apsw.Connection, work: Callable[[], None]) -> bool:
        """Run a transaction that is not synced. Returns whether it worked."""
        try:
            if self._file.full_sync:
                connection.pragma("synchronous", "normal")
            connection.set_busy_timeout(0)
            work()
            self._file.set_busy_timeout(connection)
            if self._file.full_sync:
                connection.pragma("synchronous", "full")
        except (apsw.BusyError, apsw.LockedError):  # another program has a lock: it has no time to wait
            return False
        except StaleTail:
            self._names.tail.forget()
            return False
        except Exception as error:  # noqa: BLE001 (whatever it is: the append that it follows is committed)
            self._record_failure(error, connection)
            return False
        return True

    def _forget_failures(self) -> None:
        """After a slice of a merge, or if none is due: a segment that was saved does not show that merges work."""
        self.error, self._failures = None, 0

    def _save(self, connection: apsw.Connection, closed: tuple[Segment, ...]) -> None:
        """Save the closed segments that are not saved yet."""
        segments = [segment for segment in closed if not segment.is_saved]
        for segment in segments:
            segment.is_saved = True  # also after a failure: then their events are read
        connection.execute("BEGIN IMMEDIATE")
        if read_through(connection) <= segments[0].start:
            save(connection, segments)
        connection.execute("COMMIT")

    def _merge_some(self, connection: apsw.Connection, closed: tuple[Segment, ...], events: int) -> None:
        """Merge a slice of closed segments, and compact a slice; `events` 0: of the size for an idle process."""
        names, most, done = self._names, self._names.tail.merge_segments, 0
        merge, self._merge = self._merge, None
        left = 0 if events else slice_postings(0, 0, 0)
        backlog, is_begun = -(-len(closed) // most), False
        connection.execute("BEGIN IMMEDIATE")
        while len(closed) >= most or merge is not None or (closed and not events):
            if merge is None:
                merge = Merge.begin(connection, names.tail.whole, closed[:most][-1].end)
                if merge is None:  # other processes have merged them
                    done, closed = closed[:most][-1].end, closed[most:]
                    continue
                self._postings_per_event = merge.postings_per_event
                is_begun = merge.is_large
                if is_begun:  # its names were sorted: the next slice writes
                    break
            if events and not left:
                left = slice_postings(events, merge.postings_per_event, backlog)
            try:
                left -= merge.step(connection, names.types, names.tags, left)
            except OutdatedMerge:
                merge = None
                continue
            if not merge.is_done:
                break
            done, merge, self.compacts = merge.end, None, True
            closed = tuple(segment for segment in closed if segment.end > done)
            if left <= 0:
                break
        if self.compacts and not is_begun and (events or left > 0):
            most = compaction_postings(events, self._postings_per_event) if events else left
            self.compacts = compact(connection, most)
        connection.execute("COMMIT")
        names.types.commit()
        names.tags.commit()
        if done:
            names.tail.drop_through(done)
        self._merge = merge
        self._forget_failures()

    def _record_failure(self, error: Exception, connection: apsw.Connection) -> None:
        record_errno(error, connection)
        self.error = as_eventfold_error(error, self._file.path)
        self._failures += 1
        seconds = retry_after(self._failures)
        self._retry_at = time.monotonic() + seconds
        _log.warning(
            "%s: the tail could not be merged into the index: %s Appends and reads go on; the next attempt is in %g s.",
            self._file.path,
            self.error.what,
            seconds,
        )

    def merge_idle(self, connection: apsw.Connection, head: HeadTracker) -> IdleStep:
        """Merge a slice while this process appends nothing; under the lock. Raises the errors of a read of the tail."""
        version: int = connection.pragma("data_version")
        if version != self._data_version:  # another process, or another connection, has committed
            self._data_version = version
            return IdleStep.WAITS
        tail, end = self._names.tail, head.read_head(connection).position
        left = end - read_through(connection)
        if self._waits or (left >= MIN_EVENTS and self.is_left_to_others(left)):
            return IdleStep.ENDS
        if left < MIN_EVENTS:
            if not self.compacts:
                return IdleStep.ENDS
            is_done = self._try(connection, lambda: self._merge_some(connection, (), 0))
            return IdleStep.MERGED if is_done else IdleStep.FAILED
        known = tail.segments[-1].end if tail.segments else end - left
        tail.covering(connection, min(end, max(known, end - left) + CATCH_UP_ROWS))
        if end - tail.segments[-1].end > 0:
            return IdleStep.MERGED  # read further by the next call
        if tail.segments[0].damage is None:  # or each pause would add a segment, and none would be merged
            tail.close_segment()
        if not tail.closed:  # a damaged event, whose tags are not known, is the first
            return IdleStep.ENDS
        closed = tail.closed
        is_merged = self._try(connection, lambda: self._merge_some(connection, closed, 0))
        return IdleStep.MERGED if is_merged else IdleStep.FAILED

    def catch_up(self, connection: apsw.Connection) -> None:
        """Read the tail up to the last committed event, without the checks of `HeadTracker`."""
        row = connection.execute(HEAD).fetchone()
        if row is not None:
            self._names.tail.covering(connection, row[0])

    def merge_rest(self, connection: apsw.Connection, head: HeadTracker) -> None:
        """Merge the whole tail in the transaction of the caller, who then calls `commit` or `rollback` of the names.

        Nothing is done by a process that wrote little of the tail: it leaves it to those that wrote the rest, since
        their appends would wait.
        """
        self._merge = None
        end = head.read_head(connection).position
        left = end - read_through(connection)
        if self.is_left_to_others(left):
            return
        names = self._names
        segments = names.tail.covering(connection, end)
        if segments[0].start > end - left:
            names.tail.forget()  # StaleTail, see merge.py
            segments = names.tail.covering(connection, end)
        whole = tuple(takewhile(lambda each: each.damage is None, segments))
        if whole:
            merge_all(connection, names.types, names.tags, whole)
            compact_more(connection, COMPACTED_AT_CLOSE)

    def is_left_to_others(self, left: int) -> bool:
        """Whether a tail of `left` events is left to other processes, or is empty."""
        if left <= 0 or not self.written:
            return True
        return max(CATCH_UP_ROWS, 4 * self.written) < left < 3 * MERGE_EVENTS
