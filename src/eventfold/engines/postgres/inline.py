"""Inline projections: appends in which rows are folded, and exclusive transactions during which nothing is appended.

Only in blocking mode: folding runs user code, which would block an event loop. Knows: when a batch is repeated, and
without which requests. Does not know: how events are folded (the projector does), what outcomes mean.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import psycopg
from psycopg import errors as pg

from eventfold.core.envelope import StoredEvent, page_length
from eventfold.core.mutex import Mutex
from eventfold.core.query import Query
from eventfold.engines.postgres.append import AppendReply, parse_reply, written_requests
from eventfold.engines.postgres.arrays import pack_texts
from eventfold.engines.postgres.batch import AppendBatch, split_batches
from eventfold.engines.postgres.checksums import text_checksum
from eventfold.engines.postgres.connection import Connection, ResultRows, SyncConnection
from eventfold.engines.postgres.options import quote_identifier, writer_lock_arguments
from eventfold.engines.postgres.pool import ThreadCheckouts
from eventfold.errors import AppendUnconfirmed, EventfoldError, InlineFailed, StoreDamaged
from eventfold.ports.inline import (
    AppendMode,
    ExclusiveTransaction,
    InlineProjector,
    InlineRegistration,
    InlineTransaction,
    StaleRows,
    missing_code,
)
from eventfold.ports.messages import PAGE_BYTES, Page, Span

READ_POSITIONS = 2_000  # that one page covers in an exclusive transaction

# What the database rejects because of its content, not because of the connection or other transactions.
ROW_ERRORS = (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError)

T = TypeVar("T")
BuildStatement = Callable[[Connection, AppendBatch, AppendMode], tuple[str, Sequence[Any]]]
DecodeRows = Callable[[ResultRows], list[StoredEvent]]


class InlineResult(msgspec.Struct, frozen=True):
    """The result of a batch: the part that was written or judged, its requests' indexes in the batch, the reply.

    `refused`: requests that could not be folded, by their index in the batch.
    """

    part: AppendBatch
    indexes: Sequence[int]
    reply: AppendReply | None
    refused: dict[int, EventfoldError]


class _WriteRejected(Exception):
    """The database rejected rows or the checkpoint, in a pipeline that does not tell which statement failed.

    `is_stale`: a statement failed as an UPDATE of a checkpoint does that another process changed (Driver.update_row).
    """

    def __init__(self, error: psycopg.Error) -> None:
        super().__init__(str(error))
        self.error = error
        self.is_stale = isinstance(error, pg.DivisionByZero)


class InlineAppender:
    """Appends batches while an inline projector folds their events, in one transaction."""

    def __init__(self, schema: str, lock_timeout_ms: Callable[[], int], thread_checkouts: ThreadCheckouts) -> None:
        self.projector: InlineProjector | None = None
        self._schema, self._lock_timeout_ms, self._thread_checkouts = schema, lock_timeout_ms, thread_checkouts
        self._was_interrupted = False  # whether the last transaction ended by an exception
        self._mutex = Mutex()  # the projector's cached rows follow one transaction after the other
        self.registrations_sql = (
            f"SELECT name, code, types, ticket, crc FROM {quote_identifier(schema)}.inlined ORDER BY name"  # noqa: S608
        )

    @property
    def code_argument(self) -> dict[str, Any]:
        """The argument of `append` that names the inline projections this process has."""
        if self.projector is None or not self.projector.codes:
            return {}
        return {"brought": pack_texts([f"{name} {code}" for name, code in self.projector.codes.items()])}

    async def _begin_transaction(self, connection: Connection) -> None:
        """Begin a transaction with the settings of a target in the store's schema."""
        self._thread_checkouts.add(connection.checkout)
        await connection.execute_script("; ".join(self._begin_statements()))

    def _begin_statements(self) -> tuple[str, str]:
        search_path = quote_identifier(self._schema).replace("'", "''")
        return (
            "BEGIN ISOLATION LEVEL READ COMMITTED",
            f"SELECT set_config('search_path', '{search_path}', true), set_config('TimeZone', 'UTC', true),"  # noqa: S608
            f" set_config('lock_timeout', '{self._lock_timeout_ms()}', true), set_config('enable_seqscan', 'on', true),"
            " set_config('plan_cache_mode', 'auto', true)",
        )

    async def append(self, connection: Connection, batch: AppendBatch, build: BuildStatement) -> InlineResult:
        """Commit events and rows together. A request that cannot be folded is refused; the others are tried again."""
        return self._mutex.run_user_code(_run_blocking, self._in_order(self._append(connection, batch, build)))

    async def _in_order(self, work: Coroutine[Any, Any, T]) -> T:
        if self._was_interrupted and self.projector is not None:
            self.projector.forget()
        self._was_interrupted = True
        result = await work
        self._was_interrupted = False
        return result

    async def _append(self, connection: Connection, batch: AppendBatch, build: BuildStatement) -> InlineResult:
        """Attempt until every request is written or refused; each kind of failure changes the mode once."""
        refused: dict[int, EventfoldError] = {}
        mode = AppendMode.OPTIMISTIC
        while True:
            part, indexes = _without_refused(batch, refused)
            if not indexes:
                return InlineResult(batch, (), None, refused)
            try:
                reply, failed = await self._attempt(connection, part, build(connection, part, mode), mode)
            except pg.UniqueViolation:  # an event id is stored already
                if AppendMode.CHECK_IDS in mode:
                    raise
                mode |= AppendMode.CHECK_IDS
            except InlineFailed:  # the database rejects a row: of which request?
                if AppendMode.WRITE_EACH in mode:
                    raise
                mode |= AppendMode.WRITE_EACH
            except _WriteRejected as rejected:
                flag = AppendMode.REREAD_ROWS if rejected.is_stale else AppendMode.WRITE_EACH
                if flag in mode:
                    raise rejected.error from None
                mode |= flag
            except StaleRows as stale:  # rows in the projector's cache were outdated
                if AppendMode.REREAD_ROWS in mode:
                    raise stale.__cause__ or stale from None
                mode |= AppendMode.REREAD_ROWS
            else:
                if not failed:
                    return InlineResult(part, indexes, reply, refused)
                refused |= {indexes[number]: error for number, error in failed.items()}

    async def _attempt(
        self, connection: Connection, part: AppendBatch, statement: tuple[str, Sequence[Any]], mode: AppendMode
    ) -> tuple[AppendReply, dict[int, EventfoldError]]:
        folding, head = None, None
        assert self.projector is not None
        assert isinstance(connection, SyncConnection)  # see the module's docstring
        self._thread_checkouts.add(connection.checkout)
        try:
            reply = parse_reply(await connection.begin_and_fetch(self._begin_statements(), *statement))
            folding = self.projector.begin(
                connection.psycopg_connection, reply.head, parse_registrations(reply.registrations)
            )
            last, failed = _fold_written(folding, part, reply, AppendMode.WRITE_EACH in mode)
            if not failed:
                try:
                    await connection.write_and_commit(folding.write)
                except ROW_ERRORS as error:
                    raise _WriteRejected(error) from error
                head = last
        finally:
            try:
                if folding is not None:
                    folding.end(head)
                await _roll_back(connection)
            except Exception as error:
                if head is None:
                    raise
                raise AppendUnconfirmed(
                    f"The append was committed, and a step after the commit failed ({type(error).__name__}: {error}).",
                    "Repeat the identical append: it will not be written twice.",
                ) from error
        return reply, failed

    async def run_exclusive(
        self,
        connection: Connection,
        work: Callable[[ExclusiveTransaction], Awaitable[None]],
        page: Any,
        events: DecodeRows,
    ) -> None:
        """See services.InlineProjections. `page` builds the statement of a page, `events` decodes its rows."""
        self._mutex.run_user_code(_run_blocking, self._in_order(self._run_exclusive(connection, work, page, events)))

    async def _run_exclusive(
        self,
        connection: Connection,
        work: Callable[[ExclusiveTransaction], Awaitable[None]],
        page: Any,
        events: DecodeRows,
    ) -> None:
        await self._begin_transaction(connection)
        try:
            await connection.fetch(f"SELECT pg_advisory_xact_lock({writer_lock_arguments(self._schema)})")
            sql = f"SELECT coalesce(max(position), 0) FROM {quote_identifier(self._schema)}.event"  # noqa: S608
            head: int = (await connection.fetch(sql))[0][0]
            await work(
                PostgresExclusiveTransaction(
                    connection,
                    self._schema,
                    head,
                    decode_registrations(await connection.fetch(self.registrations_sql)),
                    page,
                    events,
                )
            )
            await connection.fetch("COMMIT")
        finally:
            await _roll_back(connection)


class PostgresExclusiveTransaction:
    """See ports.inline.ExclusiveTransaction."""

    def __init__(
        self,
        connection: Connection,
        schema: str,
        head: int,
        inlined: Sequence[InlineRegistration],
        page: Any,
        events: DecodeRows,
    ) -> None:
        self.connection, self.head, self.registrations = connection.psycopg_connection, head, inlined
        self._connection, self._build_page, self._decode_rows = connection, page, events
        self._table = f"{quote_identifier(schema)}.inlined"

    async def read(self, query: Query, after: int) -> Page:
        """See the port."""
        until = min(after + READ_POSITIONS, self.head)
        events = await self._fetch_events(query, Span(after=after, until=until), READ_POSITIONS)
        size = page_length(events, len(events), PAGE_BYTES)
        if size == len(events):
            return Page(events, until, until < self.head)
        del events[size:]
        edge = events[-1]
        if edge.position < min(edge.last, until):
            events += await self._fetch_events(query, Span(after=edge.position, until=min(edge.last, until)), None)
        return Page(events, events[-1].position, True)

    async def _fetch_events(self, query: Query, span: Span, limit: int | None) -> list[StoredEvent]:
        sql, values = self._build_page(query, span, limit)
        return self._decode_rows(await self._connection.fetch(sql, values))

    async def register(self, inlined: InlineRegistration) -> None:
        """See the port."""
        await self.unregister(inlined.name)
        values = [
            inlined.name,
            inlined.code,
            pack_texts(inlined.types),
            inlined.incarnation,
            _registration_checksum(inlined),
        ]
        sql = f"INSERT INTO {self._table} (name, code, types, ticket, crc) VALUES (%b, %b, %b, %b, %b)"  # noqa: S608
        await self._connection.fetch(sql, values)

    async def unregister(self, name: str) -> None:
        """See the port."""
        await self._connection.fetch(f"DELETE FROM {self._table} WHERE name = %b", [name])  # noqa: S608


def _without_refused(batch: AppendBatch, refused: Mapping[int, object]) -> tuple[AppendBatch, Sequence[int]]:
    """The batch without these requests, and the indexes of its requests in the whole batch."""
    if not refused:
        return batch, range(len(batch.requests))
    indexes = [index for index in range(len(batch.requests)) if index not in refused]
    if not indexes:
        return batch, indexes
    part = next(split_batches([batch.requests[index] for index in indexes]))
    return msgspec.structs.replace(part, positions=batch.positions), indexes


def _fold_written(
    folding: InlineTransaction, part: AppendBatch, reply: AppendReply, write_each: bool
) -> tuple[int | None, dict[int, EventfoldError]]:
    """Fold the written requests. Returns the last position, and the errors of requests that could not be folded.

    A request whose condition begins behind a failed request is not folded: it is judged again without that one.
    """
    failed: dict[int, EventfoldError] = {}
    failed_ids: set[bytes] = set()
    last = None
    for index, first in written_requests(part, reply):
        request = part.requests[index]
        size = len(request.events)
        last = first + size - 1
        if any(clause.after_event in failed_ids for clause in request.unless if clause.after_event is not None):
            failed_ids.add(request.events[-1].id)
            continue
        if any(event.type in folding.types for event in request.events):
            stored = [event.at(first + offset, reply.time, offset, size) for offset, event in enumerate(request.events)]
            error = folding.fold(stored, write_each)
            if error is not None:
                failed[index] = error
                failed_ids.add(request.events[-1].id)
    return last, failed


def _run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, since its connection blocks."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    work.close()
    raise RuntimeError("a connection that blocks has suspended")


async def _roll_back(connection: Connection) -> None:
    if not connection.closed and not connection.is_idle():
        try:
            await connection.fetch("ROLLBACK")
        except psycopg.Error:  # the connection is lost, and with it the transaction; the pool closes it
            return


def parse_registrations(folded: Sequence[str] | None) -> list[InlineRegistration]:
    """The registrations of inline projections in the reply of `append`."""
    found: list[InlineRegistration] = []
    for text in folded or ():
        name, code, ticket, *types = text.split("\n")
        found.append(InlineRegistration(name, code, tuple(types), ticket))
    return found


def decode_registrations(rows: ResultRows) -> list[InlineRegistration]:
    """The registrations in the table. Raises StoreDamaged for a wrong checksum."""
    found: list[InlineRegistration] = []
    for name, code, types, ticket, crc in rows:
        each = InlineRegistration(name, code, tuple(types), ticket)
        if _registration_checksum(each) != crc:
            raise StoreDamaged(
                f"The registration of the read model {name!r} does not have its checksum.",
                "Keep a copy of the database as it is, check the server's disk, and restore a backup.",
                projection=name,
            )
        found.append(each)
    return found


def _registration_checksum(inlined: InlineRegistration) -> int:
    """See `checksum` in sql/guard.sql."""
    return text_checksum("\n".join((inlined.name, inlined.code, inlined.incarnation, *inlined.types)))


def missing_code_error(
    inlined: Sequence[InlineRegistration], projector: InlineProjector | None, batch: AppendBatch, index: int
) -> EventfoldError | None:
    """The error of a request that needs code this process lacks; None if only other requests of the batch do."""
    codes = dict[str, str]() if projector is None else projector.codes
    return missing_code(inlined, codes, [event.type for event in batch.requests[index].events])
