"""Room: the writer: one transaction at a time, under the lock that all writers of the file share; commit, checkpoint.

Knows: the order of a commit, and what may be said when one fails. Does not know: who waits for it (the bridge
does), how requests are judged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import apsw

from eventfold.core.mutex import Mutex
from eventfold.core.query import Query
from eventfold.engines.sqlite import schema
from eventfold.engines.sqlite.batch import Batch, first_match
from eventfold.engines.sqlite.dictionary import NameDictionary
from eventfold.engines.sqlite.errors import is_uncommitted, record_errno, translate_error
from eventfold.engines.sqlite.file import File
from eventfold.engines.sqlite.head import HeadTracker
from eventfold.engines.sqlite.inline import SqliteExclusiveTransaction
from eventfold.engines.sqlite.queries import NameLookup
from eventfold.engines.sqlite.read import RowDecoder, read_page
from eventfold.engines.sqlite.recent_window import RecentWindow
from eventfold.errors import AppendUnconfirmed, EventfoldError, InlineFailed, StoreUnavailable
from eventfold.ports.engine import (
    AppendRequest,
    ExclusiveTransaction,
    Head,
    InlineProjector,
    Outcome,
    Page,
    Span,
    StaleRows,
)

T = TypeVar("T")
OLD_CONDITION_POSITIONS = (
    10_000  # positions: a condition that looks back further is judged before the lock is taken, too
)
CHECKPOINT_PAGES = 10_000  # 40 MB of WAL; at 1,000 pages bulk appends are 1.4 to 2 times slower
RESET_TIMEOUT_MS = 20  # ms that readers may take to leave a WAL that is about to be used again from its beginning


class Writer:
    """The one writer of an engine."""

    def __init__(
        self,
        file: File,
        types: NameDictionary,
        tags: NameDictionary,
        rows: RowDecoder,
        end: HeadTracker,
        clock: Callable[[], int],
    ) -> None:
        self.types, self.tags, self.rows, self.head, self.clock = types, tags, rows, end, clock
        self.window = RecentWindow()
        self.projector: InlineProjector | None = None  # folds read models within what is written here
        self._file = file
        self._mutex = Mutex()
        self._unreturned: apsw.Connection | None = None  # of a call that was ended before it could give it back
        self._checkpoint_at = CHECKPOINT_PAGES
        self._committed = False  # whether the call that is under way has committed

    def append(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """One commit. Raises AppendUnconfirmed if the commit failed, another error if nothing was written."""
        return self._run_alone(lambda connection: self._append(connection, requests))

    def transact(self, work: Callable[[apsw.Connection, NameDictionary, NameDictionary], None]) -> None:
        """One commit of something else than requests: what is copied from another log, or kept beside this one."""
        self._run_alone(lambda connection: self._transact_alone(connection, work))

    def run_exclusive(self, work: Callable[[ExclusiveTransaction], Awaitable[None]]) -> None:
        """One commit of something that nobody may append during. `work` never suspends."""

        def within(connection: apsw.Connection, types: NameDictionary, tags: NameDictionary) -> None:
            head = self.head.read_head(connection).position

            def ask(query: Query, span: Span) -> Page:
                return read_page(connection, self.rows, (types, tags), head, query, span)

            driven = work(SqliteExclusiveTransaction(connection, head, ask)).__await__()
            with suppress(StopIteration):
                next(driven)
                raise RuntimeError("what is done in a turn of the writer may not wait for anything else")

        self.transact(within)

    def _run_alone(self, work: Callable[[apsw.Connection], T]) -> T:
        """Work alone on the connection, which is given back however it ends, as the lock is, if work has taken it.

        Once the COMMIT succeeded, an error of whatever follows it is raised as AppendUnconfirmed: any other one says
        that nothing was written.
        """
        return self._mutex.run_user_code(self._alone, work)

    def _alone(self, work: Callable[[apsw.Connection], T]) -> T:
        if self._unreturned is not None:
            self._clean_up(self._unreturned)
        self._committed = False
        connection = self._unreturned = self._file.writer()
        try:
            try:
                result = work(connection)
            except BaseException as error:
                record_errno(error, connection)
                self._file.pool.discard(connection)
                raise
            finally:
                self._file.lock.release()
            self._unreturned = None  # it ended well: before it is given back, so that nobody else's is taken for it
            self._file.pool.return_writer(connection)
        except AppendUnconfirmed:
            raise
        except Exception as error:
            if not self._committed:
                raise
            raise self._unconfirmed_error("What follows a commit failed", self._as_eventfold_error(error)) from error
        return result

    def _clean_up(self, left: apsw.Connection) -> None:
        """After a call that failed. An exception at any point may have kept it from rolling back and forgetting.

        It may itself be ended by one, and is then done again.
        """
        self._file.pool.discard(left)  # and with it the transaction
        self._file.lock.release()
        self._discard_uncommitted()
        if self.projector is not None:
            self.projector.forget()
        self._unreturned = None

    def _as_eventfold_error(self, error: Exception) -> EventfoldError:
        if isinstance(error, EventfoldError):
            return error
        if isinstance(error, apsw.Error):
            return translate_error(error, self._file.path)
        what = f"{type(error).__name__}: {str(error).rstrip('.')}."
        return StoreUnavailable(what, "See what it says.", path=self._file.path)

    def _append(self, connection: apsw.Connection, requests: Sequence[AppendRequest]) -> list[Outcome]:
        judged = self._precheck_old_conditions(connection, requests)
        self._file.lock.acquire()
        # First in good faith: ids are taken to be new, as ids made here are. If the guard in the database finds a
        # known one, everything is rolled back and done again with every id looked up. So with rows that the database
        # does not take: again, writing each request's at once, to find out whose they are.
        careful = at_once = again = False
        while True:
            try:
                return self._append_once(connection, requests, judged, careful, at_once)
            except apsw.ConstraintError:
                if careful:
                    raise
                careful = True
            except InlineFailed:
                if at_once:
                    raise
                at_once = True
            except StaleRows as stale:
                if again:
                    raise stale.__cause__ or stale from None
                again = True

    def _transact_alone(
        self, connection: apsw.Connection, work: Callable[[apsw.Connection, NameDictionary, NameDictionary], None]
    ) -> None:
        self._file.lock.acquire()
        try:
            connection.execute("BEGIN IMMEDIATE")
            head = self.head.read_head(connection)
            work(connection, self.types, self.tags)
            row = connection.execute(schema.HEAD).fetchone()
            if row is not None and row[0] != head.position:
                head = Head(row[0], row[2], row[1])
        except BaseException:
            self._rollback(connection)
            raise
        self._commit(connection, head)

    def _precheck_old_conditions(
        self, connection: apsw.Connection, requests: Sequence[AppendRequest]
    ) -> dict[int, int]:
        """Judge conditions that look far back before the lock is taken: id of clause -> position it holds through."""
        clauses = [clause for request in requests for clause in request.unless]
        if not clauses:
            return {}
        start = self.window.start if self.window.start >= 0 else self.head.last_seen.position
        long = [clause for clause in clauses if clause.query.items and start - clause.after > OLD_CONDITION_POSITIONS]
        if not long:
            return {}
        mark = self._file.read_mark()
        until = self.head.read_head(connection).position
        names = NameLookup(connection, self.types, self.tags)
        judged = {id(c): until for c in long if first_match(names, c.query, c.after, until) is None}
        return judged if self._file.is_unchanged_since(mark) else {}  # else all of it is judged under the lock

    def _append_once(
        self,
        connection: apsw.Connection,
        requests: Sequence[AppendRequest],
        judged: dict[int, int],
        careful: bool,
        at_once: bool,
    ) -> list[Outcome]:
        batch, head = None, None
        try:
            try:
                connection.execute("BEGIN IMMEDIATE")
                batch = Batch(self, connection, judged, careful, at_once)
                outcomes = [batch.judge(request) for request in requests]
                batch.insert()
            except BaseException:
                self._rollback(connection)
                raise
            if batch.new_head is None:
                connection.execute("ROLLBACK")
            else:
                self._commit(connection, batch.new_head)
                head = batch.new_head.position
        finally:
            if batch is not None and batch.inline is not None:
                batch.inline.end(head)
        return outcomes

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
        self.types.commit()
        self.tags.commit()
        if not self._file.is_in_place():
            assert self._file.damage is not None
            raise self._unconfirmed_error("The commit went to a file that is no longer in its place", self._file.damage)
        self.head.record_commit(head)
        if self._file.wal_pages >= self._checkpoint_at:
            self._checkpoint(connection)

    def _unconfirmed_error(self, what: str, cause: EventfoldError) -> AppendUnconfirmed:
        return AppendUnconfirmed(
            f"{what}: {cause.what}",
            "Repeat the identical append once the cause is mended; it will not be written twice.",
            cause=cause.code,
            path=self._file.path,
        )

    def _rollback(self, connection: apsw.Connection) -> None:
        self._discard_uncommitted()
        if connection.in_transaction:
            with suppress(apsw.Error):  # the error before it is the one to be raised; the connection is closed
                connection.execute("ROLLBACK")

    def _discard_uncommitted(self) -> None:
        """Believe nothing of what was noted within a transaction that did not commit."""
        self.types.rollback()
        self.tags.rollback()
        self.window.restart(-1)

    def _checkpoint(self, connection: apsw.Connection) -> None:
        """Move the WAL into the file and begin it anew, as far as readers allow; always under the writers' lock.

        So it does not matter whether this SQLite has the fix for the WAL-reset bug (sqlite.org/wal.html#walresetbug):
        no one who keeps to the lock writes meanwhile. Writers in other programs are not ours to hold back.
        """
        connection.set_busy_timeout(RESET_TIMEOUT_MS)
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
            self._checkpoint_at = CHECKPOINT_PAGES
        except apsw.Error:
            # A reader in an old snapshot holds the WAL back, or there is no room in the file. The commit stands all
            # the same: try again when the WAL has grown some more.
            self._checkpoint_at = self._file.wal_pages + CHECKPOINT_PAGES // 4
        finally:
            self._file.set_busy_timeout(connection)

    def close(self) -> None:
        """Checkpoint a last time, unless someone else is writing or reading, so that the file is whole by itself.

        Where that cannot be, whoever closes last, or opens next, does it: the WAL is part of the store.
        """
        if not (self._file.wal_pages or self._file.has_leftover_wal):
            return
        try:
            self._run_alone(self._final_checkpoint)
        except (EventfoldError, apsw.Error):
            return

    def _final_checkpoint(self, connection: apsw.Connection) -> None:
        self._file.lock.acquire(0)
        connection.set_busy_timeout(0)
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
