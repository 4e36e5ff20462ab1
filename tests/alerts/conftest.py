"""The stores that alerts are tested on: memory, a SQLite file, PostgreSQL; and a clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold.testing.clock import Clock
from tests.projections.modes import opened
from tests.support.servers.postgres import shared


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of a store that does not exist yet."""
    if request.param == "memory":
        return f"memory:{uuid4().hex}"
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    return shared().url(schema=f"s{uuid4().hex[:12]}")


@pytest.fixture
def store(url: str) -> Iterator[ef.Store]:
    """Return an empty store."""
    with ef.Store(url) as store:
        yield store


@pytest.fixture
def memory() -> Iterator[ef.Store]:
    """Return an empty store in memory, for rules that do not depend on the engine."""
    with ef.Store("memory:") as store:
        yield store


@pytest.fixture
def clock() -> Clock:
    """Return a separate clock for questions of time that begins now."""
    return Clock(datetime.now(UTC))


@pytest.fixture(params=["sync memory", "sync sqlite", "sync postgres", "async sqlite", "async postgres"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ef.Store]:
    """Return an empty store of either mode; an async one is wrapped so that its calls block."""
    mode, engine = request.param.split()
    urls = {"memory": f"memory:{uuid4().hex}", "sqlite": str(tmp_path / "store.db")}
    url = urls.get(engine) or shared().url(schema=f"s{uuid4().hex[:12]}")
    with opened(url, mode) as store:
        yield store
