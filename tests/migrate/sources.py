"""Sources for the tests of migrations: an empty SQLite file, a database of PostgreSQL and one of MariaDB.

Knows: the shared servers. Does not know: what is put into a source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from eventfold.migrate.connection import Connection, connect
from tests.support.servers import mariadb, postgres

SOURCES = ("sqlite", "postgresql", pytest.param("mariadb", marks=mariadb.needed))


def address_of(kind: str, folder: Path) -> str:
    """Make an empty source, and return its address."""
    match kind:
        case "sqlite":
            path = folder / f"s{uuid4().hex[:8]}.db"
            path.touch()
            return str(path)
        case "postgresql":
            server, name = postgres.shared(), f"s{uuid4().hex[:12]}"
            with psycopg.connect(server.url(), autocommit=True) as connection:
                connection.execute(f'CREATE DATABASE "{name}"')
            return server.url(database=name)
        case _:
            address = mariadb.shared().database()
            name = address.rpartition("/")[2]
            mariadb.shared().ask(f"ALTER DATABASE {name} CHARACTER SET utf8mb4")
            return re.sub(r"^mysql", "mariadb", address)


@contextmanager
def source(kind: str, folder: Path, *statements: str) -> Iterator[Connection]:
    """Make a source, run statements, and yield a connection that may write."""
    connection = connect(address_of(kind, folder), readonly=False)
    try:
        for each in statements:
            connection.run(each)
        yield connection
    finally:
        connection.close()
