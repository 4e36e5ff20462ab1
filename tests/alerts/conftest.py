"""The stores that alerts are tested on: memory, a SQLite file, PostgreSQL; and a clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

import eventfold as ef
from tests.projections.modes import opened
from tests.support.servers.postgres import shared
from tests.support.three_stores import clock as clock
from tests.support.three_stores import memory as memory
from tests.support.three_stores import store as store
from tests.support.three_stores import url as url


@pytest.fixture(params=["sync memory", "sync sqlite", "sync postgres", "async sqlite", "async postgres"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ef.Store]:
    """Return an empty store of either mode; an async one is wrapped so that its calls block."""
    mode, engine = request.param.split()
    urls = {"memory": f"memory:{uuid4().hex}", "sqlite": str(tmp_path / "store.db")}
    url = urls.get(engine) or shared().url(schema=f"s{uuid4().hex[:12]}")
    with opened(url, mode) as store:
        yield store
