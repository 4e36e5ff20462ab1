"""Rows in PostgreSQL: in the log's database, in the store's schema, or in any other database.

Knows: psycopg, in its blocking mode. Does not know: projections, how the log is stored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC
from typing import Any, NamedTuple, cast

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.types.string import TextLoader

from eventfold.concurrency import run
from eventfold.core.mutex import Mutex
from eventfold.core.table import Column, ColumnKind, Convert, Table
from eventfold.engines.postgres.connection import detect_pooler
from eventfold.engines.postgres.options import MAX_IDENTIFIER_BYTES, ServerAddress, parse_address, parse_url
from eventfold.engines.postgres.pool import (
    HANDLER_ACQUIRE_TIMEOUT_S,
    Pool,
    TargetPools,
    ThreadCheckouts,
    split_pool_size,
)
from eventfold.errors import EventfoldError, StoreUnavailable, TargetUnavailable
from eventfold.targets.sql.driver import MISSING_COLUMN_REMEDY, Parameters, damaged_text_error
from eventfold.targets.sql.nul_escaping import escape, escape_json, may_need_escaping, unescape, unescape_json
from eventfold.targets.sql.statements import (
    Statements,
    aliased_columns,
    postgres_column_name,
    quote_identifier,
    shorten_name,
)

Lend = Callable[[ServerAddress], TargetPools | None]
POOL_SIZE = 8  # connections to a server other than the log's
APPLICATION_NAME = "eventfold read models"  # by which pg_stat_activity shows the transactions, also to `lock_holder`
CONTROL_TABLE = re.compile(r"\beventfold_(?:projection|checkpoint|entry|mark|command|layout|sending)\b")
BEGIN_FULL_SCAN = b"BEGIN READ ONLY; SET LOCAL enable_seqscan = on; SET LOCAL plan_cache_mode = auto"
BEGIN_ROWS = b"SET LOCAL synchronous_commit = off"
BEGIN_ROWS_OF_SEVERAL = BEGIN_ROWS + b"; SET LOCAL lock_timeout = '100ms'"
LOWER_CASE = {letter: letter + 32 for letter in range(ord("A"), ord("Z") + 1)}  # as PostgreSQL folds names: A to Z only

BY_CODE_POINT = 'COLLATE "C"'

SELECT_BLOCKERS = """SELECT DISTINCT b.pid, b.application_name, b.usename, b.state || ' for '
        || round(extract(epoch FROM clock_timestamp() - b.state_change)) || ' s'
    FROM pg_stat_activity w, unnest(pg_blocking_pids(w.pid)) AS blocking (pid)
    JOIN pg_stat_activity b ON b.pid = blocking.pid
    WHERE w.datname = current_database() AND w.application_name = %s
    ORDER BY 1"""


class LentConnection(NamedTuple):
    """An acquired connection, and the pool that it belongs to."""

    pool: Pool
    link: Any


def _assume_utc(value: Any) -> Any:
    """Set the zone of a moment without one to UTC: single statements run in the session's zone, which is not known."""
    return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


def _to_utc(value: Any) -> Any:
    return value if value is None or value.tzinfo is UTC else value.astimezone(UTC)


class PostgresStatements(Statements):
    """See Statements. Text with U+0000, which PostgreSQL cannot store, is escaped."""

    def encode_rows(self, table: Table, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """See Statements. Moments get no zone: rows are written in a transaction whose time zone is UTC."""
        return _convert_texts(table.columns, rows, escape, escape_json)

    def encode_keys(self, table: Table, keys: Sequence[Sequence[Any]]) -> Iterable[Sequence[Any]]:
        """See Statements."""
        encoded = cast("Sequence[Sequence[Any]]", super().encode_keys(table, keys))
        return _convert_texts(table.columns[: len(table.key)], encoded, escape, escape_json)

    def column_type(self, column: Column) -> str:
        """See Statements. Text is sorted by code point, so that an index serves the order of rows."""
        return f"TEXT {BY_CODE_POINT}" if column.kind == "text" else super().column_type(column)

    def compared_column(self, table: Table, column: Column) -> str:
        """See Statements. The collation is named because tables of earlier releases have the database's own."""
        own = self.quote_column(column.name)
        return f"{own} {BY_CODE_POINT}" if column.kind == "text" else own

    def compared_value(self, column: Column, value: Any) -> Any:
        """See Statements."""
        return escape(value) if column.kind == "text" else super().compared_value(column, value)

    def decode_value(self, column: Column, value: Any) -> Any:
        """See Statements."""
        return unescape(value) if column.kind == "text" else super().decode_value(column, value)

    def decode_rows(self, table: Table, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """See Statements."""
        return super().decode_rows(table, list(_convert_texts(table.columns, rows, unescape, unescape_json)))


def _convert_texts(
    columns: Sequence[Column], rows: Sequence[Sequence[Any]], text: Callable[[str], str], json: Callable[[str], str]
) -> Sequence[Any]:
    """Convert the text columns by `text` and the JSON columns by `json`, but only columns that need escaping."""
    with_text = [(at, column.kind) for at, column in enumerate(columns) if column.kind in ("text", "json")]
    if not rows or not with_text:
        return rows
    values = list(zip(*rows, strict=True))
    affected = [(at, json if kind == "json" else text) for at, kind in with_text if may_need_escaping(kind, values[at])]
    for at, convert in affected:
        values[at] = tuple([convert(value) if isinstance(value, str) else value for value in values[at]])
    return list(zip(*values, strict=True)) if affected else rows


class PostgresDriver:
    """See driver.Driver. Rows are stored in the schema that the address names (?schema=), else in the user's default.

    `lend` returns the pools of the store's engine, or None if the address is of another server.
    """

    column_types: Mapping[ColumnKind, str] = {
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
    encoders: Mapping[ColumnKind, Convert] = {"moment": _assume_utc}
    decoders: Mapping[ColumnKind, Convert] = {"moment": _to_utc}
    errors: tuple[type[BaseException], ...] = (psycopg.Error, StoreUnavailable, UnicodeDecodeError)
    row_errors: tuple[type[BaseException], ...] = (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError)
    value_errors: tuple[type[BaseException], ...] = (psycopg.DataError,)
    table_suffix = ""
    max_name_bytes: int | None = MAX_IDENTIFIER_BYTES
    row_lock_clause = " FOR UPDATE"
    quiet_page_events = 0
    inserts_new_rows = False  # an upsert by COPY or arrays costs a round trip, and so does a look-up
    releases_interpreter = True

    def __init__(self, url: str, lend: Lend | None = None) -> None:
        plain, options = parse_url(url, {})
        self._server: ServerAddress = parse_address(plain)
        self._requested_schema = options.schema if "schema=" in url else None
        self._schema = self._requested_schema or ""  # if none is requested, the first connection finds the default
        self._lend = lend
        self._lending: TargetPools | None = None
        self._own_pools: TargetPools | None = None
        self._mutex = Mutex()
        self._application_name = "" if "application_name" in self._server.parameters else APPLICATION_NAME
        self._qualified_sql: dict[str, str] = {}
        self._has_schema = False
        self.address = f"postgresql://{self._server.where}" + (
            f" ({self._requested_schema})" if self._requested_schema else ""
        )
        self._begin_sql = self._build_begin_sql()

    def _build_begin_sql(self) -> bytes:
        """The SQL that begins a transaction. Its settings are local, since the session may be of the log's pool."""
        local = ["TimeZone = 'UTC'", "lock_timeout = 0", "enable_seqscan = on", "plan_cache_mode = auto"]
        local += [f"search_path = {quote_identifier(self._requested_schema)}"] if self._requested_schema else []
        local += [f"application_name = '{self._application_name}'"] if self._application_name else []
        return "; ".join(["BEGIN ISOLATION LEVEL READ COMMITTED", *(f"SET LOCAL {each}" for each in local)]).encode()

    def acquire(self, write: bool, runs_user_code: bool) -> LentConnection:
        """See Driver. The connection is of the store's pool if the store is on the same server, else of an own pool."""
        lending = self._lending
        if lending is None:
            lending = self._lending = self._mutex.run(self._find_pools)
        pool = lending.long if runs_user_code else lending.short
        link = run(pool.acquire())
        lent = LentConnection(pool, link)
        try:
            if runs_user_code:
                lending.thread_checkouts.add(link.checkout)
            if not link.is_set_up_for_targets:
                self.prepare_foreign_connection(link.psycopg_connection)
                link.is_set_up_for_targets = True
            if not self._schema:
                self._schema = self._default_schema(link.psycopg_connection)
        except BaseException:
            self.release(lent, write, broken=True)
            raise
        return lent

    def connection(self, lent: LentConnection) -> psycopg.Connection[Any]:
        """See Driver. Returns psycopg's connection."""
        return lent.link.psycopg_connection

    def release(self, lent: LentConnection, write: bool, broken: bool) -> None:
        """See Driver."""
        if broken and lent.link.closed:
            run(lent.pool.close_idle())  # the server closed this connection: the idle ones are probably closed too
        run(lent.pool.release(lent.link))

    def _find_pools(self) -> TargetPools:
        lending = self._lend(self._server) if self._lend is not None else None
        if lending is not None:
            return lending
        if self._own_pools is None:
            short, long = split_pool_size(POOL_SIZE)
            where, holders = self._server.where, ThreadCheckouts()

            async def greet(link: Any) -> None:
                await detect_pooler(link, where)

            self._own_pools = TargetPools(
                Pool(
                    self._server,
                    "sync",
                    short,
                    0.0,
                    greet,
                    acquire_timeout_s=HANDLER_ACQUIRE_TIMEOUT_S,
                    thread_checkouts=holders,
                ),
                Pool(
                    self._server,
                    "sync",
                    long,
                    0.0,
                    greet,
                    acquire_timeout_s=HANDLER_ACQUIRE_TIMEOUT_S,
                    thread_checkouts=holders,
                ),
                holders,
            )
        return self._own_pools

    def _default_schema(self, connection: psycopg.Connection[Any]) -> str:
        row = connection.execute("SELECT current_schema()").fetchone()
        if row is None or not row[0]:
            raise TargetUnavailable(
                f"No schema of the user's search_path exists at {self.address}.",
                "Name a schema: target=postgresql://…?schema=NAME; it is created if it does not exist.",
                address=self.address,
            )
        return str(row[0])

    def close(self) -> None:
        """Close this target's own connections; those of the store's pools stay open."""
        own, self._own_pools, self._lending = self._own_pools, None, None
        if own is not None:
            run(own.short.close())
            run(own.long.close())

    def quote_relation(self, name: str) -> str:
        """See Driver. The name is qualified by the schema, and in lower case as PostgreSQL folds unquoted names."""
        own = quote_identifier(shorten_name(name, self.max_name_bytes).translate(LOWER_CASE))
        return f"{quote_identifier(self._schema)}.{own}" if self._schema else own

    def quote_column(self, name: str) -> str:
        """See Driver. Names of PostgreSQL's system columns are changed: no table can have a column with such a name."""
        return quote_identifier(shorten_name(postgres_column_name(name), self.max_name_bytes))

    def adapt_sql(self, text: str) -> str:
        """Replace `?` by `%s`, and qualify the names of control tables with their schema."""
        if "eventfold_" not in text or not self._schema:
            return text.replace("?", "%s")
        sql = self._qualified_sql.get(text)
        if sql is None:
            qualified = CONTROL_TABLE.sub(lambda table: f"{quote_identifier(self._schema)}.{table[0]}", text)
            sql = self._qualified_sql[text] = qualified.replace("?", "%s")
        return sql

    def execute(
        self, connection: psycopg.Connection[Any], sql: str, parameters: Parameters = ()
    ) -> list[tuple[Any, ...]]:
        """See Driver."""
        cursor = connection.execute(sql.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def update_row(self, connection: psycopg.Connection[Any], sql: str, parameters: Parameters) -> bool:
        """See Driver. Within a pipeline, the statement fails as a division by zero if there was no such row."""
        if connection.pgconn.pipeline_status == PipelineStatus.OFF:
            return bool(self.execute(connection, sql, parameters))
        connection.execute(f"WITH updated AS ({sql}) SELECT 1 / count(*) FROM updated".encode(), parameters)  # noqa: S608
        return True

    def executemany(self, connection: psycopg.Connection[Any], sql: str, parameters: Iterable[Parameters]) -> None:
        """See Driver. Uses one round trip."""
        connection.cursor().executemany(sql.encode(), parameters)

    def upsert(
        self, connection: psycopg.Connection[Any], statement: str, table: Table, rows: Sequence[Sequence[Any]]
    ) -> None:
        """See Driver: one statement with an array for each column, two to three times as fast as a statement a row."""
        arrays = ", ".join(f"%s::{self.column_types[column.kind]}[]" for column in table.columns)
        head, _, tail = statement.partition(" VALUES ")
        sql = f"{head} SELECT * FROM unnest({arrays}) {tail[tail.index('ON CONFLICT') :]}"  # noqa: S608
        connection.execute(sql.encode(), [list(values) for values in zip(*rows, strict=True)])

    def begin(self, connection: psycopg.Connection[Any]) -> None:
        """See Driver. The isolation level is READ COMMITTED."""
        connection.execute(self._begin_sql)

    def prepare_foreign_connection(self, connection: psycopg.Connection[Any]) -> None:
        """Read JSONB as text: the row codec parses it."""
        connection.adapters.register_loader("jsonb", TextLoader)

    def lock_schema_changes(self, connection: psycopg.Connection[Any]) -> None:
        """See Driver. Also creates the schema if it does not exist."""
        lock = "SELECT pg_advisory_xact_lock(hashtextextended('eventfold targets ' || %s, 0))"
        connection.execute(lock, (self._schema,))
        if not self._has_schema:
            if connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (self._schema,)).fetchone() is None:
                connection.execute(f"CREATE SCHEMA {quote_identifier(self._schema)}".encode())
            self._has_schema = True

    def begin_rows(self, connection: psycopg.Connection[Any], several: bool) -> None:
        """See Driver."""
        connection.execute(BEGIN_ROWS_OF_SEVERAL if several else BEGIN_ROWS)

    def commit(self, connection: psycopg.Connection[Any]) -> None:
        """See Driver."""
        connection.execute("COMMIT")

    def rollback(self, connection: psycopg.Connection[Any]) -> None:
        """Roll back; do nothing on a closed connection, and close a connection on which it fails.

        It fails if an exception of a signal handler interrupted a running statement. That exception must be raised, not
        the error that the connection accepts no other statement.
        """
        if connection.closed:
            return
        try:
            connection.execute("ROLLBACK")
        except psycopg.Error:
            connection.close()

    @contextmanager
    def allow_full_scan(self, connection: psycopg.Connection[Any]) -> Generator[None]:
        """See Driver. Sets the planner's defaults: the settings of the log's sessions avoid sequential scans."""
        if connection.info.transaction_status != TransactionStatus.IDLE:
            yield
            return
        connection.execute(BEGIN_FULL_SCAN)
        try:
            yield
        finally:
            self.rollback(connection)

    def now(self, connection: psycopg.Connection[Any]) -> int:
        """Return the time of the server's clock."""
        row = connection.execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint").fetchone()
        assert row is not None
        return int(row[0])

    def is_disconnect(self, connection: psycopg.Connection[Any], error: BaseException) -> bool:
        """Whether the server, or a proxy in between, closed the connection."""
        state = getattr(error, "sqlstate", None) or ""
        return connection.closed or state[:2] == "08" or state in ("57P01", "57P02", "57P03", "57P05")

    def should_yield(self) -> bool:
        """Return False: appends do not wait for transactions of read models."""
        return False

    def key_condition(self, columns: Sequence[tuple[str, ColumnKind]], count: int) -> str:
        """See Driver: a list of row values, cast to the columns' types."""
        one = f"({','.join(f'?::{self.column_types[kind]}' for _, kind in columns)})"
        return f"({','.join(name for name, _ in columns)}) IN (VALUES {','.join([one] * count)})"

    def has_relation(self, connection: psycopg.Connection[Any], name: str) -> bool:
        """Whether the schema has anything of this name."""
        sql = """SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %s AND c.relname = %s"""
        return (
            connection.execute(
                sql,
                (
                    self._schema,
                    shorten_name(name, self.max_name_bytes).translate(LOWER_CASE),
                ),
            ).fetchone()
            is not None
        )

    def view_columns(self, connection: psycopg.Connection[Any], name: str) -> str:
        """See Driver: all columns, under the names of their fields."""
        sql = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"
        names = [row[0] for row in connection.execute(f"{sql} ORDER BY attnum".encode(), (self.quote_relation(name),))]
        return aliased_columns(names) or "*"

    def count_columns(self, connection: psycopg.Connection[Any], name: str) -> int:
        """See Driver."""
        sql = "SELECT count(*) FROM information_schema.columns WHERE table_schema = %s AND table_name = %s"
        row = connection.execute(
            sql,
            (
                self._schema,
                shorten_name(name, self.max_name_bytes).translate(LOWER_CASE),
            ),
        ).fetchone()
        return 0 if row is None else int(row[0])

    def translate_error(self, error: BaseException) -> EventfoldError:
        """See Driver: TargetUnavailable, with the server's message and a remedy for the kind of error."""
        if isinstance(error, EventfoldError):
            return TargetUnavailable(error.what, error.remedy, address=self.address, detail=str(error))
        if isinstance(error, UnicodeDecodeError):
            return damaged_text_error(self.address, error)
        detail = str(error).strip().split("\n")[0] or type(error).__name__
        state = getattr(error, "sqlstate", None) or ""
        what = f"PostgreSQL at {self.address} failed: {detail.rstrip('.')}."
        if state in ("25006", "42501"):
            remedy = "Grant the user the right to write there, or name another database (target=…)."
        elif state[:2] in ("", "08", "57", "53"):
            remedy = "Check that the server is running. A runner retries until it answers; other calls do not."
        elif state == "42703":  # undefined_column
            remedy = MISSING_COLUMN_REMEDY
        else:
            remedy = "Check the SQL, and the tables it names."
        return TargetUnavailable(what, remedy, address=self.address, sqlstate=state, detail=detail)

    def lock_holder(self) -> str:
        """See the port: the sessions that block any session which writes read models into this database."""
        try:
            lent = self.acquire(write=False, runs_user_code=False)
            try:
                connection, program = self.connection(lent), self._application_name
                mine = (program or self._server.parameters["application_name"],)
                rows: list[tuple[Any, ...]] = connection.execute(SELECT_BLOCKERS, mine).fetchall()
            finally:
                self.release(lent, write=False, broken=False)
        except self.errors:
            return ""
        return "; ".join(
            f"backend {pid} ({', '.join(word for word in (program, user and f'user {user}', doing) if word)})"
            for pid, program, user, doing in rows
        )
