"""Addresses of stores for the races, one for each engine; and threads that cannot hang a test.

Knows: engines by their addresses. Does not know: what the races are about.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import eventfold as ef
from tests.conformance.engines import ENGINES, MEMORY

ALL = list(ENGINES)
SHARED = [engine for engine in ALL if engine != "memory"]  # engines that several processes may use at once


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for one test; in memory where possible, since other tests cover disks."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(prefix="eventfold-", dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture
def address(request: pytest.FixtureRequest, folder: Path) -> tuple[str, dict[str, Any]]:
    """The URL and options of a new store, of the engine that the test is given."""
    given = dict(ENGINES[request.param](folder))
    given.pop("clock", None)
    return given.pop("url"), given


@pytest.fixture
def store(address: tuple[str, dict[str, Any]]) -> Iterator[ef.Store]:
    """A store at that address."""
    url, options = address
    with ef.Store(url, **options) as store:
        yield store


every_engine = pytest.mark.parametrize("address", ALL, indirect=True)
shared_engines = pytest.mark.parametrize("address", SHARED, indirect=True)
