"""Room: the writer: one transaction at a time, under the lock that all writers of the file share; commit, checkpoint.

Knows: the order of a commit, and what may be said when one fails. Does not know: who waits for it (`concurrency`
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
from eventfold.engines.sqlite.append import Batch, first_match
from eventfold.engines.sqlite.connect import File
from eventfold.engines.sqlite.end import End
from eventfold.engines.sqlite.faults import keep_errno, translated, unwritten
from eventfold.engines.sqlite.inline import SqliteTurn
from eventfold.engines.sqlite.names import Names
from eventfold.engines.sqlite.queries import Dictionary
from eventfold.engines.sqlite.read import Rows, read_page
from eventfold.engines.sqlite.window import Window
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
LONG = 10_000  # positions: a condition that looks back further is judged before the lock is taken, too
CHECKPOINT_PAGES = 10_000  # 40 MB of WAL; at 1,000 pages bulk appends are 1.4 to 2 times slower
RESET_WAIT = 20  # ms that readers may take to leave a WAL that is about to be used again from its beginning


class Writer:
    """The one writer of an engine."""

    def __init__(self, file: File, types: Names, tags: Names, rows: Rows, end: End, clock: Callable[[], int]) -> None:
        self.types, self.tags, self.rows, self.end, self.clock = types, tags, rows, end, clock
        self.window = Window()
        self.folder: InlineProjector | None = None  # folds read models within what is written here
        self._file = file
        self._mutex = Mutex()
        self._left: apsw.Connection | None = None  # of a call that was ended before it could give it back
        self._checkpoint_at = CHECKPOINT_PAGES
        self._committed = False  # whether the call that is under way has committed

    def write(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """One commit. Raises AppendUnconfirmed if the commit failed, another error if nothing was written."""
        return self._in_turn(lambda connection: self._write(connection, requests))

    def take_over(self, work: Callable[[apsw.Connection, Names, Names], None]) -> None:
        """One commit of something else than requests: what is copied from another log, or kept beside this one."""
        self._in_turn(lambda connection: self._take_over(connection, work))

    def turn(self, work: Callable[[ExclusiveTransaction], Awaitable[None]]) -> None:
        """One commit of something that nobody may append during. `work` never suspends."""

        def within(connection: apsw.Connection, types: Names, tags: Names) -> None:
            head = self.end.look(connection).position

            def ask(query: Query, span: Span) -> Page:
                return read_page(connection, self.rows, (types, tags), head, query, span)

            driven = work(SqliteTurn(connection, head, ask)).__await__()
            with suppress(StopIteration):
                next(driven)
                raise RuntimeError("what is done in a turn of the writer may not wait for anything else")

        self.take_over(within)

    def _in_turn(self, work: Callable[[apsw.Connection], T]) -> T:
        """Work alone on the connection, which is given back however it ends, as the lock is, if work has taken it.

        Once the COMMIT succeeded, an error of whatever follows it is raised as AppendUnconfirmed: any other one says
        that nothing was written.
        """
        return self._mutex.run_user_code(self._alone, work)

    def _alone(self, work: Callable[[apsw.Connection], T]) -> T:
        if self._left is not None:
            self._clean_up(self._left)
        self._committed = False
        connection = self._left = self._file.writer()
        try:
            try:
                result = work(connection)
            except BaseException as error:
                keep_errno(error, connection)
                self._file.pool.discard(connection)
                raise
            finally:
                self._file.lock.release()
            self._left = None  # it ended well: before it is given back, so that nobody else's is taken for it
            self._file.pool.written(connection)
        except AppendUnconfirmed:
            raise
        except Exception as error:
            if not self._committed:
                raise
            raise self._unconfirmed("What follows a commit failed", self._cause(error)) from error
        return result

    def _clean_up(self, left: apsw.Connection) -> None:
        """After a call that failed. An exception at any point may have kept it from rolling back and forgetting.

        It may itself be ended by one, and is then done again.
        """
        self._file.pool.discard(left)  # and with it the transaction
        self._file.lock.release()
        self._forget()
        if self.folder is not None:
            self.folder.forget()
        self._left = None

    def _cause(self, error: Exception) -> EventfoldError:
        if isinstance(error, EventfoldError):
            return error
        if isinstance(error, apsw.Error):
            return translated(error, self._file.path)
        what = f"{type(error).__name__}: {str(error).rstrip('.')}."
        return StoreUnavailable(what, "See what it says.", path=self._file.path)

    def _write(self, connection: apsw.Connection, requests: Sequence[AppendRequest]) -> list[Outcome]:
        judged = self._judge_long(connection, requests)
        self._file.lock.acquire()
        # First in good faith: ids are taken to be new, as ids made here are. If the guard in the database finds a
        # known one, everything is rolled back and done again with every id looked up. So with rows that the database
        # does not take: again, writing each request's at once, to find out whose they are.
        careful = at_once = again = False
        while True:
            try:
                return self._transact(connection, requests, judged, careful, at_once)
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

    def _take_over(self, connection: apsw.Connection, work: Callable[[apsw.Connection, Names, Names], None]) -> None:
        self._file.lock.acquire()
        try:
            connection.execute("BEGIN IMMEDIATE")
            head = self.end.look(connection)
            work(connection, self.types, self.tags)
            row = connection.execute(schema.HEAD).fetchone()
            if row is not None and row[0] != head.position:
                head = Head(row[0], row[2], row[1])
        except BaseException:
            self._abandon(connection)
            raise
        self._commit(connection, head)

    def _judge_long(self, connection: apsw.Connection, requests: Sequence[AppendRequest]) -> dict[int, int]:
        """Judge conditions that look far back before the lock is taken: id of clause -> position it holds through."""
        clauses = [clause for request in requests for clause in request.unless]
        if not clauses:
            return {}
        start = self.window.start if self.window.start >= 0 else self.end.seen.position
        long = [clause for clause in clauses if clause.query.items and start - clause.after > LONG]
        if not long:
            return {}
        mark = self._file.mark()
        until = self.end.look(connection).position
        names = Dictionary(connection, self.types, self.tags)
        judged = {id(c): until for c in long if first_match(names, c.query, c.after, until) is None}
        return judged if self._file.is_settled(mark) else {}  # else all of it is judged under the lock

    def _transact(
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
                outcomes = [batch.take(request) for request in requests]
                batch.insert()
            except BaseException:
                self._abandon(connection)
                raise
            if batch.written is None:
                connection.execute("ROLLBACK")
            else:
                self._commit(connection, batch.written)
                head = batch.written.position
        finally:
            if batch is not None and batch.folding is not None:
                batch.folding.end(head)
        return outcomes

    def _commit(self, connection: apsw.Connection, head: Head) -> None:
        try:
            connection.execute("COMMIT")
        except apsw.Error as error:
            nothing = unwritten(error, connection)
            keep_errno(error, connection)
            self._abandon(connection)
            if nothing:
                raise apsw.FullError(str(error)) from error
            raise self._unconfirmed("The commit could not be confirmed", translated(error, self._file.path)) from error
        except BaseException:
            self._abandon(connection)
            raise
        self._committed = True
        self.types.publish()
        self.tags.publish()
        if not self._file.in_place():
            assert self._file.damage is not None
            raise self._unconfirmed("The commit went to a file that is no longer in its place", self._file.damage)
        self.end.committed(head)
        if self._file.wal_pages >= self._checkpoint_at:
            self._checkpoint(connection)

    def _unconfirmed(self, what: str, cause: EventfoldError) -> AppendUnconfirmed:
        return AppendUnconfirmed(
            f"{what}: {cause.what}",
            "Repeat the identical append once the cause is mended; it will not be written twice.",
            cause=cause.code,
            path=self._file.path,
        )

    def _abandon(self, connection: apsw.Connection) -> None:
        self._forget()
        if connection.in_transaction:
            with suppress(apsw.Error):  # the error before it is the one to be raised; the connection is closed
                connection.execute("ROLLBACK")

    def _forget(self) -> None:
        """Believe nothing of what was noted within a transaction that did not commit."""
        self.types.forget()
        self.tags.forget()
        self.window.restart(-1)

    def _checkpoint(self, connection: apsw.Connection) -> None:
        """Move the WAL into the file and begin it anew, as far as readers allow; always under the writers' lock.

        So it does not matter whether this SQLite has the fix for the WAL-reset bug (sqlite.org/wal.html#walresetbug):
        no one who keeps to the lock writes meanwhile. Writers in other programs are not ours to hold back.
        """
        connection.set_busy_timeout(RESET_WAIT)
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
            self._checkpoint_at = CHECKPOINT_PAGES
        except apsw.Error:
            # A reader in an old snapshot holds the WAL back, or there is no room in the file. The commit stands all
            # the same: try again when the WAL has grown some more.
            self._checkpoint_at = self._file.wal_pages + CHECKPOINT_PAGES // 4
        finally:
            self._file.patient(connection)

    def close(self) -> None:
        """Checkpoint a last time, unless someone else is writing or reading, so that the file is whole by itself.

        Where that cannot be, whoever closes last, or opens next, does it: the WAL is part of the store.
        """
        if not (self._file.wal_pages or self._file.left_behind):
            return
        try:
            self._in_turn(self._checkpoint_at_last)
        except (EventfoldError, apsw.Error):
            return

    def _checkpoint_at_last(self, connection: apsw.Connection) -> None:
        self._file.lock.acquire(0)
        connection.set_busy_timeout(0)
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
