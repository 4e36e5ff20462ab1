"""Least-privilege roles as SQL: a writer and a reader, neither of which can damage the log.

Knows: which functions and tables each role uses. Does not know: who runs the SQL (the store's owner, once).
"""

from __future__ import annotations

from eventfold.engines.postgres.append import APPEND_ARGUMENTS, APPEND_OPTIONS
from eventfold.engines.postgres.options import DEFAULT_SCHEMA, quote_identifier
from eventfold.engines.postgres.schema import TABLES


def roles_sql(schema: str = DEFAULT_SCHEMA, writer: str = "eventfold_writer", reader: str = "eventfold_reader") -> str:
    """SQL that creates both roles if they do not exist and grants them this store. The store's owner runs it.

    Neither can log in: grant them to the users who do (`GRANT eventfold_writer TO shop`). The writer appends by the
    store's functions only, can read the log's tables, and writes snapshots; the reader reads. Neither can update,
    delete or truncate the log, create anything, or append past the conditions. Running it twice is harmless.
    """
    quoted, write, read = quote_identifier(schema), quote_identifier(writer), quote_identifier(reader)
    types, how = ", ".join(APPEND_ARGUMENTS.values()), ", ".join(APPEND_OPTIONS.values())
    tables = ", ".join(f"{quoted}.{name}" for name in TABLES if name != "staged")
    return f"""\
{_create_role_sql(writer)}
{_create_role_sql(reader)}
GRANT USAGE ON SCHEMA {quoted} TO {write}, {read};
GRANT SELECT ON {tables} TO {write}, {read};
GRANT INSERT, UPDATE, DELETE ON {quoted}.snapshot TO {write};
GRANT EXECUTE ON FUNCTION {quoted}.attach(), {quoted}.position_at(bigint) TO {write}, {read};
GRANT EXECUTE ON FUNCTION {quoted}.append(integer, {types}, {how}) TO {write};
GRANT EXECUTE ON FUNCTION {quoted}.stage(integer, text, {types}, text[], uuid[]) TO {write};
GRANT EXECUTE ON FUNCTION {quoted}.staged_events(text[], text) TO {write};
"""


def _create_role_sql(role: str) -> str:
    name = role.replace("'", "''")
    return (
        f"DO $body$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') THEN"
        f" CREATE ROLE {quote_identifier(role)} NOLOGIN; END IF; END $body$;"
    )
