"""A PostgreSQL server and the raw psycopg connection that is the floor, beside eventfold and `eventsourcing`.

Knows: SQL of the floor, how a server is found or started. Does not know: figures, rounds. The floor maintains tables
and indexes like the engine's in as few round trips as possible: one statement a commit for one event, COPY for many.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4
from zlib import crc32

from benchmarks.measure import Missing
from benchmarks.peers import DECODE, payload_of
from benchmarks.traffic import TYPE, Scan, Traffic, scans

VARIABLE = "EVENTFOLD_BENCH_POSTGRES"  # a URL; without it a server is started if one is installed

TABLES = """CREATE SCHEMA {s};
CREATE TABLE {s}.event (
    position bigint PRIMARY KEY, time bigint NOT NULL, version integer NOT NULL, "offset" integer NOT NULL,
    size integer NOT NULL, id uuid NOT NULL, type text COLLATE "C" NOT NULL, codec text COLLATE "C" NOT NULL,
    tags text COLLATE "C" NOT NULL, data bytea NOT NULL, checksum integer NOT NULL
);
CREATE UNIQUE INDEX event_id ON {s}.event (id);
CREATE INDEX event_type ON {s}.event (type, position);
CREATE TABLE {s}.tag (
    tag text COLLATE "C", position bigint, type text COLLATE "C" NOT NULL, PRIMARY KEY (tag, position) INCLUDE (type)
)"""
ONE = """WITH e AS (INSERT INTO {s}.event
    (position, time, version, "offset", size, id, type, codec, tags, data, checksum)
    VALUES (%b, %b, 1, 0, 1, %b, %b, 'json', %b, %b, %b))
INSERT INTO {s}.tag (tag, position, type) VALUES (%b, %b, %b), (%b, %b, %b)"""
EVENTS = """COPY {s}.event (position, time, version, "offset", size, id, type, codec, tags, data, checksum)
    FROM STDIN (FORMAT BINARY)"""
TAGS = "COPY {s}.tag (tag, position, type) FROM STDIN (FORMAT BINARY)"
EVENT_TYPES = ("int8", "int8", "int4", "int4", "int4", "uuid", "text", "text", "text", "bytea", "int4")
PAGE = "SELECT * FROM {s}.event WHERE position > %b ORDER BY position LIMIT 1000"
ENTITY = """SELECT e.* FROM {s}.tag t JOIN {s}.event e USING (position)
    WHERE t.tag = %b AND t.type = %b ORDER BY t.position"""
DATA = 9  # the column of the payload


class Cluster:
    """A server's URL, and schemas of this run on it, dropped at the end."""

    def __init__(self, **settings: str) -> None:
        self._server: Any = None
        self.url = os.environ.get(VARIABLE, "")
        if not self.url:
            self._server = _started(settings)
            self.url = self._server.url()
        self.schemas: list[str] = []

    def schema(self) -> str:
        """Return the name of a new schema."""
        self.schemas.append(f"bench_{uuid4().hex[:12]}")
        return self.schemas[-1]

    def connect(self) -> Any:
        """Return a psycopg connection in autocommit mode."""
        psycopg = _psycopg()
        try:
            return psycopg.connect(self.url, autocommit=True)
        except psycopg.Error as error:
            raise Missing(f"PostgreSQL does not answer ({error})") from error

    def facts(self) -> str:
        """Return the server's version and its settings of durability."""
        names = ("server_version", "fsync", "synchronous_commit", "full_page_writes")
        with self.connect() as connection:
            return ", ".join(f"{n}={connection.execute(f'SHOW {n}').fetchone()[0]}" for n in names)

    def environment(self) -> dict[str, str]:
        """Return the environment variables by which `eventsourcing` finds the same server."""
        parts = urlsplit(self.url)
        schema = self.schema()
        with self.connect() as connection:
            connection.execute(f"CREATE SCHEMA {schema}")
        return {
            "PERSISTENCE_MODULE": "eventsourcing.postgres",
            "POSTGRES_DBNAME": parts.path.lstrip("/"),
            "POSTGRES_HOST": parts.hostname or "127.0.0.1",
            "POSTGRES_PORT": str(parts.port or 5432),
            "POSTGRES_USER": parts.username or "",
            "POSTGRES_PASSWORD": parts.password or "",
            "POSTGRES_SCHEMA": schema,
            "POSTGRES_POOL_SIZE": "32",
        }

    def close(self) -> None:
        """Drop the schemas; stop the server if it was started here."""
        try:
            with self.connect() as connection:
                for schema in self.schemas:
                    connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        finally:
            if self._server is not None:
                self._server.remove()


def _psycopg() -> Any:
    try:
        return import_module("psycopg")
    except ImportError as error:
        raise Missing("psycopg is not installed (pip install 'eventfold[postgres]')") from error


def _started(settings: dict[str, str]) -> Any:
    """Start a server as the tests do: fsync on, everything else at its default but these settings."""
    try:
        kind = import_module("tests.support.servers.postgres").PostgresServer
    except ImportError as error:
        raise Missing(f"no server: set {VARIABLE} to the URL of one") from error
    try:
        return kind(**settings).start()
    except RuntimeError as error:
        raise Missing(f"no server ({error}); or set {VARIABLE} to the URL of one") from error


def _crc(data: bytes) -> int:
    return (crc32(data) ^ 1 << 31) - (1 << 31)


class RawPsycopg:
    """One connection that writes rows by hand into tables like the engine's, in a schema of its own."""

    name = "raw psycopg"

    def __init__(self, cluster: Cluster, schema: str, stored: int) -> None:
        self.connection: Any = cluster.connect()
        self.connection.execute(TABLES.format(s=schema))
        self._one, self._events, self._tags = (sql.format(s=schema) for sql in (ONE, EVENTS, TAGS))
        self._page, self._entity = PAGE.format(s=schema), ENTITY.format(s=schema)
        self.position = 0
        self.traffic = Traffic(stored)
        self._numbers = itertools.count()

    def fill(self, stored: int) -> None:
        """Write the stored events."""
        everything = scans(0, stored)
        for start in range(0, stored, 1000):
            self.many(everything[start : start + 1000])

    def one(self, each: Scan) -> None:
        """Write one event in one statement and one commit."""
        self.position += 1
        position, depot, parcel = self.position, f"depot:{each.depot}", f"parcel:{each.parcel}"
        data = payload_of(each)
        values = (position, time.time_ns() // 1000, _identity(position), TYPE, f"{depot}\n{parcel}", data, _crc(data))
        self.connection.execute(self._one, (*values, depot, position, TYPE, parcel, position, TYPE), prepare=True)

    def many(self, events: Any, parcel: str = "") -> None:
        """Write many events in one transaction, by COPY."""
        now = time.time_ns() // 1000
        rows: list[tuple[Any, ...]] = []
        tags: list[tuple[str, int, str]] = []
        for each in events:
            self.position += 1
            names = (f"depot:{each.depot}", f"parcel:{parcel or each.parcel}")
            identity, data = _identity(self.position), payload_of(each)
            rows.append((self.position, now, 1, 0, 1, identity, TYPE, "json", "\n".join(names), data, _crc(data)))
            tags += [(name, self.position, TYPE) for name in names]
        with self.connection.transaction(), self.connection.cursor() as cursor:
            for statement, types, those in ((self._events, EVENT_TYPES, rows), (self._tags, TAG_TYPES, tags)):
                with cursor.copy(statement) as copy:
                    copy.set_types(types)
                    for row in those:
                        copy.write_row(row)

    def caller(self, events: int = 1) -> Callable[[], Any]:
        """Return a caller: each call writes `events` new rows."""
        if events == 1:
            return lambda: self.one(self.traffic.one())
        return lambda: self.many(self.traffic.some(events))

    def entity(self, events: int) -> str:
        """Write a parcel with so many events. Returns its tag."""
        parcel = f"long-{next(self._numbers)}"
        self.many(self.traffic.some(events), parcel)
        return f"parcel:{parcel}"

    def load(self, tag: str) -> Any:
        """Decode a parcel's payloads into structs and fold them by hand."""
        weight = count = 0
        with self.connection.cursor(binary=True) as cursor:
            for row in cursor.execute(self._entity, (tag, TYPE), prepare=True).fetchall():
                weight, count = DECODE(row[DATA]).weight, count + 1
        return weight, count

    def rows(self) -> Iterator[Any]:
        """Yield the whole log as bare rows, in pages of 1,000."""
        after = 0
        with self.connection.cursor(binary=True) as cursor:
            while page := cursor.execute(self._page, (after,), prepare=True).fetchall():
                yield from page
                after = page[-1][0]

    def close(self) -> None:
        """Disconnect."""
        self.connection.close()


TAG_TYPES = ("text", "int8", "text")


def _identity(position: int) -> UUID:
    return UUID(int=time.time_ns() << 64 | position)  # grows with time, as a UUIDv7 does
