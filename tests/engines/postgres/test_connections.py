"""The number of connections of a store to its server, under any load; no thread waits for its own connection."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import psycopg
import pytest

import eventfold as ef
from eventfold.errors import InvalidFilter
from tests.support.servers import pgbouncer
from tests.support.servers.postgres import PostgresServer

WRITERS, LISTENER = 2, 1
DEADLINE_S = 60.0


class Paid(ef.Event, type="connections-paid"):
    """A bill was paid."""

    bill: ef.Tag


class Row(ef.Projection, name="connections_row"):
    """The number of payments of a bill."""

    bill: str
    n: int = 0

    def evolve(self, event: Paid) -> None:
        """Add one."""
        self.n += 1


def others(count: int) -> list[Any]:
    """Return read models with the same rows under other names."""
    kind: Any = type(ef.Projection)
    return [
        kind(f"Row{number}", (Row,), {"__module__": __name__, "__annotations__": {}, "evolve": evolve(number)})
        for number in range(count)
    ]


def evolve(number: int) -> Callable[[Any, Paid], None]:
    """Return a handler function of its own."""

    def evolve(self: Any, event: Paid) -> None:
        self.n += 1

    evolve.__annotations__ = {"event": Paid, "return": None}
    return evolve


@contextmanager
def watched(server: PostgresServer, database: str) -> Iterator[Callable[[], int]]:
    """A function that returns the most simultaneous connections so far; counted every few milliseconds."""
    found, stop = [0], threading.Event()
    sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"

    def look() -> None:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            while not stop.wait(0.003):
                row = connection.execute(sql, (database,)).fetchone()
                found[0] = max(found[0], row[0] if row else 0)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: found[0]
    finally:
        stop.set()
        thread.join()


def at_once(count: int, work: Callable[[], object]) -> None:
    """Call it in so many threads, and raise what any of them raised."""
    errors: list[BaseException] = []

    def call() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 (raised again in the test's thread)
            errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


def test_threads_and_runners_share_the_connections_that_pool_allows(server: PostgresServer, database: str) -> None:
    """Fifty threads read rows and five read models run twice: pool=4 means four, and the writer and the listener."""
    with (
        watched(server, database) as most,
        ef.Store(server.url(database=database), pool=4) as store,
    ):
        models = [Row, *others(4)]
        for _ in range(2):
            with store.run(*models):
                for number in range(5):
                    store.append(Paid(f"o{number}"))
                at_once(50, lambda: [store.rows(Row, bill="o1"), store.head()])
                for model in models:
                    store.wait(model)
        assert [(row.bill, row.n) for row in store.rows(Row)] == [(f"o{n}", 2) for n in range(5)]
        assert most() <= 4 + WRITERS + LISTENER


def test_threads_that_end_leave_no_connection(server: PostgresServer, database: str) -> None:
    """Development servers have a thread for each request, one after the other."""
    with watched(server, database) as most, ef.Store(server.url(database=database)) as store:
        store.append(Paid("a"))
        store.project(Row)
        for _ in range(30):
            at_once(1, lambda: store.rows(Row, bill="a"))
        assert most() <= 3


def test_both_engines_of_an_async_store_share_what_pool_allows(server: PostgresServer, database: str) -> None:
    """One engine is on the loop, one serves the threads that update read models."""

    async def use() -> None:
        async with ef.AsyncStore(server.url(database=database), pool=4) as store, store.run(Row):
            for number in range(3):
                await store.append(Paid(f"o{number}"))
            reads = [store.rows(Row) for _ in range(20)] + [store.count() for _ in range(20)]
            await asyncio.gather(*reads)
            await store.wait(Row)

    with watched(server, database) as most:
        asyncio.run(use())
        assert most() <= 4 + 2 * (WRITERS + LISTENER)


def test_another_target_has_a_bounded_number_of_connections(server: PostgresServer, tmp_path: Path) -> None:
    """With psycopg and with SQLAlchemy fifty threads do not use fifty connections."""
    for scheme in ("postgresql", "postgresql+psycopg"):
        name = f"d{uuid4().hex[:12]}"
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        target = server.url(database=name).replace("postgresql", scheme, 1)
        with watched(server, name) as most, ef.Store(str(tmp_path / f"{name}.db"), target=target) as store:
            store.append(Paid("a"))
            with store.run(Row):
                store.wait(Row)
                at_once(50, lambda store=store: store.rows(Row, bill="a"))
            assert 1 <= most() <= 8, scheme


class Asking(ef.SqlProjection, name="connections_asking", version=1):
    """A handler that reads the store inside its transaction."""

    tables = {"asked": "position BIGINT PRIMARY KEY, n BIGINT"}  # noqa: RUF012
    store: ef.Store

    def paid(self, event: ef.Recorded[Paid], tx: ef.Transaction) -> None:
        """Update another read model, and read the log, rows and progress."""
        self.store.project(Row)
        n = self.store.count() + len(self.store.rows(Row)) + len(self.store.projections.checkpoints(Row))
        tx.execute("INSERT INTO {asked} VALUES (%s, %s)", (event.position, n))


def test_a_handler_may_ask_the_store_over_its_only_connection(server: PostgresServer, database: str) -> None:
    """A thread never waits for a connection while it has one itself."""
    with ef.Store(server.url(database=database), pool=1, patience=1) as store:
        Asking.store = store
        store.append(Paid("a"), Paid("b"))
        began = monotonic()
        store.project(Asking)
        assert [row[1] for row in store.projections.target(Asking).dump("asked", 1)] == [5, 5]
        assert monotonic() - began < DEADLINE_S / 2


class Total(ef.State):
    """The number of payments of a bill."""

    bill: ef.Tag
    n: int = 0

    def evolve(self, event: Paid) -> None:
        """Add one."""
        self.n += 1


def pay(total: Total) -> list[Paid]:
    """Pay once more."""
    return [Paid(total.bill)]


def test_decisions_in_transactions_of_the_users_need_one_connection(server: PostgresServer, database: str) -> None:
    """pool=1 is enough for any number of threads that each have a transaction of their own."""
    url = server.url(database=database)
    with ef.Store(url, pool=1) as store:
        store.append(Paid("seed"))
        ready = threading.Barrier(6)

        def one() -> None:
            with psycopg.connect(url) as connection:
                connection.execute("SELECT 1")  # begins its transaction
                ready.wait(DEADLINE_S)
                store.in_transaction(connection).decide(pay, Total(f"t{threading.get_ident()}"))

        at_once(6, one)
        assert store.count() == 7


@pytest.mark.skipif(pgbouncer.PROGRAM is None, reason="PgBouncer is not installed")
def test_no_setting_is_left_in_a_session_that_others_use_next(server: PostgresServer, database: str) -> None:
    """Another program behind the same pooler finds its own tables, and unchanged settings."""
    with pgbouncer.before(server, servers=2) as port:
        url = server.url(database=database).replace(f":{server.port}/", f":{port}/")
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as theirs:
            shown = ["search_path", "TimeZone", "enable_seqscan", "plan_cache_mode", "lock_timeout"]
            ask = "SELECT " + ", ".join(f"current_setting('{each}')" for each in shown)
            before = theirs.execute(ask.encode()).fetchone()
            theirs.execute("CREATE TABLE public.connections_row (mine int)")
            with ef.Store(url, schema="log") as store, store.run(Row):
                for number in range(20):
                    receipt = store.append(Paid(f"o{number}"))
                    assert len(store.rows(Row, wait=receipt.last)) == number + 1
                    assert theirs.execute(ask.encode()).fetchone() == before
                    assert theirs.execute("SELECT count(*) FROM connections_row").fetchone() == (0,)


class At(ef.Event, type="connections-at"):
    """Something happened at a moment."""

    at: datetime


class Hour(ef.Projection, name="connections_hour", version=1):
    """What happened at a moment, and the last moment before noon."""

    at: datetime
    last: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    n: int = 0

    def evolve(self, event: At) -> None:
        """Add one."""
        self.last, self.n = event.at, self.n + 1


def test_moments_do_not_depend_on_the_time_zone_of_a_session(server: PostgresServer, database: str) -> None:
    """No time zone is set outside transactions: moments as keys, in filters and in rows are the same in any zone."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {database} SET timezone = 'Asia/Kathmandu'".encode())
    noon = datetime(2026, 6, 1, 12, tzinfo=UTC)
    with ef.Store(server.url(database=database)) as store:
        for _ in range(2):
            store.append(At(noon), At(noon.astimezone(timezone(timedelta(hours=-7)))))
            store.project(Hour)
        (row,) = store.rows(Hour)
        assert (row.at, row.last, row.n) == (noon, noon, 4)
        assert (row.at.utcoffset(), row.last.utcoffset()) == (timedelta(0), timedelta(0))
        there = noon.astimezone(timezone(timedelta(hours=-7)))
        assert store.rows(Hour, at=noon) == store.rows(Hour, last=noon) == store.rows(Hour, last=there) == [row]
        with pytest.raises(InvalidFilter, match="no time zone"):
            store.rows(Hour, last=noon.replace(tzinfo=None))


def test_followers_one_after_the_other_use_one_connection(server: PostgresServer, database: str) -> None:
    """The listener's connection stays open for a moment after the last follower, and is closed then."""
    with watched(server, database) as most, ef.Store(server.url(database=database)) as store:
        store.append(Paid("a"))
        for _ in range(20):
            with store.follow() as follower:
                next(iter(follower))
        assert most() <= 2 + LISTENER
        ends = monotonic() + DEADLINE_S
        while store.stats()["listener"] != "idle" and monotonic() < ends:
            sleep(0.01)
        assert store.stats()["listener"] == "idle"


def test_a_connection_without_a_free_descriptor_is_not_blamed_on_the_server(
    server: PostgresServer, database: str
) -> None:
    """The driver only reports that the connection is bad."""
    pytest.importorskip("resource")
    command = [sys.executable, "-m", "tests.without_descriptors", server.url(database=database)]
    ran = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=DEADLINE_S)
    assert ran.returncode == 0, ran.stderr
    assert "no file descriptor left" in ran.stdout
