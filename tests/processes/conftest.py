"""The stores that processes are tested on: memory, a SQLite file, PostgreSQL; and a clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold.testing.clock import Clock
from tests.support.memory import disk_path as disk_path
from tests.support.memory import tmp_path as tmp_path
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
    """Return a separate clock for timers that begins now."""
    from datetime import UTC, datetime

    return Clock(datetime.now(UTC))


@pytest.fixture(autouse=True)
def mails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that the shop's mails are written to."""
    path = tmp_path / "mails"
    monkeypatch.setenv("SHOP_MAILS", str(path))
    return path
