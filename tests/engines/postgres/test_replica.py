"""Read replicas: reads and followers use them, never see a gap, and wait or use the primary when it is behind."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest

import eventfold as ef
from eventfold.engines.postgres import listen
from eventfold.errors import AppendConflict, StoreReadOnly, StoreUnavailable
from eventfold.ports.messages import Span
from eventfold.testing.conformance.events import Account, deposit, withdraw
from tests.engines.postgres.conftest import Open
from tests.engines.postgres.given import EVERYTHING, event, request, soon, sql, tagged, together
from tests.support.servers.postgres import PostgresServer, own, replica_of


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary and its streaming replica."""
    with own() as primary, replica_of(primary) as replica:
        yield primary, replica


@pytest.fixture
def urls(pair: tuple[PostgresServer, PostgresServer]) -> tuple[str, str]:
    """Their addresses; the replica replays again, whatever the last test did."""
    primary, replica = pair
    sql(replica.url(), "SELECT pg_wal_replay_resume()")
    return primary.url(), replica.url()


def pause(replica: str) -> None:
    """Stop the replica's replay."""
    sql(replica, "SELECT pg_wal_replay_pause()")
    assert soon(lambda: sql(replica, "SELECT pg_get_wal_replay_pause_state()") == [("paused",)])


def resume(replica: str) -> None:
    """Let the replica catch up."""
    sql(replica, "SELECT pg_wal_replay_resume()")


def caught_up(replica: str, schema: str, head: int) -> bool:
    """Return whether the replica has everything."""

    def there() -> bool:
        with contextlib.suppress(psycopg.errors.UndefinedTable):
            return sql(replica, f"SELECT coalesce(max(position), 0) FROM {schema}.event") == [(head,)]
        return False

    return soon(there)


def test_reads_go_to_the_replica(urls: tuple[str, str], schema: str, opening: Open, mode: str) -> None:
    """Plain reads use the replica; appends, conditions and idempotency use the primary."""
    primary, replica = urls
    opening(primary).append(event("Taken", "seat:1"))
    assert caught_up(replica, schema, 1)
    engine = opening(primary, mode, read_url=replica, replica_wait=0.0)
    pause(replica)
    mine = request(event("Taken", "seat:2"), unless=tagged("seat:2"), key="k-2")
    engine.append_many([mine])
    assert engine.count(EVERYTHING) == engine.head().position == 1, "the replica does not have it yet"
    assert engine.append_many([mine])[0].repeated, "repetition is judged on the primary"
    assert engine.receipt_of("k-2").first == 2
    conflict = engine.append_many([request(event("Taken", "seat:2"), unless=tagged("seat:2"))])[0]
    assert isinstance(conflict, AppendConflict)
    assert engine.head().position == 2, "a refused writer must see the event that caused the conflict"
    resume(replica)


def test_own_writes_can_be_read_with_read_your_writes(urls: tuple[str, str], schema: str, opening: Open) -> None:
    """With read_your_writes a read waits for the replica, and uses the primary if that takes too long."""
    primary, replica = urls
    opening(primary).append(event())
    assert caught_up(replica, schema, 1)
    engine = opening(primary, read_url=replica, read_your_writes=True, replica_wait=0.3)
    pause(replica)
    engine.append(event())
    began = time.monotonic()
    assert len(engine.everything()) == 2
    assert time.monotonic() - began >= 0.3, "it waited first"
    later = threading.Timer(0.1, resume, [replica])
    later.start()
    patient = opening(primary, read_url=replica, read_your_writes=True, replica_wait=60)
    patient.append(event())
    assert len(patient.everything()) == 3
    later.join()


def test_a_page_after_a_position_is_never_older_than_that_position(
    urls: tuple[str, str], schema: str, opening: Open
) -> None:
    """A read after a position that the replica does not have yet uses the primary."""
    primary, replica = urls
    writer = opening(primary)
    writer.append(event())
    assert caught_up(replica, schema, 1)
    engine = opening(primary, read_url=replica, replica_wait=0.0)
    pause(replica)
    for _ in range(3):
        writer.append(event())
    page = engine.read(EVERYTHING, Span(after=2))
    assert ([stored.position for stored in page.events], page.scanned) == ([3, 4], 4)
    assert engine.event_id(4) == writer.event_id(4)
    assert engine.read(EVERYTHING, Span(until=4)).scanned == 4, "a state that is loaded up to there has all of it"
    assert engine.boundary(3) == 3
    resume(replica)


def test_followers_of_a_replica_skip_nothing(urls: tuple[str, str], schema: str, opening: Open) -> None:
    """Under load, while the replica stops and goes on, every position is seen once, in order."""
    primary, replica = urls
    opening(primary).append(event())
    assert caught_up(replica, schema, 1)
    followed: list[int] = []
    with ef.Store(primary, schema=schema, read_url=replica) as store:
        follower = store.follow(raw=True)
        following = threading.Thread(
            target=lambda: followed.extend(recorded.position for recorded in follower), daemon=True
        )
        following.start()
        writers = [opening(primary) for _ in range(4)]
        jobs = [lambda w=w: [w.append(event()) for _ in range(100)] for w in writers]

        def stop_and_go() -> None:
            for _ in range(3):
                pause(replica)
                time.sleep(0.1)
                resume(replica)
                time.sleep(0.1)

        assert together(stop_and_go, *jobs) == []
        assert soon(lambda: len(followed) >= 401)
        follower.close()
        following.join(60)
    assert followed == list(range(1, 402))


def test_a_follower_is_woken_when_the_replica_has_it(
    urls: tuple[str, str], schema: str, opening: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The primary announces the commit; the follower is notified once the replica has it, before the next poll."""
    monkeypatch.setattr(listen, "HEAD_CHECK_INTERVAL_S", 120.0)
    primary, replica = urls
    writer = opening(primary)
    writer.append(event())
    assert caught_up(replica, schema, 1)
    with ef.Store(primary, schema=schema, read_url=replica, replica_wait=0.0) as store:
        follower = store.follow(raw=True)
        arrived = iter(follower)
        assert next(arrived).position == 1
        assert soon(lambda: store.stats()["listener"] == "listening")
        pause(replica)
        writer.append(event())
        threading.Timer(0.2, resume, [replica]).start()
        began = time.monotonic()
        assert next(arrived).position == 2
        assert time.monotonic() - began < 60
        follower.close()


def test_decisions_over_a_replica_are_right(urls: tuple[str, str], schema: str, opening: Open) -> None:
    """Stale states are refused by their condition and loaded again; no withdrawal is made twice."""
    primary, replica = urls
    with ef.Store(primary, schema=schema) as plain:
        plain.append(deposit("a-1", 10))
        assert caught_up(replica, schema, 1)
        with ef.Store(primary, schema=schema, read_url=replica, replica_wait=0.0) as store:
            pause(replica)
            plain.decide(withdraw, Account("a-1"), 4)
            done = store.decide(withdraw, Account("a-1"), 6)
            assert (done.attempts, done.state(Account("a-1")).balance) == (2, 0)
            resume(replica)


def test_a_replica_alone_takes_no_writes(urls: tuple[str, str], schema: str, opening: Open) -> None:
    """Opened by itself it is read-only, and its errors say so."""
    primary, replica = urls
    opening(primary).append(event())
    assert caught_up(replica, schema, 1)
    engine = opening(replica, create=False)
    assert len(engine.everything()) == 1
    assert engine.stats()["in_recovery"] is True
    with pytest.raises(StoreReadOnly):
        engine.append(event())
    with pytest.raises(StoreReadOnly, match="takes no writes"):
        opening(replica, schema=f"{schema}x")


def test_a_server_of_another_store_is_no_replica(urls: tuple[str, str], url: str, schema: str, opening: Open) -> None:
    """read_url must lead to the same store."""
    opening(url)
    with pytest.raises(StoreUnavailable, match="does not hold this store"):
        opening(urls[0], read_url=url)


def test_a_failover_begins_a_new_epoch(schema: str, opening: Open) -> None:
    """A promoted replica may lack what the old primary acknowledged: its first opening begins a new epoch, once."""
    with own() as primary, replica_of(primary) as replica:
        engine = opening(primary.url())
        engine.append(event())
        assert (engine.inner.epoch, caught_up(replica.url(), schema, 1)) == (1, True)
        primary.kill()
        replica.promote()
        for _ in range(2):
            promoted = opening(replica.url())
            assert (promoted.inner.store_id, promoted.inner.epoch) == (engine.inner.store_id, 2)
        assert promoted.append(event()).epoch == 2
