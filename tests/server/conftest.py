"""Applications over a store in memory and over a SQLite file, called without a socket, and one over a socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import eventfold as ef
from eventfold.server import application
from tests.support.servers.http import serving

ENGINES = ("memory", "sqlite")


def new_store(engine: str, folder: Path) -> ef.AsyncStore | str:
    """A new store in memory, or the address of a new one in a file, which the application opens and closes."""
    if engine == "memory":
        return ef.AsyncStore("memory:")
    address = f"sqlite:///{folder / 'events.db'}"
    ef.Store(address).close()
    return address


@pytest.fixture(params=ENGINES)
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TestClient]:
    """A client of an application over an empty store, on each engine."""
    with TestClient(application(new_store(request.param, tmp_path))) as found:
        yield found


@pytest.fixture
def memory_client() -> Iterator[TestClient]:
    """A client of an application over an empty store in memory: for what does not depend on the engine."""
    with TestClient(application(ef.AsyncStore("memory:"))) as found:
        yield found


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a server over an empty SQLite file, on a loopback port, in a thread of this process."""
    with serving(application(new_store("sqlite", tmp_path))) as url:
        yield url
