"""Room: the rights a process needs, as SQL: a writer and a reader, neither of whom can harm the log.

Knows: which functions and tables each role uses. Does not know: who runs the SQL (its owner, once).
"""

from __future__ import annotations

from eventfold.engines.postgres.append import APPEND_ARGUMENTS, APPEND_OPTIONS
from eventfold.engines.postgres.options import DEFAULT_SCHEMA, quote_identifier
from eventfold.engines.postgres.schema import TABLES


def roles_sql(schema: str = DEFAULT_SCHEMA, writer: str = "eventfold_writer", reader: str = "eventfold_reader") -> str:
    """SQL that makes both roles, if they are not there, and grants them this store. To be run by the store's owner.

    Neither can log in: grant them to the users who do (`GRANT eventfold_writer TO shop`). The writer appends by the
    store's functions alone and can only read the log's tables (snapshots, which are no source of truth, it keeps
    itself); the reader reads. Neither can update, delete or truncate the log, create anything, or write past the
    conditions. Running it twice is harmless.
    """
    mine, write, read = quote_identifier(schema), quote_identifier(writer), quote_identifier(reader)
    types, how = ", ".join(APPEND_ARGUMENTS.values()), ", ".join(APPEND_OPTIONS.values())
    tables = ", ".join(f"{mine}.{name}" for name in TABLES if name != "staged")
    return f"""\
{_create_role_sql(writer)}
{_create_role_sql(reader)}
GRANT USAGE ON SCHEMA {mine} TO {write}, {read};
GRANT SELECT ON {tables} TO {write}, {read};
GRANT INSERT, UPDATE, DELETE ON {mine}.snapshot TO {write};
GRANT EXECUTE ON FUNCTION {mine}.attach(), {mine}.position_at(bigint) TO {write}, {read};
GRANT EXECUTE ON FUNCTION {mine}.append(integer, {types}, {how}) TO {write};
GRANT EXECUTE ON FUNCTION {mine}.stage(integer, text, {types}, text[], uuid[]) TO {write};
GRANT EXECUTE ON FUNCTION {mine}.staged_events(text[], text) TO {write};
"""


def _create_role_sql(role: str) -> str:
    name = role.replace("'", "''")
    return (
        f"DO $body$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') THEN"
        f" CREATE ROLE {quote_identifier(role)} NOLOGIN; END IF; END $body$;"
    )
