"""The data files, unpacked once, and a small run that several tests check."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eventfold.demo.flights import run
from eventfold.demo.flights.source import Files, unpack

LIMIT = 2000


class Run:
    """A store, and the exit code and figures of the last run on it."""

    def __init__(self, database: Path) -> None:
        self.database = str(database)
        self.code, self.figures = -1, dict[str, Any]()

    def go(self) -> tuple[int, dict[str, Any]]:
        """Run the demonstration; set exit code and figures."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            self.code = run(self.database, LIMIT, True)
        self.figures = json.loads(out.getvalue())
        return self.code, self.figures


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    """The package's data files."""
    yield unpack(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on 2,000 flights, for tests that only read it."""
    made = Run(tmp_path_factory.mktemp("run") / "flights.db")
    made.go()
    return made
