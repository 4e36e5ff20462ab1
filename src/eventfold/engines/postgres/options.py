"""The URL and the options of an engine, parsed and checked; the names that are derived from a schema's name.

Knows: connection strings, identifiers. Does not know: connections.
"""

from __future__ import annotations

import zlib
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict

from eventfold.engines.postgres.errors import translate_connection_error
from eventfold.errors import InvalidUrl

DEFAULT_SCHEMA = "eventfold"
MAX_IDENTIFIER_BYTES = 63
_LOCK_NAMESPACE = 0x65666F6C  # "efol"
# A server that has vanished without closing is noticed after half a minute, not after TCP's two hours.
CONNECTION_DEFAULTS: dict[str, Any] = {
    "fallback_application_name": "eventfold",
    "client_encoding": "UTF8",
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


class PostgresOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a store behaves on its server.

    `schema`           the PostgreSQL schema that holds the store: several stores fit into one database
    `pool`             the maximum of connections for reading; writing needs one or two more
    `lock_timeout`     seconds to wait for another writer before StoreBusy
    `patience`         seconds to retry a server that was reached before (a failover)
    `read_url`         a replica for everything that only reads; conditions are judged on the primary
    `read_your_writes` reads on the replica wait for what this engine has written
    `replica_wait`     seconds to wait for a replica that lags, before the primary is asked instead
    `poll`             seconds between reads of the head where LISTEN does not work (PgBouncer)
    `pooler`           whether a transaction pooler (PgBouncer) is in between; None: detect it
    `max_idle`         seconds after which an idle connection is closed; None: never
    `unsafe`           accept a server that loses acknowledged commits (fsync=off): for tests only
    """

    schema: str = DEFAULT_SCHEMA
    pool: int = 8
    lock_timeout: float = 30.0
    patience: float = 10.0
    read_url: str | None = None
    read_your_writes: bool = False
    replica_wait: float = 1.0
    poll: float = 0.05
    pooler: bool | None = None
    max_idle: float | None = None
    unsafe: bool = False


class ServerAddress(msgspec.Struct, frozen=True):
    """One server: the driver's parameters, and `where`, its name in messages (without the password)."""

    parameters: dict[str, Any]
    where: str


def parse_url(url: str, options: dict[str, Any]) -> tuple[str, PostgresOptions]:
    """The URL for the driver, and the options: `?schema=` of the URL and keywords.

    Raises InvalidUrl for an unknown option, or a schema name that PostgreSQL cannot have.
    """
    base, question, query = url.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    schemas = [value for key, value in pairs if key == "schema"]
    if schemas:
        options = {"schema": schemas[-1], **options}
        rest = urlencode([(k, v) for k, v in pairs if k != "schema"], quote_via=quote)
        url = base + (question + rest if rest else "")
    try:
        chosen = msgspec.convert(options, PostgresOptions, strict=False)
    except msgspec.ValidationError as error:
        known = ", ".join(PostgresOptions.__struct_fields__)
        raise InvalidUrl(
            f"The options of the PostgreSQL engine are not valid: {error}.", f"It has these options: {known}."
        ) from None
    name = chosen.schema
    if not name or len(name.encode()) > MAX_IDENTIFIER_BYTES or not name.isprintable() or name.startswith("pg_"):
        raise InvalidUrl(
            f"{name!r} cannot be the name of a store's schema.",
            f"Use 1 to {MAX_IDENTIFIER_BYTES} bytes of printable text that do not start with pg_.",
            schema=name,
        )
    return url, chosen


def parse_address(url: str) -> ServerAddress:
    """A URL (or libpq's key=value form) as parameters. Raises InvalidUrl if it is neither."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error as error:
        raise translate_connection_error(error, "") from None
    parameters = {**CONNECTION_DEFAULTS, **given, "client_encoding": "UTF8"}
    host = given.get("host") or given.get("hostaddr") or "local socket"
    where = f"{host}:{given.get('port') or 5432}/{given.get('dbname') or given.get('user') or ''}"
    return ServerAddress(parameters, where)


def target_url(url: str, schema: str) -> str:
    """The URL of a target in this schema; `url` may also be in libpq's key=value form."""
    try:
        given = {**conninfo_to_dict(url), "schema": schema}
    except psycopg.Error as error:
        raise translate_connection_error(error, "") from None
    return f"postgresql://?{urlencode(given, quote_via=quote)}"


def quote_identifier(schema: str) -> str:
    """The schema as an SQL identifier."""
    return '"' + schema.replace('"', '""') + '"'


def writer_lock_arguments(schema: str) -> str:
    """The arguments of the advisory lock that writers take: eventfold's number, and the schema's."""
    return f"{_LOCK_NAMESPACE}, {_schema_number(schema)}"


def listener_lock_arguments(schema: str) -> str:
    """The arguments of the advisory lock that listeners share: writers notify only while it is held."""
    return f"{_LOCK_NAMESPACE + 1}, {_schema_number(schema)}"


def session_lock_arguments(schema: str) -> str:
    """The arguments of the advisory lock that the sessions of open stores share: an upgrade takes it alone."""
    return f"{_LOCK_NAMESPACE + 2}, {_schema_number(schema)}"


def _schema_number(schema: str) -> int:
    # Two schemas with the same number would sometimes wait for each other, and no more.
    return zlib.crc32(schema.encode()) - 2**31


def notify_channel(schema: str) -> str:
    """The NOTIFY channel of the store's commits."""
    return schema if schema.startswith(DEFAULT_SCHEMA) else f"{DEFAULT_SCHEMA}_{zlib.crc32(schema.encode()):08x}"
