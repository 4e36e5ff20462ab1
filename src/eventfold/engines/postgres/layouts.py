"""Upgrades a store of an older layout to the current one, a step from each layout to the next, in one transaction.

No step rewrites an event: rows keep their bytes and checksums. Processes of an older version cannot write afterwards:
the functions they call are dropped, and the new ones require the caller's layout. Knows: what each layout changed, the
order of an upgrade. Does not know: how a store is opened.
"""

from __future__ import annotations

import re
from importlib import resources

import psycopg
from psycopg import errors as pg

from eventfold.engines.postgres.connection import Connection
from eventfold.engines.postgres.errors import translate_error
from eventfold.engines.postgres.options import quote_identifier, writer_lock_arguments
from eventfold.engines.postgres.schema import (
    FUNCTION_FILES,
    LAYOUT,
    check_layout,
    load_sql,
    revoke_public_sql,
    store_not_found,
)
from eventfold.errors import StoreDamaged

# From layout n to n + 1: the SQL file that changes the tables.
STEPS: dict[int, str] = {1: "to-layout-2.sql"}

# Functions are dropped and created again, since their arguments may change. Grants on them are kept.
GRANTS_SQL = (
    "SELECT DISTINCT p.proname, a.grantee::regrole::text FROM pg_proc p, aclexplode(p.proacl) a"
    " WHERE p.pronamespace = %b::regnamespace AND a.privilege_type = 'EXECUTE' AND a.grantee NOT IN (0, p.proowner)"
)
SUCCESSOR_OF = {"staged_events": "stage"}  # a function of a later layout: the older function whose grants it gets
SIGNATURES_SQL = "SELECT p.proname, p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = %b::regnamespace"


async def upgrade(connection: Connection, schema: str, where: str) -> int:
    """Upgrade the store in one transaction that blocks appends, and return the layout it had.

    Raises StoreNotFound, StoreVersionMismatch, StoreUnavailable: the store is then unchanged.
    """
    quoted = quote_identifier(schema)
    try:
        await connection.fetch("BEGIN ISOLATION LEVEL READ COMMITTED")
        try:
            await connection.fetch(f"SELECT pg_advisory_xact_lock({writer_lock_arguments(schema)})")
            old_layout: int = (await connection.fetch(f"SELECT layout FROM {quoted}.store"))[0][0]  # noqa: S608 (quoted)
            if old_layout > LAYOUT or old_layout not in {*STEPS, LAYOUT}:
                check_layout(old_layout, schema, where)
            if old_layout < LAYOUT:
                await _run_steps(connection, schema, old_layout)
            await connection.fetch("COMMIT")
        except BaseException:
            if not connection.closed:
                await connection.fetch("ROLLBACK")
            raise
    except (pg.UndefinedTable, pg.InvalidSchemaName):
        raise store_not_found(schema, where) from None
    except psycopg.Error as error:
        raise translate_error(error, where) from None
    return old_layout


async def _run_steps(connection: Connection, schema: str, old_layout: int) -> None:
    quoted = quote_identifier(schema)
    before = await _identity_and_head(connection, quoted)
    granted = await connection.fetch(GRANTS_SQL, (quoted,))
    await _drop_functions(connection, schema)
    for layout in range(old_layout, LAYOUT):
        await connection.execute_script(load_sql(STEPS[layout], schema))
    for name in FUNCTION_FILES:
        await connection.execute_script(load_sql(name, schema))
    await connection.execute_script(revoke_public_sql(schema))
    signatures = await connection.fetch(SIGNATURES_SQL, (quoted,))
    for name, role in granted:
        for new_name, signature in signatures:
            if name in (new_name, SUCCESSOR_OF.get(new_name)):
                await connection.execute_script(f"GRANT EXECUTE ON FUNCTION {signature} TO {role}")
    await connection.fetch(f"UPDATE {quoted}.store SET layout = {LAYOUT}")  # noqa: S608 (quoted, and a number)
    after = await _identity_and_head(connection, quoted)
    if (after[0], after[1:]) != (LAYOUT, before[1:]):
        raise StoreDamaged(
            f"The upgrade of the schema {schema!r} changed the store's id or its last event, and was rolled back.",
            "Keep a copy of the database as it is, and find out what else changed it.",
            schema=schema,
        )


async def _identity_and_head(connection: Connection, quoted: str) -> tuple[object, ...]:
    """The layout; then what no step may change: the store's id, its epoch, the last event."""
    rows = await connection.fetch(
        f"SELECT s.layout, s.id, s.epoch, e.position, e.id FROM {quoted}.store s"  # noqa: S608 (quoted)
        f" LEFT JOIN (SELECT position, id FROM {quoted}.event ORDER BY position DESC LIMIT 1) e ON true"
    )
    return rows[0]


async def _drop_functions(connection: Connection, schema: str) -> None:
    """Drop every function that a version of eventfold has created here, and the triggers that call it."""
    names = {"refuse_unsealed"}
    for file in FUNCTION_FILES:
        text = resources.files(__package__).joinpath("sql", file).read_text("utf-8")
        names |= set(re.findall(r"FUNCTION \{schema\}\.(\w+)\(", text))
    for name, signature in await connection.fetch(SIGNATURES_SQL, (quote_identifier(schema),)):
        if name in names:
            await connection.execute_script(f"DROP FUNCTION {signature} CASCADE")
