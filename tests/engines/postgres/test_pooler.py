"""PgBouncer in transaction mode is detected; no session state is used, and everything works."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import eventfold as ef
from eventfold.core.envelope import Receipt
from eventfold.core.query import Query
from eventfold.testing.conformance.events import Account, about, deposit, withdraw
from tests.engines.postgres.conftest import Open
from tests.engines.postgres.given import event, request, soon, sql, tagged, together
from tests.support.servers import pgbouncer
from tests.support.servers.postgres import PostgresServer


@pytest.fixture(scope="module")
def bouncer(server: PostgresServer) -> Iterator[str]:
    """The address of a PgBouncer in front of the server."""
    with pgbouncer.before(server) as port:
        yield server.url().replace(f":{server.port}/", f":{port}/")


def test_a_pooler_is_detected(bouncer: str, url: str, opening: Open, mode: str) -> None:
    """Without an option nothing is prepared, no session parameter is set, and followers poll instead of listening."""
    engine = opening(bouncer, mode)
    assert engine.stats()["pooler"] is True
    assert opening(url, mode).stats()["pooler"] is False
    for turn in range(1, 40):
        assert engine.append(event("Deposited", "account:a-1")).first == turn
        assert len(engine.everything()) == turn
    rung: list[int] = []
    stop = engine.inner.watch(lambda: rung.append(1))
    assert soon(lambda: engine.stats()["listener"] == "polling")
    before = len(rung)
    engine.append(event())
    assert soon(lambda: len(rung) > before)
    stop()


def test_promises_hold_through_a_pooler(bouncer: str, opening: Open) -> None:
    """Conditions under a race, idempotency and order hold with more clients than server connections."""
    engines = [opening(bouncer) for _ in range(6)]
    wins: list[str] = []

    def race(number: int) -> None:
        for turn in range(25):
            tag = f"seat:{turn}"
            mine = request(event("Taken", tag), unless=tagged(tag))
            for _ in range(2):
                outcome = engines[number].append_many([mine])[0]
                if isinstance(outcome, Receipt) and not outcome.repeated:
                    wins.append(tag)

    assert together(*[lambda n=n: race(n) for n in range(6)]) == []
    assert sorted(wins) == sorted(f"seat:{turn}" for turn in range(25))
    assert [stored.position for stored in engines[0].everything()] == list(range(1, 26))


def test_a_store_works_through_a_pooler(bouncer: str, schema: str) -> None:
    """A user's common calls work."""
    with ef.Store(bouncer, schema=schema) as store:
        store.append(deposit("a-1", 10), key="k-1")
        store.decide(withdraw, Account("a-1"), 4)
        assert store.state(Account("a-1")).balance == 6
        assert store.append(deposit("a-1", 10), key="k-1").repeated
        with pytest.raises(ef.AppendConflict):
            store.append(deposit("a-1"), unless=about("a-1"))
        assert store.count(Query()) == 2


def test_commits_are_durable_behind_a_pooler(
    bouncer: str, server: PostgresServer, url: str, schema: str, opening: Open
) -> None:
    """A weaker synchronous_commit is corrected inside each append, since a session does not last."""
    opening(bouncer)
    sql(
        url,
        f"CREATE TABLE {schema}.witness (value text)",
        f"CREATE FUNCTION {schema}.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" INSERT INTO {schema}.witness VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$",
        f"CREATE CONSTRAINT TRIGGER see AFTER INSERT ON {schema}.event DEFERRABLE INITIALLY DEFERRED"
        f" FOR EACH ROW EXECUTE FUNCTION {schema}.see()",
        "ALTER ROLE CURRENT_USER SET synchronous_commit = off",
    )
    try:
        with pgbouncer.before(server) as port:
            opening(server.url().replace(f":{server.port}/", f":{port}/")).append(event())
    finally:
        sql(url, "ALTER ROLE CURRENT_USER RESET synchronous_commit")
    assert sql(url, f"SELECT DISTINCT value FROM {schema}.witness") == [("on",)]
