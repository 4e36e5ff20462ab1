"""Room: the writing half of the engine: batches appended, with rows folded from them where there are any, and answered.

Knows: what to make of each answer. Does not know: how a batch is phrased (append.py), over which connection it goes
(servers.py), how rows are folded (inline.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec
import psycopg
from psycopg import errors as pg

from eventfold.core.envelope import Receipt, Staged, StoredEvent, make_receipt
from eventfold.core.moment_tags import is_moment
from eventfold.core.query import ConditionClause, Query
from eventfold.engines.postgres import inline, transactions
from eventfold.engines.postgres.append import (
    AppendBatch,
    EpochChanged,
    append_arguments,
    append_options,
    call_sql,
    decode_outcomes,
    has_repeated_ids,
    parse_reply,
    split_batches,
)
from eventfold.engines.postgres.arrays import pack_uuids
from eventfold.engines.postgres.checksums import check_whole_append, decode_events, decode_request_key, missing_event
from eventfold.engines.postgres.connection import Mode, ResultRows
from eventfold.engines.postgres.errors import (
    append_unconfirmed,
    is_connection_lost,
    receipt_unavailable,
    translate_error,
)
from eventfold.engines.postgres.inline import InlineAppender, InlineResult
from eventfold.engines.postgres.options import PostgresOptions, quote_identifier
from eventfold.engines.postgres.replication import IMPORT_ARGUMENTS, import_arguments
from eventfold.engines.postgres.schema import LAYOUT
from eventfold.engines.postgres.servers import Connection, Servers
from eventfold.engines.postgres.spellings import TimestampVariants
from eventfold.engines.postgres.statements import MAX_POSITION, ReadStatements
from eventfold.errors import (
    AppendConflict,
    AppendUnconfirmed,
    CorruptEvent,
    EventfoldError,
    EventIdReused,
    StoreBusy,
    StoreUnavailable,
)
from eventfold.ports.engine import AppendRequest, Capabilities, ExclusiveTransaction, InlineProjector, Outcome
from eventfold.ports.inline import InlineRegistration
from eventfold.ports.refusals import epoch_ended, id_reused, import_gap, is_repeat

MAX_RECENT_APPENDS = 2_048  # appends
MAX_APPEND_ATTEMPTS = 8  # attempts at a call while events it is built on are written by others


class PostgresWriter:
    """What PostgresEngine writes."""

    def __init__(self, url: str, options: PostgresOptions, colour: Mode, create: bool) -> None:
        self.options = options
        self.capabilities = Capabilities(suspends=colour == "async", blocks=colour == "sync", inline=colour == "sync")
        self._servers = Servers(url, options, colour, create, self._forget_epoch)
        self._schema = quote_identifier(options.schema)
        self._timestamp_variants = TimestampVariants(self._schema)
        self._sql = ReadStatements(self._schema)
        self._statements: dict[tuple[str, ...], str] = {}
        self._inline = InlineAppender(options.schema, self._servers.lock_timeout_ms, self._servers.thread_checkouts)
        self._recent_positions: dict[bytes, int] = {}  # the last events of appends made here, and where they stand
        self._last_seen_position = 0  #  the furthest position this engine has come across
        self._read_floor = (
            0  # what a reader must see: what a refused writer was told of, and, if asked for, our own writes
        )

    def _forget_epoch(self) -> None:
        """Another epoch: what was come across may be lost."""
        self._recent_positions, self._last_seen_position, self._read_floor = {}, 0, 0
        self._timestamp_variants.clear()

    @property
    def store_id(self) -> str:
        """See the port."""
        return self._servers.store_id

    @property
    def epoch(self) -> int:
        """See the port."""
        return self._servers.epoch

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """See the port."""
        done: list[Outcome] = []
        requests = await self._expand_conditions(requests)
        for batch in split_batches(requests) if requests else ():
            try:
                done += await self._append(batch)
            except EventfoldError as error:
                if not done:
                    raise
                # An earlier part is written already: what this part met is the outcome of its own requests.
                done += [error] * len(batch.requests)
        for number, outcome in enumerate(done):
            if isinstance(outcome, EventIdReused):
                done[number] = await self._find_equal_append(requests[number]) or outcome
        return done

    async def _expand_conditions(self, requests: Sequence[AppendRequest]) -> Sequence[AppendRequest]:
        """The requests, their conditions with every spelling that the log has of the moments in them."""
        if not any(clause.query.names_moments() for request in requests for clause in request.unless):
            return requests
        result: list[AppendRequest] = []
        for request in requests:
            clauses = [
                ConditionClause(await self._expand_query(c.query, MAX_POSITION), c.after, c.after_event)
                for c in request.unless
            ]
            result.append(msgspec.structs.replace(request, unless=tuple(clauses)))
        return result

    async def _expand_query(self, query: Query, through: int | None = None) -> Query:
        """The query with other spellings of its moments, at least those up to a position; None: the furthest known."""
        if not query.names_moments():
            return query
        ask = partial(self._servers.query, primary=True)
        return await self._timestamp_variants.expand(
            query, self._last_seen_position if through is None else through, ask
        )

    async def _find_equal_append(self, request: AppendRequest) -> Receipt | None:
        """The receipt of an append that wrote these events, with their moments in another time zone, if one did."""
        if not any(is_moment(tag) for event in request.events for tag in event.tags):
            return None
        rows = await self._servers.query(self._sql.positions_of_ids, [pack_uuids([request.events[0].id])], primary=True)
        if not rows:
            return None
        stored = self._decode_events(await self._servers.query(self._sql.events_of_append, [rows[0][0]], primary=True))
        if len(stored) != len(request.events) or not is_repeat(request.events, stored):
            return None
        return make_receipt(self.store_id, self.epoch, stored, repeated=True)

    async def _append(self, batch: AppendBatch) -> list[Outcome]:
        if has_repeated_ids(batch.requests[0]):
            return [await self._refuse_repeated_ids(batch.requests[0])]
        if any(_is_stale(request, self.epoch) for request in batch.requests):
            return await self._refuse_stale(batch.requests)
        if behind := batch.after_event_ids():
            batch = msgspec.structs.replace(batch, positions=await self._positions_of(behind))
        for _ in range(MAX_APPEND_ATTEMPTS):
            try:
                done, epoch = await self._commit(batch)
            except EpochChanged:
                return await self.append_many(batch.requests)
            if done is not None:
                return await self._decode_outcomes(done, epoch)
            batch = msgspec.structs.replace(batch, positions=await self._positions_of(batch.after_event_ids(all=True)))
        raise StoreBusy(
            "Others kept writing the events that this append is built on while it was judged; nothing was written.",
            "Try again.",
        )

    async def _refuse_stale(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """Refuse those whose conditions were read in another epoch, unless they repeat an append; append the others."""
        done, others = dict[int, Outcome](), list[int]()
        for number, request in enumerate(requests):
            if _is_stale(request, self.epoch) and not await self._is_stored(request):
                done[number] = epoch_ended(request.unless[0], request.epoch or 0, self.epoch)
            else:
                others.append(number)
        # Those that are known are not judged by their condition.
        again = [msgspec.structs.replace(requests[number], epoch=None) for number in others]
        done.update(zip(others, await self.append_many(again), strict=True))
        return [done[number] for number in range(len(done))]

    async def _is_stored(self, request: AppendRequest) -> bool:
        """Whether the request's key, or an event of it, is in the store: then it writes nothing."""
        if request.key is not None and await self._servers.query(self._sql.request, [request.key], primary=True):
            return True
        ids = pack_uuids([event.id for event in request.events])
        return bool(await self._servers.query(self._sql.positions_of_ids, [ids], primary=True))

    async def _commit(self, batch: AppendBatch) -> tuple[InlineResult | None, int]:
        """Judge and write; in which epoch. None: a condition begins behind an event of this call that is in the log.

        Then nothing was written, and it is to be looked up where that event stands: most calls have no such event.
        Raises OtherEpoch: nothing was written either, and the new one is known from now on.
        """
        return await self._servers.writer_pool.run_on(partial(self._commit_on, batch))

    async def _commit_on(self, batch: AppendBatch, connection: Connection) -> tuple[InlineResult | None, int]:
        try:
            if any(_is_stale(request, connection.epoch) for request in batch.requests):
                raise EpochChanged
            if self._inline.projector is not None:
                done = await self._inline.append(connection, batch, self._append_statement)
            else:
                try:
                    rows = await connection.fetch(*self._append_statement(connection, batch), prepare=True)
                except pg.UniqueViolation:
                    # An id is known already. Looking first would cost every append what this costs a few.
                    rows = await connection.fetch(*self._append_statement(connection, batch, True), prepare=True)
                done = InlineResult(batch, range(len(batch.requests)), parse_reply(rows), {})
            self._check_replicated(connection)
        except psycopg.Error as error:
            if error.sqlstate == "EF010":
                return None, connection.epoch
            raise self._translate_write_error(error, connection) from None
        except EpochChanged:
            await self._servers.refresh_epoch(connection)
            raise
        return done, connection.epoch

    def _append_statement(
        self, connection: Connection, batch: AppendBatch, careful: bool = False
    ) -> tuple[str, tuple[Any, ...]]:
        given = append_arguments(batch) | append_options(batch, self._last_seen_position) | self._inline.code_argument
        if connection.pooled:
            given["patience"] = self._servers.lock_timeout_ms()
        if careful:
            given["careful"] = True
        names = tuple(given)
        if names not in self._statements:
            self._statements[names] = self._guard_epoch(call_sql(f"{self._schema}.append", given))
        return self._statements[names], (*given.values(), connection.epoch)

    def _guard_epoch(self, function: str) -> str:
        """The call, made only where the store is in the epoch that is the statement's last parameter.

        An argument that depends on the store's row keeps the planner from making the call first.
        """
        function = function.replace("%b::uuid[]", "CASE WHEN s.one THEN %b::uuid[] END", 1)
        return f"SELECT a.* FROM {self._schema}.store s CROSS JOIN LATERAL {function} a WHERE s.epoch = %b"

    async def _positions_of(self, identities: list[bytes]) -> dict[bytes, int]:
        """Where events stand in the log, those that do; mostly they were written by us a moment ago."""
        found = {
            identity: self._recent_positions[identity] for identity in identities if identity in self._recent_positions
        }
        if unknown := [identity for identity in identities if identity not in found]:
            rows = await self._servers.query(self._sql.positions_of_ids, [pack_uuids(unknown)], primary=True)
            found |= {bytes(identity): position for position, identity in rows}
        return found

    async def _refuse_repeated_ids(self, request: AppendRequest) -> Outcome:
        """The outcome of a request in which two events have the same id."""
        if request.key is not None and (known := await self.request(request.key)) is not None:
            return msgspec.structs.replace(known, repeated=True)
        rows = await self._servers.query(
            self._sql.positions_of_ids, [pack_uuids([event.id for event in request.events])], primary=True
        )
        at = {event_id: position for position, event_id in rows}
        return id_reused(request.events, [at.get(event.id) for event in request.events])

    def _translate_write_error(self, error: psycopg.Error, connection: Connection) -> EventfoldError:
        """What became of something that was to be written: open, if the connection is gone, and nothing otherwise."""
        where = self._servers.primary.where
        if is_connection_lost(error, connection.closed):
            return append_unconfirmed(error, where)
        if error.sqlstate == "EF007":
            return import_gap(int(error.diag.message_detail or 0), 0)
        return translate_error(error, where)

    def _check_replicated(self, connection: Connection) -> None:
        if connection.committed_only_locally:
            connection.committed_only_locally = False
            raise AppendUnconfirmed(
                "The append was committed here, and the wait for the standby that should have it too was cancelled.",
                "Check the standby, then repeat the identical append, which is safe.",
                server=self._servers.primary.where,
            )

    async def _decode_outcomes(self, done: InlineResult, epoch: int) -> list[Outcome]:
        result: dict[int, Outcome] = dict(done.refused)
        found = decode_outcomes(done.part, done.reply, self.store_id, epoch) if done.reply is not None else []
        for place, outcome in zip(done.indexes, found, strict=True):
            if outcome is not None:
                result[place] = await self._first_receipt(outcome) if isinstance(outcome, int) else outcome
                self._note_outcome(result[place])
        if None in found:
            await self._refuse_missing_code(done, [n for n, outcome in enumerate(found) if outcome is None], result)
        return [result[place] for place in range(len(result))]

    async def _first_receipt(self, position: int) -> Outcome:
        """The first receipt of an append that was repeated, or why it cannot be given: an outcome, never raised.

        Others of the same call may have been written by now, and an error raised would say that nothing was.
        """
        try:
            return await self._receipt_at(position, repeated=True)
        except StoreUnavailable as error:
            return receipt_unavailable(error, self._servers.primary.where)
        except CorruptEvent as error:
            return error

    async def _refuse_missing_code(self, done: InlineResult, numbers: list[int], result: dict[int, Outcome]) -> None:
        """Refuse those of a call whose events somebody's code was lacking for; the others are appended without them."""
        inlined, others = await self.inlined(), list[int]()
        for number in numbers:
            if (error := inline.missing_code_error(inlined, self._inline.projector, done.part, number)) is not None:
                result[done.indexes[number]] = error
            else:
                others.append(number)
        again = await self.append_many([done.part.requests[number] for number in others])
        result.update((done.indexes[number], outcome) for number, outcome in zip(others, again, strict=True))

    def _note_outcome(self, outcome: Outcome) -> None:
        if isinstance(outcome, Receipt):
            recent = self._recent_positions  # before the epoch is looked at: see Sessions.begin
            if outcome.epoch != self.epoch:
                return
            self._servers.note_event(outcome.last, outcome.epoch, outcome.ids[-1])
            self._last_seen_position = max(self._last_seen_position, outcome.last)
            recent[outcome.ids[-1]] = outcome.last
            if len(recent) > MAX_RECENT_APPENDS:
                recent.pop(next(iter(recent)), None)
            if self.options.read_your_writes:
                self._read_floor = max(self._read_floor, outcome.last)
        elif isinstance(outcome, AppendConflict):
            self._read_floor = max(self._read_floor, outcome.fields["found"])

    async def append_joined(self, connection: Any, requests: Sequence[AppendRequest]) -> list[Staged]:
        """Append within the user's own transaction on `connection`: it commits or rolls back with it.

        `connection`: psycopg's, SQLAlchemy's Connection or Session (async ones too), or Django's. Positions are
        assigned and conditions judged at its COMMIT, which fails (see `refusal`) if one does not hold. What is
        returned has no positions yet; `confirm` gives the receipt afterwards. Raises InvalidInput on a connection
        that is in no transaction or in one of another isolation level than READ COMMITTED.
        """
        for request in requests:
            if _is_stale(request, self.epoch):
                raise epoch_ended(request.unless[0], request.epoch or 0, self.epoch)
        epoch, where = self.epoch, self._servers.primary.where
        requests = await self._expand_conditions(requests)
        try:
            return await transactions.stage(connection, requests, self._schema, self.store_id, epoch, where)
        except EpochChanged:
            await self._servers.query(self._sql.store_epoch, primary=True, epoch=True)  # it is known from now on
            raise epoch_ended(next(r.unless[0] for r in requests if r.unless), epoch, self.epoch) from None

    async def staged(
        self, connection: Any, types: Sequence[str] | None = None, key: str | None = None
    ) -> list[tuple[StoredEvent, str | None]]:
        """What `append_joined` has staged in the connection's transaction: events in order, each with its request key.

        Of appends that have an event of one of these types (None: any type), and of the one under this key; other
        events of these come along. What was rolled back to a savepoint is not among them. Before the COMMIT their
        position is 0.
        """
        where = self._servers.primary.where
        return await transactions.read_staged(connection, self._schema, types, key, where)

    async def confirm(self, staged: Staged) -> Receipt | None:
        """The receipt of a joined append after its COMMIT; None if it was not committed.

        Raises AppendUnconfirmed where that cannot be looked up now.
        """
        try:
            rows = await self._servers.query(self._sql.positions_of_ids, [pack_uuids(staged.ids[:1])], primary=True)
            found = await self._receipt_at(rows[0][0], repeated=False) if rows else None
        except StoreUnavailable as error:
            raise AppendUnconfirmed(
                f"Whether the joined append was committed could not be looked up: {error.what}",
                "Ask again (confirm), before anything is appended in its place.",
                cause=error.code,
                server=self._servers.primary.where,
            ) from error
        if found is None or found.ids != staged.ids or found.digest != staged.digest:
            return None
        return msgspec.structs.replace(found, repeated=found.last <= staged.after)

    def fold_with(self, folder: InlineProjector) -> None:
        """See the port."""
        if not self.capabilities.inline:
            raise inline.inline_not_supported()
        self._inline.projector = folder

    async def inlined(self) -> list[InlineRegistration]:
        """See the port."""
        return inline.decode_registrations(await self._servers.query(self._inline.registrations_sql, primary=True))

    async def in_turn(self, work: Callable[[ExclusiveTransaction], Awaitable[None]]) -> None:
        """See the port."""
        if not self.capabilities.inline:
            raise inline.inline_not_supported()
        await self._servers.writer_pool.run_on(partial(self._exclusive_on, work))

    async def _exclusive_on(
        self, work: Callable[[ExclusiveTransaction], Awaitable[None]], connection: Connection
    ) -> None:
        try:
            await self._inline.run_exclusive(connection, work, self._sql.page, self._decode_page)
            self._check_replicated(connection)
        except psycopg.Error as error:
            raise self._translate_write_error(error, connection) from None

    async def adopt(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]] = ()) -> None:
        """See the port. Needs the rights of the store's owner."""
        try:
            await self._run_as_owner(f"SELECT {self._schema}.adopt({IMPORT_ARGUMENTS})", import_arguments(events, keys))
        except AppendConflict as conflict:
            raise import_gap(conflict.fields["found"], events[0].position) from None

    async def succeed(self, store_id: str, epoch: int) -> None:
        """See the port. Needs the rights of the store's owner."""
        try:
            await self._run_as_owner(f"SELECT {self._schema}.succeed({LAYOUT}, %b, %b)", [store_id, epoch])
        except AppendConflict as conflict:
            raise import_gap(conflict.fields["found"], 1) from None
        self._servers.store_id = store_id
        self._servers.enter_epoch(epoch)

    async def _run_as_owner(self, sql: str, values: Sequence[Any]) -> None:
        await self._servers.writer_pool.run_on(partial(self._run_as_owner_on, sql, values))

    async def _run_as_owner_on(self, sql: str, values: Sequence[Any], connection: Connection) -> None:
        try:
            await connection.fetch(sql, values)
            self._check_replicated(connection)
        except psycopg.Error as error:
            raise self._translate_write_error(error, connection) from None

    async def request(self, key: str) -> Receipt | None:
        """See the port."""
        rows = await self._servers.query(self._sql.request, [key], primary=True)
        return await self._receipt_at(decode_request_key(rows[0])[1], repeated=False) if rows else None

    async def _receipt_at(self, position: int, *, repeated: bool) -> Receipt:
        rows = await self._servers.query(self._sql.events_of_append, [position], primary=True)
        return make_receipt(
            self.store_id, self.epoch, check_whole_append(self._decode_events(rows), position), repeated=repeated
        )

    def _decode_events(self, rows: ResultRows) -> list[StoredEvent]:
        return decode_events(rows, self._servers.unplaced)

    def _decode_page(self, rows: ResultRows) -> list[StoredEvent]:
        """A page's rows, each behind head, epoch and the head's id; one without a place stands for no events."""
        if rows[0][3] is None:
            return []
        lost = next((row[3] for row in rows if row[-1] is None), None)  # an event has a checksum
        if lost is not None:
            raise missing_event(lost)
        return self._decode_events([row[3:] for row in rows])


def _is_stale(request: AppendRequest, epoch: int) -> bool:
    """Whether a request's condition was read in another epoch."""
    return request.epoch is not None and request.epoch != epoch and bool(request.unless)
