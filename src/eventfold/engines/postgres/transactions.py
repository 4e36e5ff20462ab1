"""Appends within a transaction of the user's, on the user's connection: they commit or roll back with its other rows.

Knows: how to find psycopg's connection in SQLAlchemy's and Django's objects without importing them; what a transaction
must be like. Does not know: how positions are assigned at COMMIT (sql/joined.sql).
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import isawaitable
from typing import Any, cast

import msgspec
import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from eventfold.core.envelope import Receipt, Staged, StoredEvent, digest, now_micros
from eventfold.engines.postgres.append import EpochChanged, append_arguments, call_sql, guard_epoch
from eventfold.engines.postgres.arrays import ArrayDumpers, pack_texts, pack_uuids
from eventfold.engines.postgres.batch import AppendBatch, has_repeated_ids, is_stale, numbered_clauses, split_batches
from eventfold.engines.postgres.errors import translate_error
from eventfold.engines.postgres.options import quote_identifier
from eventfold.engines.postgres.reader import PostgresReader
from eventfold.engines.postgres.servers import Servers
from eventfold.engines.postgres.statements import ReadStatements
from eventfold.errors import AppendUnconfirmed, InvalidInput, NotSupported, StoreUnavailable
from eventfold.ports.messages import AppendRequest
from eventfold.ports.refusals import epoch_ended, id_reused

UserConnection = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]


class TransactionalAppends:
    """Stages appends in users' transactions, and finds their receipts after the COMMIT. See PostgresEngine."""

    def __init__(self, servers: Servers, reader: PostgresReader) -> None:
        self._servers, self._reader = servers, reader
        self._schema = quote_identifier(servers.options.schema)
        self._sql = ReadStatements(self._schema)

    async def stage(self, connection: Any, requests: Sequence[AppendRequest]) -> list[Staged]:
        """Stage the requests in the connection's transaction."""
        servers = self._servers
        for request in requests:
            if is_stale(request, servers.epoch):
                raise epoch_ended(request.unless[0], request.epoch or 0, servers.epoch)
        epoch = servers.epoch
        requests = await self._reader.expand_conditions(requests)
        try:
            return await self._stage(connection, requests, epoch)
        except EpochChanged:
            # The query makes the new epoch known to this engine.
            await servers.query(self._sql.store_epoch, primary=True, epoch=True)
            raise epoch_ended(next(r.unless[0] for r in requests if r.unless), epoch, servers.epoch) from None

    async def _stage(self, connection: Any, requests: Sequence[AppendRequest], read_epoch: int) -> list[Staged]:
        """Raises EpochChanged if a condition was read in `read_epoch` and the connection's store is in another."""
        user_connection = await unwrap_connection(connection)
        check_joinable(user_connection)
        for request in requests:
            if has_repeated_ids(request):
                raise id_reused(request.events, [None] * len(request.events))
            if any(clause.after_event is not None for clause in request.unless):
                raise NotSupported(
                    "A joined append gets its positions at the COMMIT, so its condition cannot begin behind an event.",
                    "Give the position up to which the log was read (after), or append outside the transaction.",
                    engine="postgres",
                    capability="joined appends",
                )
        store_id = self._servers.store_id
        epoch = after = 0
        for batch in split_batches(requests) if requests else ():
            statement, values, is_guarded = self._stage_statement(batch, store_id, read_epoch)
            rows = await self._fetch(user_connection, statement, values)
            epoch, after = rows[0] if rows else (0, 0)
            if is_guarded and not epoch:
                raise EpochChanged
        return [
            Staged(
                store=store_id,
                epoch=epoch,
                ids=tuple([event.id for event in request.events]),
                digest=digest(request.events),
                after=after,
            )
            for request in requests
        ]

    def _stage_statement(self, batch: AppendBatch, store_id: str, read_epoch: int) -> tuple[str, list[Any], bool]:
        """The call that stages a batch, its values, and whether it does so in `read_epoch` only."""
        queries = [repr(clause.query) for _, clause in numbered_clauses(batch)]
        arguments = {"store": store_id, **append_arguments(batch)} | ({"words": pack_texts(queries)} if queries else {})
        seen = [event_id for request in batch.requests for event_id in request.seen]
        arguments |= {"seen": pack_uuids(seen)} if seen else {}
        head = f"(SELECT coalesce(max(position), 0) FROM {self._schema}.event)"  # noqa: S608
        function, values = call_sql(f"{self._schema}.stage", arguments), list(arguments.values())
        if not any(request.unless and request.epoch is not None for request in batch.requests):
            return f"SELECT epoch, {head} FROM {function}", values, False
        statement = (
            f"SELECT a.epoch, {head} FROM {self._schema}.store s"  # noqa: S608
            f" CROSS JOIN LATERAL {guard_epoch(function)} a WHERE s.epoch = %b"
        )
        return statement, [*values, read_epoch], True

    async def staged(
        self, connection: Any, types: Sequence[str] | None = None, key: str | None = None
    ) -> list[tuple[StoredEvent, str | None]]:
        """The events that are staged in the connection's transaction, in order, each with its request key."""
        user_connection = await unwrap_connection(connection)
        check_joinable(user_connection)
        statement = f"SELECT * FROM {self._schema}.staged_events(%b::text[], %b::text)"  # noqa: S608 (quoted)
        rows = await self._fetch(user_connection, statement, [None if types is None else pack_texts(types), key])
        now = now_micros()
        return [
            (StoredEvent(position, bytes(id), type, version, bytes(data), tags, now, *rest), request_key)
            for position, id, type, version, data, tags, *rest, request_key in rows
        ]

    async def _fetch(self, connection: UserConnection, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        where = self._servers.primary.where
        try:
            return await _fetch(connection, statement, values)
        except (psycopg.errors.UndefinedFunction, psycopg.errors.InvalidSchemaName):
            raise StoreUnavailable(
                f"The connection leads to a database without this store ({where}).",
                "Pass a connection to the database that holds the store.",
                server=where,
            ) from None
        except psycopg.Error as error:
            raise translate_error(error, where) from None

    async def confirm(self, staged: Staged) -> Receipt | None:
        """The receipt of a staged append after the COMMIT; None if it was not committed."""
        try:
            ids = pack_uuids(staged.ids[:1])
            rows = await self._servers.query(self._sql.positions_of_ids, [ids], primary=True)
            found = await self._reader.receipt_at(rows[0][0], repeated=False) if rows else None
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


async def _fetch(connection: UserConnection, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    # With a cursor of the engine's own: the user's may have another row factory, other adapters, or bind on the client.
    if isinstance(connection, psycopg.AsyncConnection):
        cursor = psycopg.AsyncCursor(connection, row_factory=tuple_row)
        ArrayDumpers.register(cursor)
        return await (await cursor.execute(statement.encode(), values, prepare=False, binary=True)).fetchall()
    sync_cursor = psycopg.Cursor(connection, row_factory=tuple_row)
    ArrayDumpers.register(sync_cursor)
    return sync_cursor.execute(statement.encode(), values, prepare=False, binary=True).fetchall()


async def unwrap_connection(connection: Any) -> UserConnection:
    """psycopg's connection within the object the user has. Raises InvalidInput if there is none.

    SQLAlchemy: Session, AsyncSession, Connection, AsyncConnection. Django: a connection (`connections["default"]`).
    """
    found: Any = connection
    for _ in range(8):
        if isinstance(found, (psycopg.Connection, psycopg.AsyncConnection)):
            return cast(UserConnection, found)
        if hasattr(found, "ensure_connection"):  # Django opens lazily
            found.ensure_connection()
            found = found.connection
        elif hasattr(found, "get_bind") and hasattr(found, "connection"):  # SQLAlchemy's sessions
            found = found.connection()
            found = await found if isawaitable(found) else found
        elif hasattr(found, "sync_connection"):  # SQLAlchemy's AsyncConnection
            found = found.sync_connection
        elif hasattr(found, "driver_connection"):  # SQLAlchemy's pooled connection
            found = found.driver_connection
        elif hasattr(found, "connection"):  # SQLAlchemy's Connection
            found = found.connection
        else:
            break
    kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
    inner = f"{type(found).__module__}.{type(found).__qualname__}"
    raise InvalidInput(
        f"An append cannot join the transaction of a {kind}{'' if inner == kind else f' (over {inner})'}.",
        "Pass a connection whose driver is psycopg 3: psycopg's own, SQLAlchemy's (postgresql+psycopg://) or Django's.",
        kind=kind,
    )


def check_joinable(connection: UserConnection) -> None:
    """Raises InvalidInput unless the append and the user's rows would be in one transaction."""
    status = connection.pgconn.transaction_status
    if connection.closed:
        what, remedy = "The connection is closed.", "Pass an open one."
    elif status == TransactionStatus.INERROR:
        what, remedy = "The connection's transaction has failed.", "Roll it back and begin again."
    elif status == TransactionStatus.IDLE and connection.autocommit:
        what = "The connection is in autocommit and in no transaction, so that there is nothing to join."
        remedy = "Begin one first: `with connection.transaction():` (Django: `with transaction.atomic():`)."
    elif connection.info.encoding != "utf-8":
        what, remedy = (
            f"The connection's client encoding is {connection.info.encoding}.",
            "Set client_encoding to UTF8.",
        )
    else:
        return
    raise InvalidInput(what, remedy)
