"""The store's schema: created, recognised, and checked when a connection is opened. Older layouts: layouts.py.

Knows: the files in sql/ and the layout they create. Does not know: events.
"""

from __future__ import annotations

import secrets
import shlex
from importlib import resources
from typing import Any

import msgspec
import psycopg
from psycopg import errors as pg

from eventfold.engines.postgres.connection import Connection
from eventfold.engines.postgres.errors import translate_error
from eventfold.engines.postgres.options import (
    listener_lock_arguments,
    notify_channel,
    quote_identifier,
    writer_lock_arguments,
)
from eventfold.errors import (
    NotAStore,
    StoreNotFound,
    StoreReadOnly,
    StoreUnavailable,
    StoreUnsafe,
    StoreVersionMismatch,
)

LAYOUT = 3
MIN_SERVER_VERSION = 130000
TABLES = ("event", "tag", "request", "sealed", "snapshot", "inlined", "staged", "store")
# Functions and triggers: every upgrade creates them again.
FUNCTION_FILES = ("guard.sql", "attach.sql", "append.sql", "joined.sql", "adopt.sql")


class AttachedStore(msgspec.Struct, frozen=True):
    """The store that a connection leads to."""

    store_id: str
    epoch: int
    unplaced: int  # the last event whose checksum does not include its position


def load_sql(name: str, schema: str) -> str:
    """One of the SQL files, for the store in this schema."""
    text = resources.files(__package__).joinpath("sql", name).read_text("utf-8")
    channel = "'" + notify_channel(schema).replace("'", "''") + "'"
    for word, meaning in (
        ("{schema}", quote_identifier(schema)),
        ("{lock}", writer_lock_arguments(schema)),
        ("{listening}", listener_lock_arguments(schema)),
        ("{channel}", channel),
        ("{layout}", str(LAYOUT)),
    ):
        text = text.replace(word, meaning)
    return text


def creation_sql(schema: str) -> str:
    """The SQL that creates a store in its schema, which must exist."""
    return "\n".join(
        (
            *(load_sql(name, schema) for name in ("tables.sql", *FUNCTION_FILES)),
            revoke_public_sql(schema),
            f"INSERT INTO {quote_identifier(schema)}.store (id, layout) VALUES ('{secrets.token_hex(16)}', {LAYOUT});",
        )
    )


def revoke_public_sql(schema: str) -> str:
    """The SQL that leaves the store to its owner and to roles with grants (see roles.py)."""
    quoted = quote_identifier(schema)
    return f"REVOKE ALL ON SCHEMA {quoted} FROM PUBLIC;\nREVOKE ALL ON ALL FUNCTIONS IN SCHEMA {quoted} FROM PUBLIC;"


async def attach(connection: Connection, schema: str, where: str) -> AttachedStore | None:
    """The store in this schema, or None. Raises NotAStore, StoreVersionMismatch, StoreUnavailable."""
    await _check_server_version(connection, where)
    found = await _fetch_store(connection, schema, where)
    if found is None and (others := await _foreign_tables(connection, schema, where)):
        found = await _fetch_store(connection, schema, where)  # another process may have created the store meanwhile
        if found is None:
            raise NotAStore(
                f"The schema {schema!r} at {where} has tables that are not a store's ({', '.join(others[:5])}).",
                "Choose another schema for the store (schema=).",
                schema=schema,
                tables=others[:20],
            )
    if found is None:
        return None
    store_id, epoch, layout, *more = found
    if layout is None:
        raise NotAStore(
            f"The schema {schema!r} at {where} has a store's tables, but the row that describes the store is missing.",
            "Restore it whole from a backup, or drop the schema and create the store again.",
            schema=schema,
        )
    check_layout(layout, schema, where)
    return AttachedStore(store_id, epoch, *more)


async def _check_server_version(connection: Connection, where: str) -> None:
    """Raises StoreUnavailable for a server that is too old."""
    if connection.server_version < MIN_SERVER_VERSION:
        raise StoreUnavailable(
            f"The server at {where} is PostgreSQL {connection.server_version // 10000}, which is too old.",
            f"Use PostgreSQL {MIN_SERVER_VERSION // 10000} or newer.",
            server=where,
            version=connection.server_version,
        )


def check_layout(layout: int, schema: str, where: str) -> None:
    """Raises StoreVersionMismatch unless the layout is this version's."""
    if layout > LAYOUT:
        raise StoreVersionMismatch(
            f"The store in schema {schema!r} at {where} has layout {layout}; this version knows {LAYOUT}.",
            "Use the newer eventfold that wrote it.",
            layout=layout,
            known=LAYOUT,
        )
    if layout < LAYOUT:
        raise StoreVersionMismatch(
            f"The store in schema {schema!r} at {where} has layout {layout}; this version writes {LAYOUT}.",
            "Stop the processes that use it, back it up (pg_dump), then upgrade it once, as its owner: "
            f"eventfold upgrade {shlex.quote(f'postgresql://{where}?schema={schema}')} --no-backup.",
            layout=layout,
            known=LAYOUT,
        )


async def _fetch_store(connection: Connection, schema: str, where: str) -> tuple[Any, ...] | None:
    """The columns that `attach` returns: id, epoch, layout, and those that a layout adds; None: no such function.

    A new epoch that it begins is not waited for at a synchronous standby: a server that was promoted may have none yet,
    and is read meanwhile. An append that is acknowledged in the epoch comes after it in the WAL.
    """
    try:
        return (
            await connection.fetch(
                f"SELECT a.* FROM {quote_identifier(schema)}.attach() a,"  # noqa: S608 (quoted)
                " set_config('synchronous_commit', 'local', true)"
            )
        )[0]
    except (pg.UndefinedFunction, pg.InvalidSchemaName, pg.UndefinedTable, pg.UndefinedColumn):
        return None
    except psycopg.Error as error:
        raise translate_error(error, where) from None


async def _foreign_tables(connection: Connection, schema: str, where: str) -> list[str]:
    """The tables in this schema, if one of them has a name that a store's table would have."""
    try:
        rows = await connection.fetch(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = %b AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 1",
            (schema,),
        )
    except psycopg.Error as error:
        raise translate_error(error, where) from None
    found = [row[0] for row in rows]
    return found if any(name in TABLES for name in found) else []


async def create(connection: Connection, schema: str, where: str) -> None:
    """Create the store in one transaction, unless another process has just created it."""
    quoted = quote_identifier(schema)
    try:
        await connection.fetch("BEGIN ISOLATION LEVEL READ COMMITTED")
        try:
            await connection.fetch(f"SELECT pg_advisory_xact_lock({writer_lock_arguments(schema)})")
            if (await connection.fetch("SELECT to_regclass(%b) IS NULL", (f"{quoted}.store",)))[0][0]:
                if not await connection.fetch("SELECT 1 FROM pg_namespace WHERE nspname = %b", (schema,)):
                    await connection.execute_script(f"CREATE SCHEMA {quoted}")
                await connection.execute_script(creation_sql(schema))
                # The first call: the epoch begins on this cluster and timeline.
                await connection.fetch(f"SELECT FROM {quoted}.attach()")
            await connection.fetch("COMMIT")
        except psycopg.Error:
            if not connection.closed:
                await connection.fetch("ROLLBACK")
            raise
    except pg.InsufficientPrivilege:
        raise StoreUnavailable(
            f"This user may not create the schema {schema!r} at {where}.",
            "Have its owner create the store once: open it as a user with CREATE on the database.",
            schema=schema,
            server=where,
        ) from None
    except pg.ReadOnlySqlTransaction:
        raise StoreReadOnly(
            f"There is no store in schema {schema!r} at {where}, and this server takes no writes.",
            "Create the store on the primary.",
            schema=schema,
        ) from None
    except psycopg.Error as error:
        raise translate_error(error, where) from None


def store_not_found(schema: str, where: str) -> StoreNotFound:
    """The error for a store that does not exist and may not be created."""
    return StoreNotFound(
        f"There is no store in schema {schema!r} at {where}.",
        "Create it by opening it with create=True, or correct the schema= option.",
        schema=schema,
        server=where,
        creatable=True,
    )


def check_durability(fsync: str, full_page_writes: str, encoding: str, where: str) -> None:
    """Raises StoreUnsafe for a server that may lose acknowledged events, or cannot store every text."""
    off = [name for name, value in (("fsync", fsync), ("full_page_writes", full_page_writes)) if value == "off"]
    if off:
        raise StoreUnsafe(
            f"The server at {where} runs with {'=off and '.join(off)}=off, so it can lose acknowledged events.",
            f"Set {'=on and '.join(off)}=on there; for tests only, open the store with unsafe=True.",
            settings=off,
        )
    if encoding != "UTF8":
        raise StoreUnsafe(
            f"The database at {where} has the encoding {encoding}, which cannot hold every tag.",
            "Create a database with ENCODING 'UTF8' and use that.",
            encoding=encoding,
        )


def check_isolation(level: str, where: str) -> None:
    """Raises StoreUnsafe for another isolation level than READ COMMITTED behind a pooler, where none can be set."""
    if level != "read committed":
        raise StoreUnsafe(
            f"Behind the pooler at {where} transactions are {level}, in which a condition cannot be judged.",
            "Set default_transaction_isolation to 'read committed' for the role or the database.",
            isolation=level,
        )
