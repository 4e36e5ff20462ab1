"""Writing to the log: requests cut into batches, committed with one call each, their replies turned into outcomes.

Knows: what each reply means, when to try again. Does not know: the call's arguments (append.py), which connection is
used (servers.py), how rows are folded within an append (inline.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec
import psycopg
from psycopg import errors as pg

from eventfold.core.envelope import Receipt, make_receipt
from eventfold.core.tags import is_moment
from eventfold.engines.postgres import inline
from eventfold.engines.postgres.append import (
    EpochChanged,
    append_arguments,
    append_options,
    call_sql,
    decode_outcomes,
    guard_epoch,
    parse_reply,
)
from eventfold.engines.postgres.arrays import pack_uuids
from eventfold.engines.postgres.batch import AppendBatch, has_repeated_ids, is_stale, split_batches
from eventfold.engines.postgres.connection import Connection
from eventfold.engines.postgres.errors import receipt_unavailable
from eventfold.engines.postgres.inline import InlineAppender, InlineResult
from eventfold.engines.postgres.options import quote_identifier
from eventfold.engines.postgres.reader import PostgresReader
from eventfold.engines.postgres.servers import Servers
from eventfold.engines.postgres.statements import ReadStatements
from eventfold.errors import AppendConflict, CorruptEvent, EventfoldError, EventIdReused, StoreBusy, StoreUnavailable
from eventfold.ports.inline import AppendMode, ExclusiveTransaction, InlineProjector, InlineRegistration
from eventfold.ports.messages import AppendRequest, Outcome
from eventfold.ports.refusals import epoch_ended, id_reused, is_repeat

MAX_RECENT_APPENDS = 2_048  # appends whose last event is remembered with its position
MAX_APPEND_ATTEMPTS = 8  # of one call, while other writers store the events that it is built on


class PostgresWriter:
    """Appends to one log, on the primary."""

    def __init__(self, servers: Servers, reader: PostgresReader) -> None:
        self._servers, self._reader, self._options = servers, reader, servers.options
        self._schema = quote_identifier(servers.options.schema)
        self._sql = ReadStatements(self._schema)
        self._statements: dict[tuple[str, ...], str] = {}
        self._inline = InlineAppender(servers.options.schema, servers.lock_timeout_ms, servers.thread_checkouts)
        self._recent_positions: dict[bytes, int] = {}  # of the last events of this engine's appends, by event id

    def forget_epoch(self) -> None:
        """Forget positions of the previous epoch: its last events may be lost."""
        self._recent_positions = {}

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """See the port."""
        done: list[Outcome] = []
        requests = await self._reader.expand_conditions(requests)
        for batch in split_batches(requests) if requests else ():
            try:
                done += await self._append(batch)
            except EventfoldError as error:
                if not done:
                    raise
                # Earlier batches are committed, so the error is the outcome of this batch's requests only.
                done += [error] * len(batch.requests)
        for number, outcome in enumerate(done):
            if isinstance(outcome, EventIdReused):
                done[number] = await self._find_equal_append(requests[number]) or outcome
        return done

    async def _find_equal_append(self, request: AppendRequest) -> Receipt | None:
        """The receipt of an append of the same events with their moments in another time zone; None if there is none.

        Older versions stored moments in the time zone they were arguments in.
        """
        if not any(is_moment(tag) for event in request.events for tag in event.tags):
            return None
        rows = await self._servers.query(self._sql.positions_of_ids, [pack_uuids([request.events[0].id])], primary=True)
        if not rows:
            return None
        stored = await self._reader.events_of_append(rows[0][0])
        if len(stored) != len(request.events) or not is_repeat(request.events, stored):
            return None
        return make_receipt(self._servers.store_id, self._servers.epoch, stored, repeated=True)

    async def _append(self, batch: AppendBatch) -> list[Outcome]:
        if has_repeated_ids(batch.requests[0]):
            return [await self._refuse_repeated_ids(batch.requests[0])]
        if any(is_stale(request, self._servers.epoch) for request in batch.requests):
            return await self._refuse_stale(batch.requests)
        if after := batch.after_event_ids():
            batch = msgspec.structs.replace(batch, positions=await self._positions_of(after))
        for _ in range(MAX_APPEND_ATTEMPTS):
            try:
                result, epoch = await self._commit(batch)
            except EpochChanged:
                return await self.append_many(batch.requests)
            if result is not None:
                return await self._decode_outcomes(result, epoch)
            batch = msgspec.structs.replace(batch, positions=await self._positions_of(batch.after_event_ids(all=True)))
        raise StoreBusy(
            "Other writers kept storing the events that this append is built on; nothing was written.",
            "Try again.",
        )

    async def _refuse_stale(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """Refuse requests whose condition was read in another epoch and that repeat no append. Append the others."""
        done, others = dict[int, Outcome](), list[int]()
        for number, request in enumerate(requests):
            if is_stale(request, self._servers.epoch) and not await self._is_stored(request):
                done[number] = epoch_ended(request.unless[0], request.epoch or 0, self._servers.epoch)
            else:
                others.append(number)
        # A repeated append is not judged by its condition.
        remaining = [msgspec.structs.replace(requests[number], epoch=None) for number in others]
        done.update(zip(others, await self.append_many(remaining), strict=True))
        return [done[number] for number in range(len(done))]

    async def _is_stored(self, request: AppendRequest) -> bool:
        """Whether the request's key or one of its events is stored, so that it writes nothing."""
        if request.key is not None and await self._servers.query(self._sql.request, [request.key], primary=True):
            return True
        ids = pack_uuids([event.id for event in request.events])
        return bool(await self._servers.query(self._sql.positions_of_ids, [ids], primary=True))

    async def _commit(self, batch: AppendBatch) -> tuple[InlineResult | None, int]:
        """Judge and write the batch. Returns the result and the epoch it was written in.

        A result of None: nothing was written, because an event of this batch behind which a condition begins is stored
        already, and its position must be looked up first. Few calls have such an event. Raises EpochChanged: nothing
        was written, and the new epoch is known from now on.
        """
        return await self._servers.writer_pool.run_on(partial(self._commit_on, batch))

    async def _commit_on(self, batch: AppendBatch, connection: Connection) -> tuple[InlineResult | None, int]:
        try:
            if any(is_stale(request, connection.epoch) for request in batch.requests):
                raise EpochChanged
            if self._inline.projector is not None:
                result = await self._inline.append(connection, batch, self._append_statement)
            else:
                try:
                    rows = await connection.fetch(*self._append_statement(connection, batch), prepare=True)
                except pg.UniqueViolation:
                    # An event id is stored already. To look up ids first would slow every append down; to repeat the
                    # call slows only these.
                    statement = self._append_statement(connection, batch, AppendMode.CHECK_IDS)
                    rows = await connection.fetch(*statement, prepare=True)
                result = InlineResult(batch, range(len(batch.requests)), parse_reply(rows), {})
            self._servers.check_replicated(connection)
        except psycopg.Error as error:
            if error.sqlstate == "EF010":
                return None, connection.epoch
            raise self._servers.translate_write_error(error, connection) from None
        except EpochChanged:
            await self._servers.refresh_epoch(connection)
            raise
        return result, connection.epoch

    def _append_statement(
        self, connection: Connection, batch: AppendBatch, mode: AppendMode = AppendMode.OPTIMISTIC
    ) -> tuple[str, tuple[Any, ...]]:
        options = append_options(batch, self._reader.last_seen_position)
        arguments = append_arguments(batch) | options | self._inline.code_argument
        if connection.pooled:
            arguments["patience"] = self._servers.lock_timeout_ms()
        if mode is not AppendMode.OPTIMISTIC and AppendMode.CHECK_IDS in mode:  # the first test alone is fast
            arguments["careful"] = True
        names = tuple(arguments)
        if names not in self._statements:
            function = guard_epoch(call_sql(f"{self._schema}.append", arguments))
            self._statements[names] = (
                f"SELECT a.* FROM {self._schema}.store s CROSS JOIN LATERAL {function} a WHERE s.epoch = %b"
            )
        return self._statements[names], (*arguments.values(), connection.epoch)

    async def _positions_of(self, event_ids: list[bytes]) -> dict[bytes, int]:
        """The positions of those events that are stored. Mostly this engine has written them a moment ago."""
        recent = self._recent_positions
        found = {event_id: recent[event_id] for event_id in event_ids if event_id in recent}
        if unknown := [event_id for event_id in event_ids if event_id not in found]:
            rows = await self._servers.query(self._sql.positions_of_ids, [pack_uuids(unknown)], primary=True)
            found |= {bytes(event_id): position for position, event_id in rows}
        return found

    async def _refuse_repeated_ids(self, request: AppendRequest) -> Outcome:
        """The outcome of a request in which two events have the same id."""
        if request.key is not None and (known := await self._reader.receipt_of(request.key)) is not None:
            return msgspec.structs.replace(known, repeated=True)
        ids = pack_uuids([event.id for event in request.events])
        rows = await self._servers.query(self._sql.positions_of_ids, [ids], primary=True)
        positions = {event_id: position for position, event_id in rows}
        return id_reused(request.events, [positions.get(event.id) for event in request.events])

    async def _decode_outcomes(self, result: InlineResult, epoch: int) -> list[Outcome]:
        outcomes: dict[int, Outcome] = dict(result.refused)
        store_id, reply = self._servers.store_id, result.reply
        found = decode_outcomes(result.part, reply, store_id, epoch) if reply is not None else []
        for index, outcome in zip(result.indexes, found, strict=True):
            if outcome is not None:
                outcomes[index] = await self._first_receipt(outcome) if isinstance(outcome, int) else outcome
                self._note_outcome(outcomes[index])
        if None in found:
            refused = [number for number, outcome in enumerate(found) if outcome is None]
            await self._refuse_missing_code(result, refused, outcomes)
        return [outcomes[index] for index in range(len(outcomes))]

    async def _first_receipt(self, position: int) -> Outcome:
        """The receipt of the append that was repeated; an error if it cannot be read back.

        The error is returned as an outcome: raised, it would say of the other requests that they were not written.
        """
        try:
            return await self._reader.receipt_at(position, repeated=True)
        except StoreUnavailable as error:
            return receipt_unavailable(error, self._servers.primary.where)
        except CorruptEvent as error:
            return error

    async def _refuse_missing_code(
        self, result: InlineResult, numbers: list[int], outcomes: dict[int, Outcome]
    ) -> None:
        """Refuse requests whose event types need an inline projection that this process does not have.

        The other requests of the call are appended without them.
        """
        registrations, others = await self.registrations(), list[int]()
        for number in numbers:
            error = inline.missing_code_error(registrations, self._inline.projector, result.part, number)
            if error is not None:
                outcomes[result.indexes[number]] = error
            else:
                others.append(number)
        appended = await self.append_many([result.part.requests[number] for number in others])
        outcomes.update((result.indexes[number], outcome) for number, outcome in zip(others, appended, strict=True))

    def _note_outcome(self, outcome: Outcome) -> None:
        if isinstance(outcome, Receipt):
            recent = self._recent_positions  # taken before the epoch is compared: see Servers.enter_epoch
            if outcome.epoch != self._servers.epoch:
                return
            self._servers.note_event(outcome.last, outcome.epoch, outcome.ids[-1])
            self._reader.note_position(outcome.last)
            recent[outcome.ids[-1]] = outcome.last
            if len(recent) > MAX_RECENT_APPENDS:
                recent.pop(next(iter(recent)), None)
            if self._options.read_your_writes:
                self._reader.raise_floor(outcome.last)
        elif isinstance(outcome, AppendConflict):
            self._reader.raise_floor(outcome.fields["found"])

    # Inline projections

    def set_projector(self, projector: InlineProjector) -> None:
        """Fold events with this projector within every append from now on."""
        self._inline.projector = projector

    async def registrations(self) -> list[InlineRegistration]:
        """The inline projections that are registered in the store."""
        return inline.decode_registrations(await self._servers.query(self._inline.registrations_sql, primary=True))

    async def exclusive(self, work: Callable[[ExclusiveTransaction], Awaitable[None]]) -> None:
        """Run `work` in a transaction during which nothing is appended."""
        await self._servers.writer_pool.run_on(partial(self._run_exclusive_on, work))

    async def _run_exclusive_on(
        self, work: Callable[[ExclusiveTransaction], Awaitable[None]], connection: Connection
    ) -> None:
        try:
            await self._inline.run_exclusive(connection, work, self._sql.page, self._reader.decode_page)
            self._servers.check_replicated(connection)
        except psycopg.Error as error:
            raise self._servers.translate_write_error(error, connection) from None

    # Calls that need the rights of the store's owner

    async def run_as_owner(self, sql: str, values: Sequence[Any]) -> None:
        """Run one statement that writes to the log."""
        await self._servers.writer_pool.run_on(partial(self._run_as_owner_on, sql, values))

    async def _run_as_owner_on(self, sql: str, values: Sequence[Any], connection: Connection) -> None:
        try:
            await connection.fetch(sql, values)
            self._servers.check_replicated(connection)
        except psycopg.Error as error:
            raise self._servers.translate_write_error(error, connection) from None
