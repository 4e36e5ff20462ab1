"""A server that was promoted and has no standby yet, although commits are to wait for one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

import eventfold as ef
from eventfold.testing.conformance.events import Account, deposit
from tests.engines.postgres.given import soon, sql
from tests.support.servers.postgres import PASSWORD, SUPERUSER, PostgresServer, own, replica_of


@pytest.fixture
def pair() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary and a replica, which waits for a standby of its own once it is promoted."""
    with own() as primary, replica_of(primary, synchronous_standby_names="*") as replica:
        yield primary, replica


def either(pair: tuple[PostgresServer, PostgresServer]) -> str:
    """Return an address that leads to the server that takes writes."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in pair)
    return f"postgresql://{SUPERUSER}:{PASSWORD}@{hosts}/postgres?target_session_attrs=read-write"


def test_a_promoted_server_is_read_while_its_writes_wait_for_a_standby(
    pair: tuple[PostgresServer, PostgresServer], caplog: pytest.LogCaptureFixture
) -> None:
    """The new epoch does not wait, so that opening and reading do not; an append does, and is acknowledged later."""
    primary, replica = pair
    caplog.set_level(logging.INFO, "eventfold")
    with ef.Store(either(pair), patience=30.0) as store:
        store.append(deposit("a-1", 5))
        assert soon(lambda: sql(replica.url(), "SELECT 1 FROM eventfold.event"))
        primary.kill()
        replica.promote()
        found: list[object] = []
        reading = threading.Thread(target=lambda: found.append(store.state(Account("a-1")).balance), daemon=True)
        reading.start()
        reading.join(20)
        assert found == [5], "reading waits for a standby"
        assert store.engine.epoch == 2
        assert "Every event that this process knew is in its log" in caplog.text
        appending = threading.Thread(target=lambda: found.append(store.append(deposit("a-1", 1)).first), daemon=True)
        appending.start()
        assert soon(lambda: sql(replica.url(), "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"))
        assert found == [5]
        with replica_of(replica):
            appending.join(60)
            assert found == [5, 2]


def test_a_process_logs_that_a_failover_lost_what_it_had_seen(
    pair: tuple[PostgresServer, PostgresServer], caplog: pytest.LogCaptureFixture
) -> None:
    """The replica was cut off before the last append: the log of the process names the position."""
    primary, replica = pair
    with ef.Store(either(pair), patience=30.0) as store:
        store.append(deposit("a-1", 5))
        assert soon(lambda: sql(replica.url(), "SELECT 1 FROM eventfold.event"))
        sql(replica.url(), "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
        assert soon(lambda: not sql(replica.url(), "SELECT 1 FROM pg_stat_wal_receiver"))
        store.append(deposit("a-1", 6))
        primary.kill()
        replica.promote()
        assert store.state(Account("a-1")).balance == 5
        (warned,) = [record.getMessage() for record in caplog.records if "is lost" in record.getMessage()]
        assert "position 2" in warned
        assert "epoch 2" in warned
