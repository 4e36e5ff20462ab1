"""The crowds that the recipes are raced by: threads and tasks, on every engine of the conformance suite."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.conformance.engines import ENGINES, MEMORY
from tests.recipes.crowd import Crowd, Tasks, Threads

CROWDS: dict[str, type[Crowd]] = {"threads": Threads, "tasks": Tasks}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder for one test, in memory if the system has one there: no race here tests the disk."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(prefix="eventfold-", dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture(params=[f"{engine}-{mode}" for engine in ENGINES for mode in CROWDS])
def crowd(request: pytest.FixtureRequest, folder: Path) -> Iterator[Crowd]:
    """Return thirty-two racers at one empty store."""
    engine, mode = request.param.split("-")
    place = {key: value for key, value in ENGINES[engine](folder).items() if key != "clock"}
    racers = CROWDS[mode](**place)
    yield racers
    racers.close()
