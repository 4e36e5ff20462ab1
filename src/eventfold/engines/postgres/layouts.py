"""Upgrades a store of an older layout to the current one, a step from each layout to the next, in one transaction.

No step rewrites an event: rows keep their bytes and checksums, which is verified before the commit. An upgrade is
refused while the store is in use. Processes of an older version that have no connection meanwhile cannot write
afterwards: the functions they call are dropped, and the new ones require the caller's layout. Knows: what each layout
changed, the order of an upgrade. Does not know: how a store is opened.
"""

from __future__ import annotations

import re
import shlex
from importlib import resources

import psycopg
from psycopg import errors as pg

from eventfold.engines.postgres.connection import Connection, ResultRows
from eventfold.engines.postgres.errors import translate_error
from eventfold.engines.postgres.options import (
    listener_lock_arguments,
    quote_identifier,
    session_lock_arguments,
    writer_lock_arguments,
)
from eventfold.engines.postgres.schema import (
    FUNCTION_FILES,
    LAYOUT,
    check_layout,
    load_sql,
    revoke_public_sql,
    store_not_found,
)
from eventfold.errors import NotSupported, StoreBusy, StoreDamaged

# From layout n to n + 1: the SQL file that changes the tables.
STEPS: dict[int, str] = {1: "to-layout-2.sql", 2: "to-layout-3.sql"}

# Sessions that use the store. Those of layout 3 share the session lock. Sessions of layouts 1 and 2 have no lock while
# they are idle: their last statement names the schema, if the caller may see it. Followers share the listener lock.
SESSIONS_SQL = """SELECT a.pid, a.application_name, a.usename FROM pg_stat_activity a
    WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND (
        (a.backend_type = 'client backend' AND strpos(a.query, %b) > 0)
        OR a.pid IN (
            SELECT l.pid FROM pg_locks l WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted
                AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
                AND (l.classid::bigint, l.objid::bigint) IN (
                    SELECT namespace::bigint & 4294967295, number::bigint & 4294967295
                    FROM (VALUES ({session}), ({listening})) k(namespace, number))))
    ORDER BY a.pid"""
MAX_SESSIONS_NAMED = 5  # in an error

# What an upgrade may not change, by table: a row as text, without the columns that a layout adds.
DIGESTED = {
    "event": "t::text",
    "tag": "t::text",
    "request": "concat_ws(' ', t.key, t.first, t.size)",
    "sealed": "t::text",
}

# Functions are dropped and created again, since their arguments may change. Grants on them are kept.
GRANTS_SQL = (
    "SELECT DISTINCT p.proname, a.grantee::regrole::text FROM pg_proc p, aclexplode(p.proacl) a"
    " WHERE p.pronamespace = %b::regnamespace AND a.privilege_type = 'EXECUTE' AND a.grantee NOT IN (0, p.proowner)"
)
SUCCESSOR_OF = {"staged_events": "stage"}  # a function of a later layout: the older function whose grants it gets
SIGNATURES_SQL = "SELECT p.proname, p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = %b::regnamespace"


async def upgrade(connection: Connection, schema: str, where: str, has_backup: bool, lock_timeout_ms: int) -> int:
    """Upgrade the store in one transaction that blocks appends, and return the layout it had.

    `has_backup`: whether the caller says that a backup exists. `lock_timeout_ms`: how long to wait for writers, and for
    a backup that reads the tables. Raises StoreNotFound, StoreVersionMismatch, StoreBusy, NotSupported,
    StoreUnavailable: the store is then unchanged, and the upgrade can be run again.
    """
    quoted = quote_identifier(schema)
    try:
        await connection.fetch("BEGIN ISOLATION LEVEL READ COMMITTED")
        try:
            await connection.execute_script(f"SET LOCAL lock_timeout = {lock_timeout_ms}")
            await connection.fetch(f"SELECT pg_advisory_xact_lock({writer_lock_arguments(schema)})")
            old_layout: int = (await connection.fetch(f"SELECT layout FROM {quoted}.store"))[0][0]  # noqa: S608 (quoted)
            if old_layout > LAYOUT or old_layout not in {*STEPS, LAYOUT}:
                check_layout(old_layout, schema, where)
            if old_layout < LAYOUT:
                if not has_backup:
                    raise _backup_missing(old_layout, schema, where)
                await _refuse_while_in_use(connection, schema, where)
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


def _backup_missing(layout: int, schema: str, where: str) -> NotSupported:
    return NotSupported(
        f"The store in schema {schema!r} at {where} has layout {layout}, and an upgrade makes no copy of a PostgreSQL "
        "store.",
        f"Make a backup (pg_dump --schema={shlex.quote(quote_identifier(schema))} …), then run the upgrade with "
        "--no-backup.",
        engine="postgres",
        layout=layout,
    )


async def _refuse_while_in_use(connection: Connection, schema: str, where: str) -> None:
    """Raise StoreBusy if another session uses the store. Sessions that begin later wait for the end of the upgrade."""
    session = session_lock_arguments(schema)
    is_free = (await connection.fetch(f"SELECT pg_try_advisory_xact_lock({session})"))[0][0]
    sql = SESSIONS_SQL.format(session=session, listening=listener_lock_arguments(schema))
    sessions = await connection.fetch(sql, (f"{quote_identifier(schema)}.",))
    if is_free and not sessions:
        return
    named = [f"{pid} ({program or user})" for pid, program, user in sessions[:MAX_SESSIONS_NAMED]]
    more = len(sessions) - len(named)
    listed = ", ".join(named) + (f" and {more} more" if more else "")
    raise StoreBusy(
        f"The store in schema {schema!r} at {where} is in use by other sessions (backend {listed}).",
        "Nothing was changed: stop every process that uses it, then run the upgrade again.",
        schema=schema,
        server=where,
        sessions=[row[0] for row in sessions],
    )


async def _run_steps(connection: Connection, schema: str, old_layout: int) -> None:
    quoted = quote_identifier(schema)
    before = await _unchangeable(connection, quoted)
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
    if await _unchangeable(connection, quoted) != before:
        raise StoreDamaged(
            f"The upgrade of the schema {schema!r} changed the log or the store's id, and was rolled back.",
            "Keep a copy of the database as it is, and find out what else changed it.",
            schema=schema,
        )


async def _unchangeable(connection: Connection, quoted: str) -> ResultRows:
    """What no step may change: the store's id and epoch; the number and a hash of the rows of each table of the log."""
    found = await connection.fetch(f"SELECT id, epoch FROM {quoted}.store")  # noqa: S608 (quoted)
    for table, text in DIGESTED.items():
        found += await connection.fetch(
            f"SELECT count(*), sum(hashtextextended({text}, 0)::numeric) FROM {quoted}.{table} t"  # noqa: S608 (quoted)
        )
    return found


async def _drop_functions(connection: Connection, schema: str) -> None:
    """Drop every function that a version of eventfold has created here, and the triggers that call it."""
    names = {"refuse_unsealed"}
    for file in FUNCTION_FILES:
        text = resources.files(__package__).joinpath("sql", file).read_text("utf-8")
        names |= set(re.findall(r"FUNCTION \{schema\}\.(\w+)\(", text))
    for name, signature in await connection.fetch(SIGNATURES_SQL, (quote_identifier(schema),)):
        if name in names:
            await connection.execute_script(f"DROP FUNCTION {signature} CASCADE")
