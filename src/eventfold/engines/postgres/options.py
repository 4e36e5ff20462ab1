"""Room: where the server is and how we behave there: the URL and the engine's options, checked once.

Knows: connection strings, names. Does not know: connections.
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
# A server that has silently gone is noticed in half a minute, not after TCP's two hours.
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
    `pool`             connections for reading at the most; writing takes one or two more
    `lock_timeout`     seconds to wait for another writer before StoreBusy
    `patience`         seconds to go on trying to reach a server that was there and is away (a failover)
    `read_url`         a replica, for everything that only reads; conditions are judged on the primary
    `read_your_writes` let reads on the replica wait for what this engine has written
    `replica_wait`     seconds to wait for a replica that is behind, before the primary is asked instead
    `poll`             seconds between looks where the server cannot notify (PgBouncer)
    `pooler`           whether a transaction pooler (PgBouncer) stands in between; None: find out
    `max_idle`         seconds after which a connection that nobody uses is closed; None: never
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
    """One server: what the driver needs, and how to name it in a message (never with the password)."""

    parameters: dict[str, Any]
    where: str


def parse_url(url: str, options: dict[str, Any]) -> tuple[str, PostgresOptions]:
    """The URL as the driver takes it, and the options: from `?schema=` in it and from keywords.

    Raises InvalidUrl for an option nobody knows, or a schema name PostgreSQL cannot have.
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
            f"The PostgreSQL engine cannot take its options: {error}.", f"It has these: {known}."
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
    """One schema of a server as an address of a target; also where the server was given in libpq's key=value form."""
    try:
        given = {**conninfo_to_dict(url), "schema": schema}
    except psycopg.Error as error:
        raise translate_connection_error(error, "") from None
    return f"postgresql://?{urlencode(given, quote_via=quote)}"


def quote_identifier(schema: str) -> str:
    """The schema as an SQL identifier."""
    return '"' + schema.replace('"', '""') + '"'


def writer_lock_arguments(schema: str) -> str:
    """The arguments of the store's writers' advisory lock: ours by its first half, the store's by its second."""
    return f"{_LOCK_NAMESPACE}, {_schema_number(schema)}"


def listener_lock_arguments(schema: str) -> str:
    """The advisory lock that listeners share, by which a writer knows whether anybody wants to be notified."""
    return f"{_LOCK_NAMESPACE + 1}, {_schema_number(schema)}"


def _schema_number(schema: str) -> int:
    # Two schemas of one number would wait for each other now and then, no more.
    return zlib.crc32(schema.encode()) - 2**31


def notify_channel(schema: str) -> str:
    """The channel on which the store's commits are announced."""
    return schema if schema.startswith(DEFAULT_SCHEMA) else f"{DEFAULT_SCHEMA}_{zlib.crc32(schema.encode()):08x}"
