"""Older layouts of a store's schema, brought to today's: one step from each layout to the next, in one transaction.

No step rewrites an event: rows that were written keep their bytes and their checksums. Processes of an older layout
cannot write afterwards: the functions they call are gone, and the new ones ask for the layout the caller knows.
Knows: what each layout changed, and the order of an upgrade. Does not know: how a store is opened.
"""

from __future__ import annotations

import re
from importlib import resources

import psycopg
from psycopg import errors as pg

from eventfold.engines.postgres.connection import Link
from eventfold.engines.postgres.errors import translated
from eventfold.engines.postgres.options import lock_of, quoted
from eventfold.engines.postgres.schema import FUNCTIONS, LAYOUT, not_found, private, refuse_other_layout, sql
from eventfold.errors import StoreDamaged

# Layout n to n + 1: SQL for the tables, in a file of that name.
STEPS: dict[int, str] = {1: "to-layout-2.sql"}

# Functions are dropped and made again, for their arguments may be others: who was granted one keeps it.
GRANTED = (
    "SELECT DISTINCT p.proname, a.grantee::regrole::text FROM pg_proc p, aclexplode(p.proacl) a"
    " WHERE p.pronamespace = %b::regnamespace AND a.privilege_type = 'EXECUTE' AND a.grantee NOT IN (0, p.proowner)"
)
SINCE = {"staged_events": "stage"}  # functions of a later layout, and the one whose callers may call them
SIGNATURES = "SELECT p.proname, p.oid::regprocedure::text FROM pg_proc p WHERE p.pronamespace = %b::regnamespace"


async def upgrade(link: Link, schema: str, where: str) -> int:
    """Bring an older layout to this one, in one transaction, no append in between; returns the layout it had.

    Raises StoreNotFound, StoreVersionMismatch, StoreUnavailable: the store is then as it was.
    """
    mine = quoted(schema)
    try:
        await link.fetch("BEGIN ISOLATION LEVEL READ COMMITTED")
        try:
            await link.fetch(f"SELECT pg_advisory_xact_lock({lock_of(schema)})")
            had: int = (await link.fetch(f"SELECT layout FROM {mine}.store"))[0][0]  # noqa: S608 (quoted)
            if had > LAYOUT or had not in {*STEPS, LAYOUT}:
                refuse_other_layout(had, schema, where)
            if had < LAYOUT:
                await _steps(link, schema, had)
            await link.fetch("COMMIT")
        except BaseException:
            if not link.closed:
                await link.fetch("ROLLBACK")
            raise
    except (pg.UndefinedTable, pg.InvalidSchemaName):
        raise not_found(schema, where) from None
    except psycopg.Error as error:
        raise translated(error, where) from None
    return had


async def _steps(link: Link, schema: str, had: int) -> None:
    mine = quoted(schema)
    before = await _standing(link, mine)
    granted = await link.fetch(GRANTED, (mine,))
    await _drop_functions(link, schema)
    for layout in range(had, LAYOUT):
        await link.script(sql(STEPS[layout], schema))
    for name in FUNCTIONS:
        await link.script(sql(name, schema))
    await link.script(private(schema))
    signatures = await link.fetch(SIGNATURES, (mine,))
    for name, role in granted:
        for known, signature in signatures:
            if name in (known, SINCE.get(known)):
                await link.script(f"GRANT EXECUTE ON FUNCTION {signature} TO {role}")
    await link.fetch(f"UPDATE {mine}.store SET layout = {LAYOUT}")  # noqa: S608 (quoted, and a number)
    after = await _standing(link, mine)
    if (after[0], after[1:]) != (LAYOUT, before[1:]):
        raise StoreDamaged(
            f"The upgrade of the schema {schema!r} did not keep the log's end and its id, and was rolled back.",
            "Keep a copy of the database as it is, and look at what else has changed it.",
            schema=schema,
        )


async def _standing(link: Link, mine: str) -> tuple[object, ...]:
    """The layout; then what no step may change: who the store is, where its log ends, how many events there are."""
    rows = await link.fetch(
        f"SELECT s.layout, s.id, s.epoch, e.position, e.id FROM {mine}.store s"  # noqa: S608 (quoted)
        f" LEFT JOIN (SELECT position, id FROM {mine}.event ORDER BY position DESC LIMIT 1) e ON true"
    )
    return rows[0]


async def _drop_functions(link: Link, schema: str) -> None:
    """Every function that an eventfold has made here, whatever its arguments; with them the triggers that call it."""
    names = {"refuse_unsealed"}
    for file in FUNCTIONS:
        text = resources.files(__package__).joinpath("sql", file).read_text("utf-8")
        names |= set(re.findall(r"FUNCTION \{schema\}\.(\w+)\(", text))
    for name, signature in await link.fetch(SIGNATURES, (quoted(schema),)):
        if name in names:
            await link.script(f"DROP FUNCTION {signature} CASCADE")
