"""The conformance suite on a cluster of one node, as for development: the chapters in which the server decides.

The whole suite runs on three nodes (test_every_promise.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from eventfold.testing.conformance.append import *
from eventfold.testing.conformance.conditions import *
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from eventfold.testing.conformance.group_commit import *
from eventfold.testing.conformance.idempotency import *
from tests.support.servers.nats import Cluster, own
from tests.support.stores import new_stream, remove_stream


@pytest.fixture(scope="module")
def node() -> Iterator[Cluster]:
    """A server without a cluster."""
    with own(1) as cluster:
        yield cluster


@pytest.fixture
def engine_under_test(node: Cluster, folder: Path) -> Iterator[EngineUnderTest]:
    """A store with one copy."""
    given = EngineUnderTest(new_stream(node), "sync", index=str(folder / "index.db"))
    yield given
    given.close()
    remove_stream(given.url)
