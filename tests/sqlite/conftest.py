"""Room: a store to work on, and other processes that end with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import eventfold as ef
from tests.sqlite.other import Other


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where a store may be made."""
    return str(tmp_path / "log.db")


@pytest.fixture
def store(path: str) -> Iterator[ef.Store]:
    """An empty store at `path`."""
    with ef.Store(path) as made:
        yield made


@pytest.fixture
def process() -> Iterator[Callable[..., Other]]:
    """Starts other processes."""
    started: list[Other] = []

    def start(*prefix: str, **environment: str) -> Other:
        started.append(Other(*prefix, **environment))
        return started[-1]

    yield start
    for each in started:
        each.kill()
