"""The writer: one transaction at a time, under the lock that all writers of the file share; commit and checkpoint.

Knows: the order of steps of a commit, and what a failed commit may have written. Does not know: the callers that wait
for a commit (`concurrency`), how requests are judged (`batch`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar, TypeVarTuple

import apsw

from eventfold.core.envelope import StoredEvent
from eventfold.core.mutex import Mutex
from eventfold.core.query import Query
from eventfold.engines.sqlite import schema
from eventfold.engines.sqlite.batch import Batch
from eventfold.engines.sqlite.checkpoint import Checkpoint
from eventfold.engines.sqlite.errors import as_eventfold_error, is_uncommitted, record_errno, translate_error
from eventfold.engines.sqlite.file import File
from eventfold.engines.sqlite.head import HeadTracker
from eventfold.engines.sqlite.idle_merge import IdleMerge, IdleStep
from eventfold.engines.sqlite.index_merging import IndexMerging
from eventfold.engines.sqlite.inline import SqliteExclusiveTransaction
from eventfold.engines.sqlite.last_commit import Known, LastCommit, run_triggers
from eventfold.engines.sqlite.queries import first_indexed
from eventfold.engines.sqlite.read import Names, RowDecoder, read_page
from eventfold.engines.sqlite.replica import Import, check_mark, copy_refuses, read_mark
from eventfold.engines.sqlite.schema import read_through
from eventfold.errors import AppendUnconfirmed, EventfoldError, InlineFailed, Unreadable
from eventfold.ports.inline import AppendMode, ExclusiveTransaction, InlineProjector, StaleRows, import_refused
from eventfold.ports.messages import AppendRequest, Head, Outcome, Page, Span
from eventfold.ports.services import ReplicaOf

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
OLD_CONDITION_POSITIONS = 10_000  # conditions on more positions are also checked before the lock is taken


class Writer:
    """Writes for one engine, one transaction at a time."""

    def __init__(
        self,
        file: File,
        names: Names,
        rows: RowDecoder,
        end: HeadTracker,
        clock: Callable[[], int],
    ) -> None:
        self.names, self.rows, self.head, self.clock = names, rows, end, clock
        self.merging, self.checkpoint, self.last_commit = IndexMerging(file, names), Checkpoint(file), LastCommit(end)
        self._idle_merge = IdleMerge(self)
        self.projector: InlineProjector | None = None  # folds inline read models within the transaction
        self.copy_of: str | None = None  # the address of the log of which the file is a copy
        self._checked: Known | None = None  # left by the last import, before which the mark of the copy was verified
        self._file = file
        self._mutex = Mutex()
        self._unreturned: apsw.Connection | None = (
            None  # connection of a call that an exception ended before it was returned
        )
        self._committed = False  # whether the current call has committed
        self._is_unusable = False  # whether the current call leaves its connection in an unknown state
        file.on_reopen = self._forget_names

    def append(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """Append in one commit.

        Raises AppendUnconfirmed if the commit failed, any other error if nothing was written.
        """
        if self.copy_of is not None:
            self.refuse_copy()
        return self._mutex.run_user_code(self._alone, self._append, requests)

    def refuse_copy(self) -> None:
        """Raises StoreReadOnly if the file is a copy of a log that is elsewhere."""
        if self.copy_of is not None:
            raise copy_refuses(self._file.path, self.copy_of)

    def import_missing(
        self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]], of: ReplicaOf | None
    ) -> None:
        """Import what is not in the file yet. See services.Replica. `of`: the log of which it must be a copy."""
        if of is None:
            self.refuse_copy()
        self._run_alone(self._import_missing, events, keys, of)

    def transact(self, work: Callable[[apsw.Connection], None]) -> None:
        """Run `work` in one transaction: imported events, snapshots, registrations."""
        self._run_alone(self._transact_alone, work)

    def run_exclusive(self, work: Callable[[ExclusiveTransaction], Awaitable[None]]) -> None:
        """Run `work` in one transaction, during which no append can commit. `work` must not suspend."""

        def within(connection: apsw.Connection) -> None:
            head = self.head.read_head(connection).position

            def ask(query: Query, span: Span) -> Page:
                return read_page(connection, self.rows, self.names, head, query, span)

            driven = work(SqliteExclusiveTransaction(connection, head, ask)).__await__()
            with suppress(StopIteration):
                next(driven)
                raise RuntimeError("work in an exclusive transaction must not suspend")

        self.transact(within)

    def _run_alone(self, work: Callable[[apsw.Connection, *Ts], T], *args: *Ts) -> T:
        """Run `work` with exclusive use of the writer's connection; then return it and release the lock.

        After a successful COMMIT any later error is raised as AppendUnconfirmed: every other error means that nothing
        was written.
        """
        return self._mutex.run_user_code(self._alone, work, *args)

    def _alone(self, work: Callable[[apsw.Connection, *Ts], T], *args: *Ts) -> T:
        if self._unreturned is not None:
            self._clean_up(self._unreturned)
        self._committed = self._is_unusable = False
        connection = self._unreturned = self._file.writer()
        try:
            try:
                result = work(connection, *args)
            except BaseException as error:
                record_errno(error, connection)
                self._file.pool.discard(connection)
                raise
            finally:
                self._file.lock.release()
            self._unreturned = (
                None  # success: reset before the connection is returned, or a later user's could be discarded
            )
            if self._is_unusable:
                self._file.pool.discard(connection)
            else:
                self._file.pool.return_writer(connection)
        except AppendUnconfirmed:
            raise
        except Exception as error:
            if not self._committed:
                raise
            cause = as_eventfold_error(error, self._file.path)
            raise self._unconfirmed_error("What follows a commit failed", cause) from error
        return result

    def _clean_up(self, left: apsw.Connection) -> None:
        """Clean up after a failed call: an exception may have prevented its rollback.

        If an exception ends this method too, the next call repeats it.
        """
        self._file.pool.discard(left)  # ends its transaction
        self._file.lock.release()
        self._discard_uncommitted()
        if self.projector is not None:
            self.projector.forget()
        self._unreturned = None

    def _append(self, connection: apsw.Connection, requests: Sequence[AppendRequest]) -> list[Outcome]:
        if self.merging.others_append or not self.names.tail.segments:
            self._catch_up_early(connection, requests)
        judged: dict[int, int] = {}
        for request in requests:
            if request.unless:
                judged = self._precheck_old_conditions(connection, requests)
                break
        self._file.lock.acquire()
        # Optimistic first attempt: event ids are assumed to be new, without a look-up. If a trigger of the database
        # finds a duplicate, the transaction is repeated with a look-up of every id. If the database refuses rows of an
        # inline read model, it is repeated with one write per request, to find the failing request.
        mode = AppendMode.OPTIMISTIC
        while True:
            try:
                return self._append_once(connection, requests, judged, mode)
            except apsw.ConstraintError:
                if AppendMode.CHECK_IDS in mode:
                    raise
                mode |= AppendMode.CHECK_IDS
            except InlineFailed:
                if AppendMode.WRITE_EACH in mode:
                    raise
                mode |= AppendMode.WRITE_EACH
            except StaleRows as stale:
                if AppendMode.REREAD_ROWS in mode:
                    raise stale.__cause__ or stale from None
                mode |= AppendMode.REREAD_ROWS

    def _import_missing(
        self,
        connection: apsw.Connection,
        events: Sequence[StoredEvent],
        keys: Sequence[tuple[str, int]],
        of: ReplicaOf | None,
    ) -> None:
        self._file.lock.acquire()
        try:
            connection.execute("BEGIN IMMEDIATE")
            known = self.last_commit.read(connection)
            if known.registrations:
                raise import_refused([each.name for each in known.registrations], "sqlite")
            if of is not None and known is not self._checked:  # unchanged: no other connection has committed since
                check_mark(read_mark(connection), schema.read_identity(connection), of, self._file.path)
            run_triggers(connection, of is None and known.needs_triggers)
            done = Import(connection, self.names, self.rows, known.head, self._file.path).run(events, keys)
            if not done.is_new:
                self._rollback(connection)
                return
        except BaseException:
            self._rollback(connection)
            raise
        self._commit(connection, done.head)
        self._checked = Known(done.head, known.registrations, known.needs_triggers)
        self.last_commit.record(connection, self._checked)
        if done.labels.types:
            self.merging.extend(connection, done.head.position, done.labels)
        self._follow_up(connection, len(done.labels.types))

    def _transact_alone(self, connection: apsw.Connection, work: Callable[[apsw.Connection], None]) -> None:
        self._file.lock.acquire()
        try:
            connection.execute("BEGIN IMMEDIATE")
            run_triggers(connection, True)
            head = self.head.read_head(connection)
            work(connection)
            row = connection.execute(schema.HEAD).fetchone()
            if row is not None and row[0] != head.position:
                head = Head(row[0], row[2], row[1])
        except BaseException:
            self._rollback(connection)
            raise
        self._commit(connection, head)
        self._follow_up(connection, 0)

    def _catch_up_early(self, connection: apsw.Connection, requests: Sequence[AppendRequest]) -> None:
        """Read what other processes appended into the tail before the lock is taken, so that they need not wait for it.

        Best effort: what is missing afterwards is read under the lock, and errors are raised there.
        """
        if self.names.tail.segments:
            is_needed = self.merging.others_append
        else:
            is_needed = not self.merging.is_short_lived or any(request.unless for request in requests)
        if is_needed:
            with suppress(EventfoldError, apsw.Error):
                self.merging.catch_up(connection)

    def _precheck_old_conditions(
        self, connection: apsw.Connection, requests: Sequence[AppendRequest]
    ) -> dict[int, int]:
        """Check old conditions before the lock is taken. Returns id of clause -> position through which it holds."""
        segments = self.names.tail.segments
        recent = (segments[0].start if segments else self.head.last_seen.position) - OLD_CONDITION_POSITIONS
        long = [clause for each in requests for clause in each.unless if clause.after < recent and clause.query.items]
        if not long:
            return {}
        mark = self._file.presence.read_mark()
        try:
            names = self.names.lookup(connection, self.head.read_head(connection).position)
            until = names.indexed
            judged = {
                id(clause): until
                for clause in long
                if first_indexed(names, names.with_all_spellings(clause.query), clause.after, until) is None
            }
        except Unreadable:  # checked under the lock, an unreadable event fails only the requests that depend on it
            return {}
        # Otherwise everything is checked under the lock.
        return judged if self._file.presence.is_unchanged_since(mark) else {}

    def _append_once(
        self,
        connection: apsw.Connection,
        requests: Sequence[AppendRequest],
        judged: dict[int, int],
        mode: AppendMode,
    ) -> list[Outcome]:
        batch, head = None, None
        try:
            try:
                connection.execute("BEGIN IMMEDIATE")
                is_alone = len(requests) == 1
                is_judged_together = not is_alone and any(request.unless for request in requests[1:])
                batch = Batch(self, connection, judged, mode, is_alone, is_judged_together)
                outcomes = list(map(batch.judge, requests))
                new_head = batch.insert()
            except BaseException:
                self._rollback(connection)
                raise
            if new_head is None:
                connection.execute("ROLLBACK")
            else:
                self._commit(connection, new_head)
                self.last_commit.record(connection, Known(new_head, batch.registrations, batch.known.needs_triggers))
                head = new_head.position
                if batch.labels.types:
                    self.merging.extend(connection, head, batch.labels)
        finally:
            if batch is not None and batch.inline is not None:
                batch.inline.end(head)
        if batch is not None and head is not None:
            self._follow_up(connection, len(batch.labels.types))
        return outcomes

    def _follow_up(self, connection: apsw.Connection, events: int) -> None:
        """After a commit of so many events: either a checkpoint or a slice of a merge, so that none carries both."""
        if self.checkpoint.is_due():
            self.checkpoint.run(connection)
        elif events and not self.merging.merge_slice(connection, events):
            self._is_unusable = True
            self._rollback(connection)
        if self.merging.is_tail_long and not self._idle_merge.is_running:
            self._idle_merge.begin()

    @property
    def appended(self) -> int:
        """How many events this process has appended."""
        return self.merging.written

    def merge_idle(self) -> IdleStep:
        """Merge a slice, unless another process is active; of a file that is open. Raises the errors of an append."""
        if self._file.is_idle:
            return IdleStep.ENDS
        used = self._file.last_used
        step = self._run_alone(self._merge_idle)
        if step is IdleStep.WAITS:
            self._file.last_used = used  # nothing was done: an idle file is closed, however long another is active
        return step

    def _merge_idle(self, connection: apsw.Connection) -> IdleStep:
        if not self._file.lock.try_acquire():
            return IdleStep.WAITS
        step = self.merging.merge_idle(connection, self.head)
        if step is IdleStep.FAILED:
            self._is_unusable = True
            self._rollback(connection)
        return step

    def _commit(self, connection: apsw.Connection, head: Head) -> None:
        try:
            connection.execute("COMMIT")
        except apsw.Error as error:
            nothing = is_uncommitted(error, connection)
            record_errno(error, connection)
            self._rollback(connection)
            if nothing:
                raise apsw.FullError(str(error)) from error
            raise self._unconfirmed_error(
                "The commit could not be confirmed", translate_error(error, self._file.path)
            ) from error
        except BaseException:
            self._rollback(connection)
            raise
        self._committed = True
        for names in (self.names.types, self.names.tags):
            if names.uncommitted:
                names.commit()
        presence = self._file.presence
        if not presence.is_in_place():
            assert presence.damage is not None
            raise self._unconfirmed_error("The commit went to a file that is no longer at its path", presence.damage)
        self.head.record_commit(head)

    def _forget_names(self) -> None:
        """Forget what is cached of the index: while the file was closed here, another program may have rebuilt it."""
        self.merging.forget()
        self.names.tail.forget()
        self.names.types.forget()
        self.names.tags.forget()

    def _unconfirmed_error(self, what: str, cause: EventfoldError) -> AppendUnconfirmed:
        return AppendUnconfirmed(
            f"{what}: {cause.what}",
            "Repeat the identical append once the cause is fixed; it will not be written twice.",
            cause=cause.code,
            path=self._file.path,
        )

    def _rollback(self, connection: apsw.Connection) -> None:
        self._discard_uncommitted()
        if connection.in_transaction:
            with suppress(apsw.Error):  # the earlier error is the one to raise; the connection is closed anyway
                connection.execute("ROLLBACK")

    def _discard_uncommitted(self) -> None:
        """Discard cached names of a transaction that did not commit."""
        self.names.types.rollback()
        self.names.tags.rollback()

    def close(self) -> None:
        """Run a final checkpoint unless the file is in use, so that the database file is complete without its WAL.

        If it is in use, the last process to close the store, or the next to open it, runs the checkpoint: until then
        the WAL is part of the store.
        """
        self._idle_merge.stop()
        if not (self._file.wal_pages or self._file.has_leftover_wal):
            return
        for work in (self._final_merge, self._final_checkpoint):
            with suppress(EventfoldError, apsw.Error):
                self._run_alone(work)

    def _final_merge(self, connection: apsw.Connection) -> None:
        """Merge the whole tail, so that the next process to open the store has none to read."""
        if self.merging.is_left_to_others(self.head.read_head(connection).position - read_through(connection)):
            return
        self.merging.catch_up(connection)
        self._file.lock.acquire(0)
        connection.set_busy_timeout(0)
        connection.execute("BEGIN IMMEDIATE")
        try:
            self.merging.merge_rest(connection, self.head)
        except BaseException:
            self._rollback(connection)
            raise
        self._commit(connection, self.head.last_seen)

    def _final_checkpoint(self, connection: apsw.Connection) -> None:
        self._file.lock.acquire(0)
        connection.set_busy_timeout(0)
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
