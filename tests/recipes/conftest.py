"""Room: which engines and colours the recipes are raced on. A new engine is one more line here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest

from tests.recipes.crowd import Crowd, Tasks, Threads

ENGINES: dict[str, Callable[[Path], str]] = {
    "memory": lambda folder: f"memory:{uuid4().hex}",
    "sqlite": lambda folder: f"sqlite:{folder / 'log.db'}",
}
CROWDS: dict[str, type[Crowd]] = {"threads": Threads, "tasks": Tasks}
MEMORY = Path("/dev/shm")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for one test, in memory where the system has such a place: no race here is about a disk."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(prefix="eventfold-", dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture(params=[f"{engine}-{colour}" for engine in ENGINES for colour in CROWDS])
def crowd(request: pytest.FixtureRequest, folder: Path) -> Iterator[Crowd]:
    """Thirty-two racers at one empty store."""
    engine, colour = request.param.split("-")
    racers = CROWDS[colour](ENGINES[engine](folder))
    yield racers
    racers.close()
