"""A PostgreSQL store loses history under a living process: by a failover, or a restore into its own tables."""

# pyright: basic

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import eventfold as ef
from eventfold.core.query import ConditionClause, Query
from eventfold.errors import AppendConflict, CursorMismatch, StoreDamaged, TargetUnavailable
from eventfold.ports.messages import AppendRequest
from eventfold.store import Store
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from eventfold.testing.conformance.events import Account, Deposited, Withdrawn, about, deposit, withdraw
from tests.engines.postgres.given import soon, sql
from tests.support.servers.postgres import PostgresServer, own, replica_of


class Balance(ef.Projection, name="epoch_balance"):
    """The balance of each account."""

    account: str
    balance: int = 0

    def evolve(self, event: Deposited | Withdrawn) -> None:
        """Add one movement."""
        self.balance += int(event.amount) if isinstance(event, Deposited) else -int(event.amount)


def go_back(url: str, schema: str, position: int, *, epoch: bool) -> None:
    """Do what a restore into the living store's tables does: cut the log at a position, with a new epoch or not."""
    tables = ("event", "tag")
    sql(
        url,
        *[f"ALTER TABLE {schema}.{table} DISABLE TRIGGER USER" for table in tables],
        *[f"DELETE FROM {schema}.{table} WHERE position > {position}" for table in tables],
        f"SELECT {schema}.begin_epoch()" if epoch else "SELECT 1",
        *[f"ALTER TABLE {schema}.{table} ENABLE TRIGGER USER" for table in tables],
    )


@pytest.fixture(params=["sync", "async"])
def engine_under_test(request: pytest.FixtureRequest, url: str, schema: str) -> Iterator[EngineUnderTest]:
    """The store under test, in both modes."""
    under_test = EngineUnderTest(url, request.param, schema=schema)
    yield under_test
    under_test.close()


def test_a_restore_into_its_own_tables_is_noticed_by_living_processes(
    engine_under_test: EngineUnderTest, url: str, schema: str
) -> None:
    """No connection is lost: each read and each append checks the epoch."""
    store = engine_under_test.open()
    store.append(deposit("a-1", 10))
    follower = store.follow()
    pages = follower.pages(timeout=0)
    for _ in range(4):
        store.decide(withdraw, Account("a-1"), 1)
    assert len(next(pages)) == 5
    assert store.state(Account("a-1")).balance == 6
    go_back(url, schema, 2, epoch=True)
    done = store.decide(withdraw, Account("a-1"), 1)
    assert (done.state(Account("a-1")).balance, done.positions, done.receipt and done.receipt.epoch) == (
        8,
        range(3, 4),
        2,
    )
    go_back(url, schema, 2, epoch=True)
    engine_under_test.rival().append(*[deposit("a-2", 1)] * 3)
    assert store.state(Account("a-1")).balance == 9
    with pytest.raises(CursorMismatch):
        next(pages)
    go_back(url, schema, 1, epoch=True)
    assert store.append(deposit("a-3", 1)).epoch == 4


def test_a_condition_is_refused_by_the_engine_that_has_not_noticed(
    engine_under_test: EngineUnderTest, url: str, schema: str
) -> None:
    """The append itself checks the epoch; one without a condition is written, and its receipt is of the new epoch."""
    store = engine_under_test.open()
    port = engine_under_test.port(store)
    store.append(deposit("a-1", 10))
    go_back(url, schema, 0, epoch=True)
    requests = [
        AppendRequest((store.registry.encode(deposit("a-1", 1)),), (ConditionClause(about("a-1"), 0),), None, 1),
        AppendRequest((store.registry.encode(deposit("a-2", 1)),)),
    ]
    refused, written = port.append_many(requests)
    assert isinstance(refused, AppendConflict)
    assert (written.first, written.epoch, store.engine.epoch) == (1, 2, 2)


def test_a_joined_decision_is_made_over_the_new_history(url: str, schema: str) -> None:
    """Nothing is staged that was decided in an older epoch than the transaction finds."""
    with Store(url, schema=schema) as store, psycopg.connect(url) as connection:
        store.append(deposit("a-1", 10), deposit("a-1", 1))
        assert store.state(Account("a-1")).balance == 11
        go_back(url, schema, 1, epoch=True)
        with connection.transaction():
            done = store.in_transaction(connection).decide(withdraw, Account("a-1"), 1)
        assert done.state(Account("a-1")).balance == 9
        confirmed = store.confirm(done.staged)
        assert confirmed is not None
        assert (confirmed.first, confirmed.epoch) == (2, 2)


def test_a_store_that_lost_events_within_its_epoch_is_refused(
    engine_under_test: EngineUnderTest, url: str, schema: str
) -> None:
    """It is noticed when a connection is made again; with a new epoch the store works again, as the message says."""
    store = engine_under_test.open()
    store.append(deposit("a-1", 10), deposit("a-1", 1))
    go_back(url, schema, 1, epoch=False)
    # Waits, up to the ms given, until each has ended: a connection counts as dead by the server's last message.
    ends = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    sql(url, f"{ends} AND query LIKE '%{schema}%'")
    with pytest.raises(StoreDamaged, match="restored URL") as refused:
        store.append(deposit("a-1", 1))
    assert (refused.value.fields["position"], refused.value.fields["epoch"]) == (2, 1)
    go_back(url, schema, 1, epoch=True)
    assert store.append(deposit("a-1", 1)).first == 2
    assert store.state(Account("a-1")).balance == 11


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary and its streaming replica."""
    with own() as primary, replica_of(primary) as replica:
        yield primary, replica


def either(pair: tuple[PostgresServer, PostgresServer]) -> str:
    """Return an address that leads to the server that takes writes."""
    primary, replica = pair
    where = f"127.0.0.1:{primary.port},127.0.0.1:{replica.port}"
    return f"postgresql://eventfold:not-a-secret@{where}/postgres?target_session_attrs=read-write"


def lose_the_tail(pair: tuple[PostgresServer, PostgresServer], schema: str, acknowledge: Callable[[], None]) -> None:
    """Fail over to a replica that lacks what is acknowledged here."""
    primary, replica = pair
    head = sql(primary.url(), f"SELECT max(position) FROM {schema}.event")
    assert soon(lambda: sql(replica.url(), f"SELECT max(position) FROM {schema}.event") == head)
    sql(replica.url(), "ALTER SYSTEM SET primary_conninfo = ''")
    sql(replica.url(), "SELECT pg_reload_conf()")
    assert soon(lambda: not sql(replica.url(), "SELECT 1 FROM pg_stat_wal_receiver"))
    acknowledge()
    primary.kill()
    replica.promote()


def test_after_a_failover_no_lost_event_is_returned_or_decided_upon(
    pair: tuple[PostgresServer, PostgresServer], schema: str
) -> None:
    """A process survives it with states, decisions, rows, a runner, and followers with and without a name."""
    url = either(pair)
    places = [EngineUnderTest(url, mode, schema=schema, patience=30) for mode in ("sync", "async")]  # pyright: ignore[reportArgumentType]
    stores = [engine_under_test.open() for engine_under_test in places]
    stores[0].append(deposit("a-1", 11))
    stores[0].decide(withdraw, Account("a-1"), 1)
    stores[0].project(Balance)
    followers = [store.follow(about("a-1")) for store in stores]
    pages = [follower.pages(timeout=0) for follower in followers]
    for page in pages:
        assert len(next(page)) == 2
    named = stores[0].follow(about("a-1"), name="mails")
    mails = named.pages(timeout=0)

    def acknowledge() -> None:
        for store in stores:
            for _ in range(2):
                store.decide(withdraw, Account("a-1"), 1)
        for page in pages:
            assert len(next(page)) == 4
        assert len(next(mails)) == 6
        named.acknowledge()
        assert stores[0].state(Account("a-1")).balance == 6

    lose_the_tail(pair, schema, acknowledge)
    with Store(url, schema=schema) as other:
        assert (other.head(), other.engine.epoch) == (2, 2)
        other.append(*[deposit("a-2", 1)] * 8)
    assert [store.state(Account("a-1")).balance for store in stores] == [10, 10]
    found: list[Any] = []
    together([lambda s=s: found.append(s.decide(withdraw, Account("a-1"), 1)) for s in stores])
    assert sorted(done.state(Account("a-1")).balance for done in found) == [8, 9]
    assert {done.receipt.epoch for done in found} == {2}
    for page in [*pages, mails]:
        with pytest.raises((CursorMismatch, ef.EventfoldError)) as refused:
            next(page)
        assert refused.value.code in ("cursor-mismatch", "lease-lost")
    with contextlib.suppress(TargetUnavailable):  # its connection was cut, too, and is made again at the next call
        stores[0].project(Balance)
    stores[0].project(Balance)
    assert [(r.account, r.balance) for r in stores[0].rows(Balance, order="account")] == [("a-1", 8), ("a-2", 8)]
    assert [len(list(store.read(Query.of(tags="account:a-1")))) for store in stores] == [4, 4]
    for follower in [*followers, named]:
        follower.close()
    for engine_under_test in places:
        engine_under_test.close()


def together(calls: list[Callable[[], object]]) -> None:
    """Run all calls at once."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
