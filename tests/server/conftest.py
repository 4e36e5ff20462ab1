"""Applications over a store in memory and over a SQLite file, called without a socket, and one over a socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import eventfold as ef
from eventfold.server import Settings, application
from eventfold.server.settings import EventSettings, LimitSettings
from tests.support.memory import disk_path as disk_path
from tests.support.memory import tmp_path as tmp_path
from tests.support.servers.http import serving

ENGINES = ("memory", "sqlite")
ANY_TYPE = Settings(events=EventSettings(accept_unknown=True))  # tests append events without classes

LIMITED = 100_000  # bytes of a body


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
    with TestClient(application(new_store(request.param, tmp_path), settings=ANY_TYPE)) as found:
        yield found


@pytest.fixture
def memory_client() -> Iterator[TestClient]:
    """A client of an application over an empty store in memory: for what does not depend on the engine."""
    with TestClient(application(ef.AsyncStore("memory:"), settings=ANY_TYPE)) as found:
        yield found


@pytest.fixture
def strict_client() -> Iterator[TestClient]:
    """A client of an application that accepts only types that it knows, and knows none."""
    with TestClient(application(ef.AsyncStore("memory:"))) as found:
        yield found


@pytest.fixture
def limited_client() -> Iterator[TestClient]:
    """A client of an application that reads bodies of at most LIMITED bytes."""
    settings = Settings(events=ANY_TYPE.events, limits=LimitSettings(body_bytes=LIMITED))
    with TestClient(application(ef.AsyncStore("memory:"), settings=settings)) as found:
        yield found


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The address of a server over an empty SQLite file, on a loopback port, in a thread of this process."""
    with serving(application(new_store("sqlite", tmp_path), settings=ANY_TYPE)) as url:
        yield url
