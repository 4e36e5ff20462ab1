"""Followers wake by notification, once for each combined commit; without notifications they poll."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg
import pytest

from eventfold.engines.postgres import listen
from eventfold.engines.postgres.options import listener_lock_arguments, notify_channel
from tests.engines.postgres.conftest import Open
from tests.engines.postgres.given import Opened, event, request, soon, sql
from tests.support.servers.postgres import PostgresServer

LISTENER_LOCK = listener_lock_arguments("").partition(",")[0]
LISTENERS = (
    f"FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND classid = {LISTENER_LOCK}"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


@pytest.fixture
def url(server: PostgresServer, database: str) -> str:
    """The address of a database in which no other process listens."""
    return server.url(database=database)


class CommitCounter:
    """Counts how often the engine has notified."""

    def __init__(self, engine: Opened) -> None:
        self.count = 0
        self.stop: Callable[[], None] = engine.inner.watch(self.notify)

    def notify(self) -> None:
        """Count one notification, from any thread."""
        self.count += 1


def listening(engine: Opened) -> bool:
    """Return whether the engine's listener has started."""
    return soon(lambda: engine.stats()["listener"] == "listening")


def test_a_commit_notifies(opening: Open, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower is notified soon after a commit, in a few ms on a quiet machine, and before the next poll."""
    monkeypatch.setattr(listen, "HEAD_CHECK_INTERVAL_S", 60.0)
    engine, writer = opening(mode=mode), opening()
    counter = CommitCounter(engine)
    assert listening(engine)
    writer.append(event())
    assert soon(lambda: counter.count >= 2)
    waits: list[float] = []
    for _ in range(20):
        before, began = counter.count, time.perf_counter()
        writer.append(event())
        assert soon(lambda before=before: counter.count > before)
        waits.append(time.perf_counter() - began)
    assert sorted(waits)[10] < 1
    counter.stop()


def test_one_notification_for_each_commit(url: str, schema: str, engine: Opened) -> None:
    """Any number of appends may share a commit; there is none if nothing was written or no listener has the lock."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'LISTEN "{notify_channel(schema)}"'.encode())
        engine.append_many([request(event()) for _ in range(50)])
        assert list(connection.notifies(timeout=0.3)) == [], "no listener holds the shared lock"
        counter = CommitCounter(engine)
        assert listening(engine)
        engine.append_many([request(event()) for _ in range(50)])
        repeated = request(event())
        engine.append_many([repeated])
        engine.append_many([repeated])
        heard = [int(n.payload) for n in connection.notifies(timeout=60, stop_after=2)]
        heard += [int(n.payload) for n in connection.notifies(timeout=0.5)]
        counter.stop()
    assert heard == [100, 101]


def test_no_commit_stays_unannounced_when_the_listener_dies(url: str, opening: Open) -> None:
    """The listener's connection ends repeatedly: it listens again, and notifies in case it missed a commit."""
    engine, writer = opening(), opening()
    counter = CommitCounter(engine)
    for _ in range(3):
        assert listening(engine)
        sql(url, f"SELECT pg_terminate_backend(pid) {LISTENERS}")
        before = counter.count
        writer.append(event())
        assert soon(lambda before=before: counter.count > before)
    counter.stop()


def test_an_event_is_found_without_its_notification(
    url: str, schema: str, opening: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a notification is lost, the listener's own poll finds the event."""
    monkeypatch.setattr(listen, "HEAD_CHECK_INTERVAL_S", 0.2)
    engine = opening()
    counter = CommitCounter(engine)
    assert listening(engine)
    sql(
        url,
        f'INSERT INTO {schema}.event (position, time, version, "offset", size, id, type, codec, tags, data, checksum)'
        " VALUES (1, 1, 1, 0, 1, gen_random_uuid(), 'T', 'json', '', '{}', 0)",
    )
    assert soon(lambda: counter.count >= 2)
    counter.stop()


def test_a_notification_from_another_program_is_harmless(url: str, schema: str, engine: Opened) -> None:
    """A notification from another program only causes a needless read of the head."""
    counter = CommitCounter(engine)
    assert listening(engine)
    sql(url, f"SELECT pg_notify('{notify_channel(schema)}', 'hello')")
    assert soon(lambda: counter.count >= 2)
    before = counter.count
    engine.append(event())
    assert soon(lambda: counter.count > before)
    counter.stop()


def test_watching_costs_one_connection_and_ends(url: str, schema: str, engine: Opened) -> None:
    """All followers of one engine share the connection; when the last stops, it is released."""
    mine = f"SELECT count(*) {LISTENERS}"
    counters = [CommitCounter(engine) for _ in range(5)]
    assert listening(engine)
    assert soon(lambda: sql(url, mine) == [(1,)])
    for counter in counters:
        counter.stop()
    assert soon(lambda: sql(url, mine) == [(0,)])
    again = CommitCounter(engine)
    assert listening(engine)
    engine.append(event())
    assert soon(lambda: again.count >= 2)
    again.stop()


def test_without_notifications_the_engine_polls(opening: Open) -> None:
    """Behind a pooler the engine polls every `poll` seconds."""
    engine, writer = opening(pooler=True, poll=0.02), opening()
    counter = CommitCounter(engine)
    assert soon(lambda: engine.stats()["listener"] == "polling")
    for _ in range(3):
        before = counter.count
        writer.append(event())
        assert soon(lambda before=before: counter.count > before)
    counter.stop()
