"""Fixtures of tests that run on memory, a SQLite file and PostgreSQL: a conftest imports those that its tests use.

Knows: addresses, a clock. Does not know: what is tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

import eventfold as ef
from eventfold.testing.clock import Clock
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
    """Return a separate clock, for what depends on time, that begins now."""
    return Clock(datetime.now(UTC))
