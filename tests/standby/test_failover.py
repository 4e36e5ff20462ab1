"""The cluster of the how-to, from its page: the primary is lost under load, and everything goes on by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.standby.load import Load
from tests.support.programs import needs_program
from tests.support.servers.patroni import SOON, PatroniCluster, wait_for

pytestmark = [
    needs_program("etcd", "etcd-server"),
    needs_program("patroni", "patroni"),
    pytest.mark.timeout(240),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[PatroniCluster]:
    """A primary with a synchronous standby; a lost primary is replaced within seconds."""
    started = PatroniCluster(settings=SOON).start()
    yield started
    started.remove()


def test_everything_goes_on_when_the_primary_is_replaced_or_lost(cluster: PatroniCluster) -> None:
    """Eight writers, two followers, a read model, a process and an effect live through a switchover and a lost machine.

    No writer gets an error, every acknowledged event is in the log, and nothing is written, seen or done twice.
    """
    load = Load(cluster.url(connect_timeout="2"), patience=60.0).start()
    try:
        wait_for(lambda: load.is_writing_since(0.0), "appends", cluster.log)
        before = cluster.primary()
        cluster.switch_over()
        switched = time.monotonic()
        wait_for(lambda: load.is_writing_since(switched), "appends after the switchover", cluster.log)
        assert cluster.primary() is not before
        cluster.await_standby()
        lost = cluster.primary()
        lost.kill()
        killed = time.monotonic()
        wait_for(lambda: load.is_writing_since(killed), "appends after the loss of the primary", cluster.log)
        assert cluster.primary() is before
        load.stop()
        assert load.check(cluster.url()) == []
        assert load.errors == []
        assert {each.epoch for each in load.acknowledged} == {1, 2, 3}
    finally:
        load.close()
