"""The stores that inline read models are tested on: a SQLite file and PostgreSQL, in both modes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.projections.modes import opened
from tests.support.servers.postgres import PostgresServer

Open = Callable[..., AbstractContextManager[Any]]


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests of this process."""
    server = PostgresServer().start()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of a store that does not exist yet."""
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    server: PostgresServer = request.getfixturevalue("server")
    return server.url(schema=f"s{uuid4().hex[:12]}")


@pytest.fixture(params=["sync", "async"])
def mode(request: pytest.FixtureRequest) -> str:
    """Both modes."""
    return request.param


@pytest.fixture
def opening(url: str, mode: str) -> Open:
    """Return a function that opens the store in a mode, with options: `with opening(inline=[…]) as store`."""
    return lambda **options: opened(url, mode, **options)
