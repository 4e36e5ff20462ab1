"""Room: rows in PostgreSQL: beside the log, in the store's schema, or in any other database.

Knows: psycopg, in its blocking colour. Does not know: projections, how the log is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql as compose
from psycopg.types.string import TextLoader

from eventfold.engines.postgres.address import MOST_BYTES_OF_A_NAME, Address, address_of, options_of
from eventfold.errors import EventfoldError, TargetUnavailable
from eventfold.projection.columns import Convert, Kind, Table
from eventfold.targets.connections import OfThread
from eventfold.targets.driver import Parameters, text_damaged
from eventfold.targets.rows import clipped, column_name, fields_of, quoted

SMALL = {letter: letter + 32 for letter in range(ord("A"), ord("Z") + 1)}  # as PostgreSQL does: A to Z only

BLOCKERS = """SELECT DISTINCT b.pid, b.application_name, b.usename, b.state || ' for '
        || round(extract(epoch FROM clock_timestamp() - b.state_change)) || ' s'
    FROM pg_stat_activity w, unnest(pg_blocking_pids(w.pid)) AS blocking (pid)
    JOIN pg_stat_activity b ON b.pid = blocking.pid
    WHERE w.datname = current_database() AND w.application_name = current_setting('application_name')
    ORDER BY 1"""


class PostgresDriver:
    """See driver.Driver. `schema` None: the one in the address (?schema=), else the user's default."""

    types: Mapping[Kind, str] = {
        "text": "TEXT",
        "int": "BIGINT",
        "float": "DOUBLE PRECISION",
        "bool": "BOOLEAN",
        "bytes": "BYTEA",
        "decimal": "NUMERIC",
        "moment": "TIMESTAMPTZ",
        "date": "DATE",
        "uuid": "UUID",
        "json": "JSONB",
    }
    pack: Mapping[Kind, Convert] = {}
    unpack: Mapping[Kind, Convert] = {}
    errors: tuple[type[BaseException], ...] = (psycopg.Error, UnicodeDecodeError)
    refusals: tuple[type[BaseException], ...] = (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError)
    table_end = ""
    longest_name: int | None = MOST_BYTES_OF_A_NAME
    locking = " FOR UPDATE"

    def __init__(self, url: str, schema: str | None = None) -> None:
        plain, options = options_of(url, {})
        self._at: Address = address_of(plain)
        self._schema = schema or (options.schema if "schema=" in url else None)
        self._parameters: dict[str, Any] = {**self._at.parameters, "fallback_application_name": "eventfold read models"}
        self._connections = OfThread(self._connect, psycopg.Connection[Any].close)
        self.address = f"postgresql://{self._at.where}" + (f" ({self._schema})" if self._schema else "")

    def take(self, write: bool) -> psycopg.Connection[Any]:
        """This thread's."""
        return self._connections.take()

    def give(self, connection: psycopg.Connection[Any], write: bool, broken: bool) -> None:
        """Keep it for this thread."""
        self._connections.give(connection, broken or connection.closed)

    def _connect(self) -> psycopg.Connection[Any]:
        """A new connection, in UTC, in the schema, committing by itself until told otherwise."""
        connection = psycopg.connect(**self._parameters, autocommit=True)
        self.dress(connection)
        connection.execute("SET TimeZone = 'UTC'")
        if self._schema:
            name = compose.Identifier(self._schema)
            connection.execute(compose.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name))
            connection.execute(compose.SQL("SET search_path = {}").format(name))
        return connection

    def shut(self) -> None:
        """Hang up, in every thread."""
        self._connections.close()

    def relation(self, name: str) -> str:
        """Quoted, in small letters: what a name means to PostgreSQL that is not quoted."""
        return quoted(clipped(name, self.longest_name).translate(SMALL))

    def column(self, name: str) -> str:
        """Quoted. No table can have a column that is called as one of the system's."""
        return quoted(clipped(column_name(name), self.longest_name))

    def sql(self, text: str) -> str:
        """`?` becomes `%s`."""
        return text.replace("?", "%s")

    def execute(
        self, connection: psycopg.Connection[Any], sql: str, parameters: Parameters = ()
    ) -> list[tuple[Any, ...]]:
        """One statement."""
        cursor = connection.execute(sql.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def executemany(self, connection: psycopg.Connection[Any], sql: str, parameters: Iterable[Parameters]) -> None:
        """One statement, many times, in one trip."""
        connection.cursor().executemany(sql.encode(), parameters)

    def upsert(
        self, connection: psycopg.Connection[Any], statement: str, table: Table, rows: Sequence[Sequence[Any]]
    ) -> None:
        """All rows as one array for each column: two to three times as fast as one statement a row."""
        arrays = ", ".join(f"%s::{self.types[column.kind]}[]" for column in table.columns)
        head, _, tail = statement.partition(" VALUES ")
        sql = f"{head} SELECT * FROM unnest({arrays}) {tail[tail.index('ON CONFLICT') :]}"  # noqa: S608
        connection.execute(sql.encode(), [list(values) for values in zip(*rows, strict=True)])

    def begin(self, connection: psycopg.Connection[Any]) -> None:
        """Begin, each statement seeing what is committed."""
        connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")

    def dress(self, connection: psycopg.Connection[Any]) -> None:
        """JSON as text: whoever wrote it reads it."""
        connection.adapters.register_loader("jsonb", TextLoader)

    def exclusive(self, connection: psycopg.Connection[Any]) -> None:
        """Tables are made by one process at a time."""
        connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('eventfold targets ' || current_schema(), 0))"
        )

    def commit(self, connection: psycopg.Connection[Any]) -> None:
        """Commit."""
        connection.execute("COMMIT")

    def rollback(self, connection: psycopg.Connection[Any]) -> None:
        """Roll back; a connection that is gone has done so."""
        if not connection.closed:
            connection.execute("ROLLBACK")

    def now(self, connection: psycopg.Connection[Any]) -> int:
        """The server's clock."""
        row = connection.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchone()
        assert row is not None
        return int(row[0])

    def dead(self, connection: psycopg.Connection[Any], error: BaseException) -> bool:
        """The server, or what is in between, has hung up."""
        state = getattr(error, "sqlstate", None) or ""
        return connection.closed or state[:2] == "08" or state in ("57P01", "57P02", "57P03", "57P05")

    def overdue(self) -> bool:
        """Nobody waits for our rows."""
        return False

    def keys(self, columns: Sequence[tuple[str, Kind]], count: int) -> str:
        """A list of row values, of the columns' own types."""
        one = f"({','.join(f'?::{self.types[kind]}' for _, kind in columns)})"
        return f"({','.join(name for name, _ in columns)}) IN (VALUES {','.join([one] * count)})"

    def exists(self, connection: psycopg.Connection[Any], name: str) -> bool:
        """Whether anything of this name is in the schema."""
        sql = """SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = current_schema() AND c.relname = %s"""
        return connection.execute(sql, (clipped(name, self.longest_name).translate(SMALL),)).fetchone() is not None

    def shown(self, connection: psycopg.Connection[Any], name: str) -> str:
        """All of them, by the names of their fields."""
        sql = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"
        found = [row[0] for row in connection.execute(f"{sql} ORDER BY attnum".encode(), (self.relation(name),))]
        return fields_of(found) or "*"

    def width(self, connection: psycopg.Connection[Any], name: str) -> int:
        """By the catalogue."""
        sql = (
            "SELECT count(*) FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = %s"
        )
        row = connection.execute(sql, (clipped(name, self.longest_name).translate(SMALL),)).fetchone()
        return 0 if row is None else int(row[0])

    def translated(self, error: BaseException) -> EventfoldError:
        """TargetUnavailable, with the server's words."""
        if isinstance(error, UnicodeDecodeError):
            return text_damaged(self.address, error)
        said = str(error).strip().split("\n")[0] or type(error).__name__
        state = getattr(error, "sqlstate", None) or ""
        what = f"PostgreSQL at {self.address} could not do it: {said.rstrip('.')}."
        if state in ("25006", "42501"):
            now = "Grant the user the right to write there, or name another database (target=…)."
        elif state[:2] in ("", "08", "57", "53"):
            now = "It is tried again until the server answers; see whether it is up."
        else:
            now = "Look at the SQL, and at the tables it names."
        return TargetUnavailable(what, now, address=self.address, sqlstate=state, detail=said)

    def blocker(self) -> str:
        """The sessions that keep any of those waiting that write read models into this database."""
        try:
            with psycopg.connect(**self._parameters, autocommit=True) as connection:
                rows = connection.execute(BLOCKERS).fetchall()
        except psycopg.Error:
            return ""
        return "; ".join(
            f"backend {pid} ({', '.join(word for word in (program, user and f'user {user}', doing) if word)})"
            for pid, program, user, doing in rows
        )
