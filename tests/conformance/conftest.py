"""Room: which engines must keep the promises, in which colours. A new engine is one more line here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest

pytest.register_assert_rewrite("eventfold.testing.conformance")

from eventfold.testing.conformance.fixtures import *
from eventfold.testing.conformance.place import Place

# An engine: the address of a store that is not there yet, and what its Place must know.
ENGINES: dict[str, Callable[[Path], dict[str, object]]] = {
    "memory": lambda folder: {"url": f"memory:{uuid4().hex}", "clock": True},
    "sqlite": lambda folder: {"url": f"sqlite:{folder / 'log.db'}", "clock": True},
}
COLOURS = ("sync", "async")


MEMORY = Path("/dev/shm")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for one test, in memory where the system has such a place: no promise here is about a disk."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(prefix="eventfold-", dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture(params=[f"{engine}-{colour}" for engine in ENGINES for colour in COLOURS])
def place(request: pytest.FixtureRequest, folder: Path) -> Iterator[Place]:
    """An address where nothing is yet, for each engine in each colour."""
    engine, colour = request.param.rsplit("-", 1)
    given = Place(colour=colour, **ENGINES[engine](folder))
    yield given
    given.close()
