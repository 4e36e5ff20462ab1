"""A server started by this process, and a schema on it for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import django
import psycopg
import pytest
from django.conf import settings
from django.db.utils import ConnectionHandler

from tests.engines.postgres.given import Opened
from tests.support.servers.postgres import PASSWORD, SUPERUSER, PostgresServer, shared

Open = Callable[..., Opened]


@pytest.fixture(scope="session")
def server() -> PostgresServer:
    """PostgreSQL with default durability, started once in this process."""
    return shared()


@pytest.fixture
def url(server: PostgresServer) -> str:
    """The server's address for its owner."""
    return server.url()


@pytest.fixture
def schema() -> str:
    """The name of a schema that does not exist yet."""
    return f"t{uuid4().hex}"


@pytest.fixture
def database(server: PostgresServer) -> str:
    """A database of the test's own: every connection to it is the test's, whatever earlier tests left open."""
    name = f"d{uuid4().hex[:12]}"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return name


@pytest.fixture
def opening(url: str, schema: str) -> Iterator[Open]:
    """A function that opens engines on the test's schema, with options; they are closed afterwards."""
    opened: list[Opened] = []

    def open_(address: str = "", mode: str = "sync", **options: Any) -> Opened:
        engine = Opened(address or url, mode, **{"schema": schema, **options})
        opened.append(engine)
        engine.open()
        return engine

    yield open_
    for engine in opened:
        engine.end()


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    """The two modes, blocking and asyncio."""
    return request.param


@pytest.fixture
def engine(opening: Open) -> Opened:
    """One engine, sync."""
    return opening()


@pytest.fixture(scope="session")
def connections(server: PostgresServer) -> Iterator[Any]:
    """Django's connections, as a project has them."""
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": SUPERUSER,
        "PASSWORD": PASSWORD,
        "HOST": "127.0.0.1",
        "PORT": server.port,
    }
    if not settings.configured:
        settings.configure(DATABASES={"default": database}, INSTALLED_APPS=[])
        django.setup()
    handler = ConnectionHandler({"default": database})
    yield handler
    handler.close_all()
