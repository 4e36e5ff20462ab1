"""A store for each test, and other processes that end with the test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import eventfold as ef
from tests.engines.sqlite.other import Other
from tests.support.memory import disk_path as disk_path
from tests.support.memory import tmp_path as tmp_path


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The path of a store that does not exist yet."""
    return str(tmp_path / "log.db")


@pytest.fixture
def store(path: str) -> Iterator[ef.Store]:
    """An empty store at `path`."""
    with ef.Store(path) as made:
        yield made


@pytest.fixture
def process() -> Iterator[Callable[..., Other]]:
    """A function that starts other processes."""
    started: list[Other] = []

    def start(*prefix: str, **environment: str) -> Other:
        started.append(Other(*prefix, **environment))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.fixture
def memory_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where the system has such a file system, for tests that make hundreds of files."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(prefix="eventfold-", dir=shared) as folder:
        yield Path(folder)
