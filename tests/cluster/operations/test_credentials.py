"""Credentials that expire, on a real server: an open store goes on with a renewed file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.concurrency.run import run
from eventfold.core.envelope import NewEvent
from eventfold.engines import create_store, open_engine
from tests.cluster.operations.tokens import Issuer
from tests.support.servers.nats import Cluster, needed

pytestmark = needed
SECONDS = 4.0
LONG = 3600.0


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    """Who signs."""
    return Issuer()


@pytest.fixture(scope="module")
def server(issuer: Issuer) -> Iterator[Cluster]:
    """One server whose users have tokens."""
    with Cluster(1, extra=f"# accounts by tokens\n{issuer.configuration}") as cluster:
        yield cluster.start()


def note(number: int) -> NewEvent:
    """An encoded event."""
    return NewEvent.of("Noted", b"%d" % number)


def address(server: Cluster, store: str, credentials: Path, index: Path) -> str:
    """The address of a store for a credentials file."""
    node = server.nodes[0]
    return (
        f"nats://{node.address}/{store}?credentials={credentials}&index={index}&monitoring={node.monitoring}&timeout=5"
    )


def test_a_renewed_file_is_used_when_credentials_expire(server: Cluster, issuer: Issuer, tmp_path: Path) -> None:
    """The server closes the connection when they expire; appends go on, none is lost and none is twice."""
    file = tmp_path / "application.creds"
    issuer.write_credentials(file, LONG)
    url = address(server, "renewed", file, tmp_path / "a.db")
    run(create_store(open_engine(url, "sync", True, {})))
    issuer.write_credentials(file, SECONDS)
    with ef.Store(url) as store:
        opened, number = time.monotonic(), 0
        connections = server.nodes[0].get("varz")["total_connections"]
        issuer.write_credentials(file, LONG)
        while time.monotonic() < opened + SECONDS + 2:
            number += 1
            assert store.append_encoded(note(number)).last == number
            time.sleep(0.01)
        assert server.nodes[0].get("varz")["total_connections"] > connections
        assert [recorded.position for recorded in store.read(raw=True)] == list(range(1, number + 1))
