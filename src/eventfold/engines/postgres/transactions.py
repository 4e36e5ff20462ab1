"""Room: appends that commit with their user's own rows, on the user's own connection.

Knows: how to find psycopg's connection inside SQLAlchemy's and Django's, without importing them; what a transaction
must be like to be joined. Does not know: how positions are assigned at COMMIT (sql/joined.sql).
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import isawaitable
from typing import Any, cast

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from eventfold.core.envelope import Staged, StoredEvent, digest, now_micros
from eventfold.engines.postgres.append import (
    EpochChanged,
    append_arguments,
    call_sql,
    has_repeated_ids,
    numbered_clauses,
    split_batches,
)
from eventfold.engines.postgres.arrays import ArrayDumpers, pack_texts, pack_uuids
from eventfold.engines.postgres.errors import translate_error
from eventfold.errors import InvalidInput, NotSupported, StoreUnavailable
from eventfold.ports.engine import AppendRequest
from eventfold.ports.refusals import id_reused

UserConnection = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]


async def stage(
    connection: Any, requests: Sequence[AppendRequest], schema: str, store: str, known: int, where: str
) -> list[Staged]:
    """Stage the requests in the connection's transaction. See PostgresEngine.append_joined.

    Raises OtherEpoch where a condition was read in epoch `known` and the connection leads to a store in another one.
    """
    theirs = await unwrap_connection(connection)
    check_joinable(theirs)
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
    epoch = after = 0
    for batch in split_batches(requests) if requests else ():
        words = [repr(clause.query) for _, clause in numbered_clauses(batch)]
        given = {"store": store, **append_arguments(batch)} | ({"words": pack_texts(words)} if words else {})
        seen = [identity for request in batch.requests for identity in request.seen]
        given |= {"seen": pack_uuids(seen)} if seen else {}
        read = next((request for request in batch.requests if request.unless and request.epoch is not None), None)
        head = f"(SELECT coalesce(max(position), 0) FROM {schema}.event)"  # noqa: S608
        statement, values = f"SELECT epoch, {head} FROM {call_sql(f'{schema}.stage', given)}", list(given.values())
        if read is not None:  # an argument that depends on the store's row keeps the planner from staging first
            function = call_sql(f"{schema}.stage", given).replace(
                "%b::uuid[]", "CASE WHEN s.one THEN %b::uuid[] END", 1
            )
            statement = (
                f"SELECT a.epoch, {head} FROM {schema}.store s CROSS JOIN LATERAL {function} a WHERE s.epoch = %b"  # noqa: S608
            )
            values.append(known)
        try:
            rows = await _fetch(theirs, statement, values)
            epoch, after = rows[0] if rows else (0, 0)
        except (psycopg.errors.UndefinedFunction, psycopg.errors.InvalidSchemaName):
            raise _store_not_there(where) from None
        except psycopg.Error as error:
            raise translate_error(error, where) from None
        if read is not None and not epoch:
            raise EpochChanged
    return [
        Staged(
            store=store,
            epoch=epoch,
            ids=tuple([event.id for event in request.events]),
            digest=digest(request.events),
            after=after,
        )
        for request in requests
    ]


async def read_staged(
    connection: Any, schema: str, types: Sequence[str] | None, key: str | None, where: str
) -> list[tuple[StoredEvent, str | None]]:
    """What the connection's transaction has staged, in order, each with its request key. See append_joined.

    Of the appends that have one of these types (None: any), and of the one under this key. Where there is no position
    yet it is 0.
    """
    theirs = await unwrap_connection(connection)
    check_joinable(theirs)
    statement = f"SELECT * FROM {schema}.staged_events(%b::text[], %b::text)"  # noqa: S608 (quoted)
    try:
        rows = await _fetch(theirs, statement, [None if types is None else pack_texts(types), key])
    except (psycopg.errors.UndefinedFunction, psycopg.errors.InvalidSchemaName):
        raise _store_not_there(where) from None
    except psycopg.Error as error:
        raise translate_error(error, where) from None
    now = now_micros()
    return [
        (
            StoredEvent(place, bytes(id), type, version, bytes(data), tags, now, occurred, more, at, of, codec, keyid),
            asked,
        )
        for place, id, type, version, data, tags, occurred, more, at, of, codec, keyid, asked in rows
    ]


def _store_not_there(where: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"The connection leads to a database without this store ({where}).",
        "Pass a connection to the database that holds the store.",
        server=where,
    )


async def _fetch(theirs: UserConnection, statement: str, given: Sequence[Any]) -> list[tuple[Any, ...]]:
    # A cursor of our own making: theirs may have another row factory, other adapters, or bind on the client.
    if isinstance(theirs, psycopg.AsyncConnection):
        cursor = psycopg.AsyncCursor(theirs, row_factory=tuple_row)
        ArrayDumpers.register(cursor)
        return await (await cursor.execute(statement.encode(), given, prepare=False, binary=True)).fetchall()
    plain = psycopg.Cursor(theirs, row_factory=tuple_row)
    ArrayDumpers.register(plain)
    return plain.execute(statement.encode(), given, prepare=False, binary=True).fetchall()


async def unwrap_connection(connection: Any) -> UserConnection:
    """psycopg's connection inside what the user has. Raises InvalidInput where there is none.

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


def check_joinable(theirs: UserConnection) -> None:
    """Raises InvalidInput on a connection whose transaction would not hold the append and the user's rows together."""
    status = theirs.pgconn.transaction_status
    if theirs.closed:
        what, now = "The connection is closed.", "Pass an open one."
    elif status == TransactionStatus.INERROR:
        what, now = "The connection's transaction has failed already.", "Roll it back and begin again."
    elif status == TransactionStatus.IDLE and theirs.autocommit:
        what = "The connection is in autocommit and in no transaction, so that there is nothing to join."
        now = "Begin one first: `with connection.transaction():` (Django: `with transaction.atomic():`)."
    elif theirs.info.encoding != "utf-8":
        what, now = f"The connection's client encoding is {theirs.info.encoding}.", "Set client_encoding to UTF8."
    else:
        return
    raise InvalidInput(what, now)
