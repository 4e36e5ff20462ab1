"""Room: the writer: a batch of requests in one transaction, each judged and numbered, one fsync for all.

Knows: the order of a commit. Does not know: who waits for it (the bridge does), what events mean.
A batch is first written in good faith: ids are assumed new, as ids made here are. If the guard finds a known
one, everything is rolled back and done again with every id looked up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import apsw

from eventfold.engine import AppendRequest, Outcome
from eventfold.engines.sqlite import schema
from eventfold.engines.sqlite.connect import File
from eventfold.engines.sqlite.faults import translated
from eventfold.engines.sqlite.lock import WriterLock
from eventfold.engines.sqlite.names import Names
from eventfold.engines.sqlite.queries import Dictionary, positions
from eventfold.engines.sqlite.read import Rows
from eventfold.engines.sqlite.window import MOST, Window
from eventfold.errors import AppendUnconfirmed, EventfoldError
from eventfold.query import Clause
from eventfold.record import Receipt, Stored, checksum, digest, receipt
from eventfold.refusal import conflict, id_reused, in_the_future, is_repeat

LONG = 10_000  # positions: a condition that looks back further is judged before the lock is taken, too
CHECKPOINT_PAGES = 10_000  # 40 MB of WAL; at 1,000 pages bulk appends are 1.4 to 2 times slower


class KnownId(Exception):
    """Inside a batch: an id assumed new is in the log."""


class Writer:
    """The one writer of an engine."""

    def __init__(
        self, file: File, lock: WriterLock, types: Names, tags: Names, identity: tuple[str, int], clock: Callable[[], int]
    ) -> None:
        self._file, self._lock, self._types, self._tags = file, lock, types, tags
        self._store, self._epoch = identity
        self._clock = clock
        self._mutex = threading.Lock()
        self._connection: apsw.Connection | None = None
        self._window = Window()
        self._wal_pages = 0
        self._checkpoint_at = CHECKPOINT_PAGES

    def write(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """One commit. Raises AppendUnconfirmed if the commit failed, another error if nothing was written."""
        with self._mutex:
            connection = self._open()
            judged = self._judge_long(connection, requests)
            self._lock.acquire()
            try:
                try:
                    return self._transact(connection, requests, judged, careful=False)
                except KnownId:
                    return self._transact(connection, requests, judged, careful=True)
            finally:
                self._lock.release()

    def named(self, store_id: str, epoch: int) -> None:
        """What receipts say from now on."""
        self._store, self._epoch = store_id, epoch

    def take_over(self, work: Callable[[apsw.Connection, Names, Names], None]) -> None:
        """One commit of something else than requests: what is copied from another log."""
        with self._mutex:
            connection = self._open()
            self._lock.acquire()
            try:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    work(connection, self._types, self._tags)
                except BaseException:
                    self._abandon(connection)
                    raise
                self._commit(connection)
                self._window.restart(-1)
            finally:
                self._lock.release()

    def _open(self) -> apsw.Connection:
        self._file.check()
        if self._connection is None:
            self._connection = self._file.writer()
            self._connection.set_wal_hook(self._committed_pages)
        return self._connection

    def _committed_pages(self, _connection: Any, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _transact(
        self, connection: apsw.Connection, requests: Sequence[AppendRequest], judged: dict[int, int], careful: bool
    ) -> list[Outcome]:
        batch = None
        try:
            connection.execute("BEGIN IMMEDIATE")
            batch = Batch(self, connection, judged, careful)
            outcomes = [batch.take(request) for request in requests]
            batch.insert()
        except BaseException as error:
            self._abandon(connection)
            if isinstance(error, apsw.ConstraintError) and not careful:
                raise KnownId from error
            raise
        if not batch.rows:
            self._abandon(connection)
            return outcomes
        self._commit(connection)
        return outcomes

    def _commit(self, connection: apsw.Connection) -> None:
        try:
            connection.execute("COMMIT")
        except BaseException as error:
            # Frames of a failed commit may survive in the WAL, so nobody may say that it did not happen.
            self._abandon(connection)
            self._connection = None
            self._file.discard(connection)
            if not isinstance(error, apsw.Error):
                raise
            cause = translated(error, self._file.path)
            raise AppendUnconfirmed(
                f"The commit could not be confirmed: {cause.what}",
                "Repeat the identical append once the cause is mended; it will not be written twice.",
                cause=cause.code,
                path=self._file.path,
            ) from error
        self._types.publish()
        self._tags.publish()
        if not self._file.in_place():
            assert self._file.damage is not None
            raise AppendUnconfirmed(
                f"The commit went to a file that is no longer in its place: {self._file.damage.what}",
                "Open the store again and repeat the identical append; it will not be written twice.",
                cause=self._file.damage.code,
                path=self._file.path,
            )
        if self._wal_pages >= self._checkpoint_at:
            self._checkpoint(connection)

    def _abandon(self, connection: apsw.Connection) -> None:
        self._types.forget()
        self._tags.forget()
        self._window.restart(-1)
        if connection.in_transaction:
            connection.execute("ROLLBACK")

    def _checkpoint(self, connection: apsw.Connection) -> None:
        """Move the WAL into the file, as far as readers allow; always under the writer's lock."""
        pages, done = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        # A reader in an old snapshot holds the WAL back: try again only when it has grown as much again.
        self._checkpoint_at = CHECKPOINT_PAGES if done >= pages else pages + CHECKPOINT_PAGES

    def _judge_long(self, connection: apsw.Connection, requests: Sequence[AppendRequest]) -> dict[int, int]:
        """Judge conditions that look far back before the lock: id of clause -> position it holds through."""
        judged: dict[int, int] = {}
        start = self._window.start if self._window.start >= 0 else 0
        for request in requests:
            for clause in request.unless:
                if clause.query.items and start - clause.after > LONG or self._window.start < 0:
                    head = connection.execute(schema.HEAD).fetchone()
                    until = head[0] if head else 0
                    if until - clause.after > LONG and self.first_match(connection, clause, clause.after, until) is None:
                        judged[id(clause)] = until
        return judged

    def first_match(
        self, connection: apsw.Connection, clause: Clause, after: int, until: int, writing: bool = False
    ) -> int | None:
        """The first position in (after, until] that matches, from the indexes alone."""
        if until <= after:
            return None
        if not clause.query.items:
            return after + 1
        found = positions(
            Dictionary(connection, self._types, self._tags, writing), clause.query, after, until
        )
        if found.nothing:
            return None
        row = connection.execute(f"{found.sql('ASC')} LIMIT 1", found.bindings).fetchone()
        return row[0] if row else None

    def close(self) -> None:
        """Checkpoint a last time, under the lock, so that the file is whole by itself."""
        if self._connection is None:
            return
        try:
            self._file.check()
        except EventfoldError:
            return
        self._lock.acquire()
        try:
            self._connection.set_busy_timeout(0)  # whoever still reads is not waited for
            pages, done = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            if done >= pages:
                self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            return  # another process still reads; the last one to close finishes this
        except apsw.Error as error:
            raise translated(error, self._file.path) from error
        finally:
            self._lock.release()


class Batch:
    """One transaction's requests: judged in order against the log and against each other, then inserted together."""

    def __init__(self, writer: Writer, connection: apsw.Connection, judged: dict[int, int], careful: bool) -> None:
        self._writer, self._connection, self._judged, self._careful = writer, connection, judged, careful
        row = connection.execute(schema.HEAD).fetchone()
        self._head, last = (row[0], row[1]) if row else (0, 0)
        self._committed = self._head
        self._time = max(writer._clock(), last)
        window = writer._window
        if window.end != self._head or window.end - window.start > MOST:
            window.restart(self._head)
        self._window = window
        self.rows: list[tuple[Any, ...]] = []
        self._tagged: list[tuple[int, int, int]] = []
        self._keys: dict[str, int] = {}
        self._stored: dict[bytes, Stored] = {}

    def take(self, request: AppendRequest) -> Outcome:
        """Judge one request and, if it holds, give its events their positions."""
        try:
            if (request.key is not None or self._careful) and (known := self._known(request)) is not None:
                return known
            for clause in request.unless:
                self._judge(clause, request)
        except _Repeat as repeat:
            return repeat.receipt
        except EventfoldError as refusal:
            return refusal
        return self._accept(request)

    def _judge(self, clause: Clause, request: AppendRequest) -> None:
        if clause.after > self._head:
            self._refuse(request, in_the_future(clause, self._head))
        window, after = self._window, clause.after
        found = None
        if after < window.start:
            after = max(after, self._judged.get(id(clause), 0))
            found = self._writer.first_match(self._connection, clause, after, window.start, writing=True)
        if found is None:
            found = window.first_match(clause.query, clause.after)
        if found is not None:
            self._refuse(request, conflict(clause, found))

    def _refuse(self, request: AppendRequest, refusal: EventfoldError) -> NoReturn:
        if not self._careful and (known := self._known(request)) is not None:
            raise _Repeat(known)  # a repeated append conflicts with its own events
        raise refusal

    def _known(self, request: AppendRequest) -> Receipt | None:
        if request.key is not None:
            first = self._keys.get(request.key) or _first_of(self._connection, request.key)
            if first is not None:
                return self._receipt_at(first)
        events = request.events
        stored = [self._find(event.id) for event in events]
        unique = len({event.id for event in events}) == len(events)
        if unique and not any(stored):
            return None
        if not unique or not is_repeat(events, stored):
            raise id_reused(events, [s.position if s else None for s in stored])
        return receipt(self._writer._store, self._writer._epoch, [s for s in stored if s], repeated=True)

    def _find(self, identity: bytes) -> Stored | None:
        pending = self._pending().get(identity)
        if pending is not None:
            return pending
        row = self._connection.execute(schema.BY_ID, (identity,)).fetchone()
        return Rows(self._connection, self._writer._types).stored(row) if row else None

    def _pending(self) -> dict[bytes, Stored]:
        rows = Rows(self._connection, self._writer._types)
        for row in self.rows[len(self._stored) :]:
            self._stored[row[1]] = rows.stored(row)
        return self._stored

    def _receipt_at(self, first: int) -> Receipt:
        if first > self._committed:
            events = [s for s in self._pending().values() if s.first == first]
        else:
            events = Rows(self._connection, self._writer._types).append_at(first)
        return receipt(self._writer._store, self._writer._epoch, events, repeated=True)

    def _accept(self, request: AppendRequest) -> Receipt:
        writer, connection, window, time = self._writer, self._connection, self._window, self._time
        events, first = request.events, self._head + 1
        size = len(events)
        alone = size == 1
        position = self._head
        for offset, event in enumerate(events):
            position += 1
            type_id = writer._types.ensure(connection, event.type)
            tags = "\n".join(event.tags)
            self.rows.append(
                (
                    position,
                    event.id,
                    type_id,
                    event.version,
                    event.data,
                    tags,
                    time,
                    event.occurred,
                    event.metadata,
                    None if alone else offset,
                    None if alone else size,
                    None if event.codec == "json" else event.codec,
                    event.key,
                    checksum(position, time, event.data, tags, event.metadata),
                )
            )
            for tag in event.tags:
                self._tagged.append((writer._tags.ensure(connection, tag), position, type_id))
            window.add(position, event.type, event.tags)
        self._head = position
        if request.key is not None:
            self._keys[request.key] = first
        return Receipt(
            store=writer._store,
            epoch=writer._epoch,
            first=first,
            last=position,
            time=time,
            ids=tuple([event.id for event in events]),
            digest=digest(events),
        )

    def insert(self) -> None:
        """Write what was accepted. Raises apsw.ConstraintError if an id turns out to be known."""
        if self.rows:
            self._connection.executemany(schema.INSERT_EVENT, self.rows)
            if self._tagged:
                self._connection.executemany(schema.INSERT_TAGGED, self._tagged)
        if self._keys:
            self._connection.executemany(schema.INSERT_REQUEST, list(self._keys.items()))


class _Repeat(Exception):
    def __init__(self, receipt: Receipt) -> None:
        super().__init__(receipt)
        self.receipt = receipt


def _first_of(connection: apsw.Connection, key: str) -> int | None:
    row = connection.execute("SELECT first FROM request WHERE key = ?", (key,)).fetchone()
    return row[0] if row else None


