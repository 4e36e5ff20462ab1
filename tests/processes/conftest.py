"""The stores that processes are tested on: memory, a SQLite file, PostgreSQL; and a clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.memory import disk_path as disk_path
from tests.support.memory import tmp_path as tmp_path
from tests.support.three_stores import clock as clock
from tests.support.three_stores import memory as memory
from tests.support.three_stores import store as store
from tests.support.three_stores import url as url


@pytest.fixture(autouse=True)
def mails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that the shop's mails are written to."""
    path = tmp_path / "mails"
    monkeypatch.setenv("SHOP_MAILS", str(path))
    return path
