"""Connections that break at each step, and servers that die: the error says whether the outcome is unknown.

Every acknowledged event exists afterwards; every unconfirmed append can be repeated and is written once.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import eventfold as ef
from eventfold.errors import AppendUnconfirmed, EventfoldError, StoreUnavailable
from eventfold.testing.conformance.events import deposit
from tests.engines.postgres.conftest import Open
from tests.engines.postgres.given import Opened, event, request, soon, sql, tagged
from tests.support.servers.postgres import PostgresServer, own
from tests.support.servers.proxy import Proxy


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[Proxy]:
    """A proxy between the clients and the server."""
    between = Proxy(server.port)
    yield between
    between.close()


def through(server: PostgresServer, proxy: Proxy) -> str:
    """Return the server's address by way of the proxy."""
    return server.url().replace(f":{server.port}/", f":{proxy.port}/")


@pytest.mark.parametrize(
    "word",
    [b"pg_backend_pid", b"set_config", b"attach()", b"c.relkind IN", b"CREATE SCHEMA", b"INSERT INTO", b"COMMIT"],
)
@pytest.mark.parametrize("lose", ["lose_answer", "lose_request"])
def test_a_connection_lost_while_opening_leaves_a_store_or_none(
    server: PostgresServer, proxy: Proxy, schema: str, mode: str, word: bytes, lose: str
) -> None:
    """At each step of opening and creating, an error is raised and no half-created store is left; a retry works."""
    getattr(proxy, lose)(word)
    engine = Opened(through(server, proxy), mode, schema=schema)
    with pytest.raises(StoreUnavailable):
        engine.open()
    assert proxy.lost.is_set()
    engine.end()
    again = Opened(through(server, proxy), mode, schema=schema)
    again.open()
    assert again.append(event()).first == 1
    again.end()


def test_a_lost_answer_is_unconfirmed_and_its_repetition_written_once(
    server: PostgresServer, proxy: Proxy, opening: Open, mode: str
) -> None:
    """COMMIT succeeded, its answer was lost: AppendUnconfirmed; the repetition finds what was written."""
    engine = opening(through(server, proxy), mode)
    engine.append(event())
    mine = request(event("Taken", "seat:1"), event("Paid", "seat:1"), unless=tagged("seat:1"))
    proxy.lose_answer(b"Taken")
    with pytest.raises(AppendUnconfirmed) as caught:
        engine.append_many([mine])
    assert proxy.lost.is_set()
    assert "repeat" in caught.value.remedy
    assert engine.head().position == 3, "it was written"
    repeated = engine.append_many([mine])[0]
    assert (repeated.first, repeated.last, repeated.repeated) == (2, 3, True)
    assert engine.head().position == 3


def test_a_lost_request_is_unconfirmed_and_its_repetition_written(
    server: PostgresServer, proxy: Proxy, opening: Open, mode: str
) -> None:
    """The request never reached the server; the client cannot know that, so the append is unconfirmed too."""
    engine = opening(through(server, proxy), mode)
    mine = request(event("Taken", "seat:1"), unless=tagged("seat:1"))
    proxy.lose_request(b"Taken")
    with pytest.raises(AppendUnconfirmed):
        engine.append_many([mine])
    assert engine.head().position == 0
    assert engine.append_many([mine])[0].repeated is False


def test_a_store_repeats_by_itself(server: PostgresServer, proxy: Proxy, schema: str) -> None:
    """`append` and `decide` repeat until the outcome is known: the caller sees no error."""
    with ef.Store(through(server, proxy), schema=schema) as store:
        store.append(deposit("a-1", 5))
        for lose in (proxy.lose_answer, proxy.lose_request):
            lose(b"conformance.deposited")
            receipt = store.append(deposit("a-1", 7), key=f"once-{lose.__name__}")
            assert receipt.positions == range(store.head(), store.head() + 1)
        assert store.head() == 3


def test_a_connection_lost_before_anything_was_sent_is_not_noticed(
    server: PostgresServer, database: str, opening: Open, mode: str
) -> None:
    """An idle connection that the server has closed is replaced before it is used: no error, nothing to repeat."""
    url = server.url(database=database)
    engine = opening(url, mode=mode)
    for turn in range(1, 4):
        end_all(url)
        assert engine.append(event()).first == turn
        end_all(url)
        assert engine.head().position == turn


def end_all(url: str) -> None:
    """Terminate every other client's connection to this database, and wait until these connections are closed."""
    others = (
        "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        " AND datname = current_database()"
    )
    ended = [pid for pid, _ in sql(url, f"SELECT pid, pg_terminate_backend(pid) FROM ({others}) x")]
    assert soon(lambda: not sql(url, others))
    # A server process closes its end of the connection after it has left the list, when it exits.
    assert soon(lambda: not any(Path(f"/proc/{pid}").exists() for pid in ended))


def test_a_writer_ended_while_it_waits_has_not_written(url: str, schema: str, opening: Open, mode: str) -> None:
    """The connection is ended inside the statement: the append is unconfirmed; the repetition is written once."""
    engine, rival = opening(mode=mode), opening()
    mine = request(event("Taken", "seat:1"), unless=tagged("seat:1"))
    with psycopg.connect(url) as holding:
        rival.transactions.stage(holding, [request(event())])
        holding.execute("SET CONSTRAINTS ALL IMMEDIATE")
        met: list[BaseException] = []

        def append() -> None:
            try:
                engine.append_many([mine])
            except EventfoldError as error:
                met.append(error)

        waiting = threading.Thread(target=append)
        waiting.start()
        stuck = f"SELECT pid FROM pg_stat_activity WHERE wait_event = 'advisory' AND query LIKE '%{schema}%append%'"
        assert soon(lambda: sql(url, stuck))
        sql(url, f"SELECT pg_terminate_backend(pid) FROM ({stuck}) x")
        waiting.join(60)
        holding.rollback()
    assert [type(error) for error in met] == [AppendUnconfirmed]
    assert engine.head().position == 0
    assert engine.append_many([mine])[0].repeated is False
    assert engine.head().position == 1


def test_a_cancelled_statement_has_not_written(url: str, schema: str, opening: Open) -> None:
    """After an operator's pg_cancel_backend the outcome is known: nothing was written."""
    engine, rival = opening(), opening()
    with psycopg.connect(url) as holding:
        rival.transactions.stage(holding, [request(event())])
        holding.execute("SET CONSTRAINTS ALL IMMEDIATE")
        met: list[EventfoldError] = []

        def append() -> None:
            try:
                engine.append(event())
            except EventfoldError as error:
                met.append(error)

        waiting = threading.Thread(target=append)
        waiting.start()
        stuck = f"SELECT pid FROM pg_stat_activity WHERE wait_event = 'advisory' AND query LIKE '%{schema}%append%'"
        assert soon(lambda: sql(url, stuck))
        sql(url, f"SELECT pg_cancel_backend(pid) FROM ({stuck}) x")
        waiting.join(60)
        holding.rollback()
    assert [error.code for error in met] == ["store-busy"]
    assert engine.append(event()).first == 1


def test_a_read_that_loses_its_connection_is_repeated(
    server: PostgresServer, proxy: Proxy, opening: Open, mode: str
) -> None:
    """A read can always be repeated."""
    engine = opening(through(server, proxy), mode)
    engine.append(event("Taken", "seat:1"))
    proxy.lose_answer(b"seat:1")
    assert engine.count(tagged("seat:1")) == 1
    assert proxy.lost.is_set()


def test_a_commit_without_its_standby_is_unconfirmed(schema: str, mode: str) -> None:
    """The server reports success when the wait for a standby is cancelled. The store raises AppendUnconfirmed."""
    with own() as server:
        engine = Opened(server.url(), mode, schema=schema)
        engine.open()
        engine.append(event())
        sql(server.url(), "ALTER SYSTEM SET synchronous_standby_names = 'no_standby'", "SELECT pg_reload_conf()")
        assert soon(lambda: sql(server.url(), "SHOW synchronous_standby_names") == [("no_standby",)])
        mine, met = request(event("Taken", "seat:1")), list[EventfoldError]()

        def append() -> None:
            try:
                engine.append_many([mine])
            except EventfoldError as error:
                met.append(error)

        waiting = threading.Thread(target=append)
        waiting.start()
        stuck = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        assert soon(lambda: sql(server.url(), stuck))
        sql(server.url(), f"SELECT pg_cancel_backend(pid) FROM ({stuck}) x")
        waiting.join(60)
        assert [type(error) for error in met] == [AppendUnconfirmed]
        assert "standby" in met[0].what
        sql(server.url(), "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
        assert engine.append_many([mine])[0].repeated is True
        engine.end()


def test_a_cancelled_reader_does_no_harm(url: str, schema: str, opening: Open) -> None:
    """A task is cancelled inside a query: its connection stays usable, or is replaced."""
    engine = opening(mode="async", pool=2)
    engine.append(event())
    with psycopg.connect(url) as holding:
        holding.execute(f"LOCK TABLE {schema}.event IN ACCESS EXCLUSIVE MODE".encode())

        async def give_up() -> None:
            for _ in range(5):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await engine.inner.count(tagged("x"))

        engine.runner.run(give_up())
    assert engine.head().position == 1
    assert len(engine.everything()) == 1


def test_a_server_killed_under_load_keeps_what_it_acknowledged(schema: str) -> None:
    """kill -9 under eight writers, then a restart: every acknowledged event exists once, and all clients go on."""
    with own() as server:
        acknowledged: dict[bytes, int] = {}
        problems: list[EventfoldError] = []
        done = threading.Event()
        with ef.Store(server.url(), schema=schema, patience=90) as store:
            store.append(deposit("first", 1))

            def write(number: int) -> None:
                for count in range(100_000):
                    if done.is_set():
                        return
                    try:
                        receipt = store.append(deposit(f"{number}", count))
                    except EventfoldError as error:
                        problems.append(error)
                        continue
                    acknowledged[receipt.ids[0]] = receipt.first

            followed: list[int] = []
            follower = store.follow()

            def follow() -> None:
                followed.extend(recorded.position for recorded in follower)

            threads = [threading.Thread(target=write, args=(n,), daemon=True) for n in range(8)]
            threads.append(threading.Thread(target=follow, daemon=True))
            for thread in threads:
                thread.start()
            assert soon(lambda: len(acknowledged) > 50), problems
            before = len(acknowledged)
            server.kill()
            time.sleep(0.3)
            server.start()
            assert soon(lambda: len(acknowledged) > before + 50, 90), problems
            done.set()
            for thread in threads[:-1]:
                thread.join(60)
            head = store.head()
            assert soon(lambda: len(followed) >= head), "the follower goes on"
            follower.close()
            threads[-1].join(60)
            assert before > 0
            assert followed == list(range(1, head + 1)), "no gap, no repeat"
            stored = {recorded.stored.id: recorded.position for recorded in store.read()}
            assert all(stored.get(event_id) == position for event_id, position in acknowledged.items())
            assert len(stored) == head
            assert problems == [], "lost answers were asked for again"


def test_a_server_that_stays_down_is_unavailable(schema: str, mode: str) -> None:
    """Once `patience` has run out, the reason is raised; after the server's return, the next call succeeds."""
    with own() as server:
        engine = Opened(server.url(), mode, schema=schema, patience=0.2)
        engine.open()
        engine.append(event())
        server.stop()
        for call in (engine.head, lambda: engine.append(event())):
            with pytest.raises(StoreUnavailable, match="could not be reached"):
                call()
        server.start()
        assert engine.append(event()).first == 2
        engine.end()
