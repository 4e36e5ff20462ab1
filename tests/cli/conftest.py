"""The stores that tests of the command line share."""

from __future__ import annotations

from pathlib import Path
from secrets import token_hex

import pytest

from tests.cli.stores import Clock, bank_file, fill


@pytest.fixture
def bank(tmp_path: Path) -> str:
    """A bank of six events in a SQLite file, of classes that no one here knows."""
    return str(bank_file(tmp_path))


@pytest.fixture
def steady() -> str:
    """The same bank in memory, written at noon, an append a second."""
    return fill(f"memory:{token_hex(8)}", clock=Clock())


@pytest.fixture(params=["memory", "sqlite"])
def any_bank(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The bank on every engine that needs no server."""
    return fill(f"memory:{token_hex(8)}" if request.param == "memory" else str(tmp_path / "bank.db"))
