"""Stores on the shared cluster, and on a single server with small messages, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from tests.support.servers.nats import Cluster, own, shared
from tests.support.stores import new_stream, remove_stream

Open = Callable[..., ef.Store]


@pytest.fixture
def url() -> Iterator[str]:
    """The address of a new store on the shared cluster."""
    made = new_stream(shared())
    yield made
    remove_stream(made)


@pytest.fixture
def opening(url: str, tmp_path: Path) -> Iterator[Open]:
    """A function that opens stores, each as a process of another host does unless it names an index."""
    opened: list[ef.Store] = []

    def open_(address: str = "", **options: Any) -> ef.Store:
        store = ef.Store(address or url, **{"index": str(tmp_path / f"{len(opened)}.db"), **options})
        opened.append(store)
        return store

    yield open_
    for each in opened:
        each.close()


@pytest.fixture
def store(opening: Open) -> ef.Store:
    """One store, sync."""
    return opening()


@pytest.fixture(scope="session")
def single() -> Iterator[Cluster]:
    """A single server whose messages have 64 KiB at most."""
    with own(1, extra="max_payload: 64KB\n") as cluster:
        yield cluster
