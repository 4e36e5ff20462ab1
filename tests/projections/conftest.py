"""The stores that read models are tested on: memory, a SQLite file, PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

import eventfold as ef
from tests.projections.modes import opened
from tests.support.memory import disk_path as disk_path
from tests.support.memory import tmp_path as tmp_path
from tests.support.servers.postgres import PostgresServer


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests of this process."""
    server = PostgresServer().start()
    yield server
    server.remove()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of a store that does not exist yet."""
    if request.param == "memory":
        return f"memory:{uuid4().hex}"
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    server: PostgresServer = request.getfixturevalue("server")
    return server.url(schema=f"s{uuid4().hex[:12]}")


@pytest.fixture(params=["sqlite", "postgres"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of a store that several processes or threads may open at once."""
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    server: PostgresServer = request.getfixturevalue("server")
    return server.url(schema=f"s{uuid4().hex[:12]}")


@pytest.fixture(params=["sync memory", "sync sqlite", "sync postgres", "async sqlite", "async postgres"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ef.Store]:
    """Return an empty store of either mode; an async one is wrapped so that its calls block (see modes.py)."""
    mode, engine = request.param.split()
    if engine == "postgres":
        server: PostgresServer = request.getfixturevalue("server")
        url = server.url(schema=f"s{uuid4().hex[:12]}")
    else:
        url = f"memory:{uuid4().hex}" if engine == "memory" else str(tmp_path / "store.db")
    with opened(url, mode) as store:
        yield store


@pytest.fixture
def store(url: str) -> Iterator[ef.Store]:
    """Return an empty store."""
    with ef.Store(url) as store:
        yield store


@pytest.fixture
def file_store(tmp_path: Path) -> Iterator[ef.Store]:
    """Return an empty store in a file."""
    with ef.Store(str(tmp_path / "store.db")) as store:
        yield store
