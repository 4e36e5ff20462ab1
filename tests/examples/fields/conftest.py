"""Fixtures of the fields: a store in a file and on PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.servers.postgres import shared


@pytest.fixture(params=["sqlite", "postgres"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of a store that does not exist yet."""
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    return shared().url(schema=f"s{uuid4().hex[:12]}")
