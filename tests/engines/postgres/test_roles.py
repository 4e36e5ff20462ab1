"""Least privilege: a writer can only append, a reader can only read, and neither can harm the log."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import psycopg
import pytest

import eventfold as ef
from eventfold.engines.postgres import roles_sql
from eventfold.errors import EventfoldError, StoreUnavailable
from eventfold.testing.conformance.events import Account, about, deposit, withdraw
from tests.engines.postgres.conftest import Open
from tests.engines.postgres.given import Opened, event, request, soon, sql, tagged
from tests.support.servers.postgres import PostgresServer


@pytest.fixture
def as_user(server: PostgresServer, url: str, schema: str, opening: Open) -> Callable[[str], str]:
    """A function that returns the address of a user with the store's writer or reader role."""
    opening().close()
    suffix = uuid4().hex[:8]
    roles = {"writer": f"writer_{suffix}", "reader": f"reader_{suffix}"}
    for _ in range(2):  # running it twice is harmless
        sql(url, roles_sql(schema, writer=roles["writer"], reader=roles["reader"]))

    def address(role: str) -> str:
        user = f"{role}_user_{suffix}"
        sql(url, f"CREATE USER {user} PASSWORD 'x'", f"GRANT {roles[role]} TO {user}")
        return server.url(user=user, password="x")

    return address


def test_a_writer_can_do_all_that_a_store_does(as_user: Callable[[str], str], schema: str) -> None:
    """It appends, decides, reads, follows, and uses keys, snapshots and joined transactions."""
    url = as_user("writer")
    with ef.Store(url, schema=schema, create=False) as store:
        store.append(deposit("a-1", 10), key="k")
        store.decide(withdraw, Account("a-1"), 4)
        with pytest.raises(ef.AppendConflict):
            store.append(deposit("a-1"), unless=about("a-1"))
        assert store.append(deposit("a-1", 10), key="k").repeated
        assert store.state(Account("a-1")).balance == 6
        with store.follow() as follower:
            assert next(iter(follower)).position == 1
        assert [t.tag for t in store.tags()] == ["account:a-1"]
        assert store.stats()["events"] == 2


def test_a_writer_may_join_its_own_transactions(as_user: Callable[[str], str], schema: str, opening: Open) -> None:
    """Its connection needs no more rights than its store does."""
    url = as_user("writer")
    engine = opening(url)
    with psycopg.connect(url) as connection:
        engine.transactions.stage(connection, [request(event("Taken", "seat:1"), unless=tagged("seat:1"))])
    assert engine.head().position == 1


def test_a_reader_can_read_and_follow(as_user: Callable[[str], str], opening: Open) -> None:
    """When it writes, the error names the missing right."""
    writer = opening()
    writer.append(event("Taken", "seat:1"))
    reader = opening(as_user("reader"), create=False)
    rung: list[int] = []
    stop = reader.inner.watch(lambda: rung.append(1))
    assert soon(lambda: reader.stats()["listener"] == "listening")
    writer.append(event("Taken", "seat:1"))
    assert soon(lambda: len(rung) >= 2)
    stop()
    assert reader.count(tagged("seat:1")) == 2
    assert reader.position_at(2**60) == 2
    with pytest.raises(StoreUnavailable, match="writer or reader role"):
        reader.append(event())


@pytest.mark.parametrize("role", ["writer", "reader"])
@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE {s}.event SET data = 'x'",
        "DELETE FROM {s}.event",
        "TRUNCATE {s}.event",
        "INSERT INTO {s}.tag VALUES ('x', 1, 'y')",
        "INSERT INTO {s}.sealed VALUES (1, 2, 'x', 'y')",
        "INSERT INTO {s}.staged (ids, types, datas, tags) VALUES ('{{}}', '{{}}', '{{}}', '{{}}')",
        "UPDATE {s}.store SET id = 'x'",
        "ALTER TABLE {s}.event DISABLE TRIGGER ALL",
        "DROP TABLE {s}.event",
        "CREATE TABLE {s}.mine (x int)",
        "SELECT {s}.succeed(2, 'x', 1)",
        "SELECT {s}.judge('{{1}}', '{{0}}', '{{x}}', '{{y}}', 1, 0, 9)",
    ],
)
def test_neither_can_harm_the_log(as_user: Callable[[str], str], schema: str, role: str, harm: str) -> None:
    """They may only read tables, and call only the functions that keep the promises."""
    with psycopg.connect(as_user(role), autocommit=True) as connection:
        refused = pytest.raises(psycopg.errors.InsufficientPrivilege)
        with refused:
            connection.execute(harm.format(s=schema).encode())


def test_operations_of_the_owner_are_refused_to_others(
    as_user: Callable[[str], str], url: str, schema: str, opening: Open
) -> None:
    """That is upgrading, and taking over another log."""
    address = as_user("writer")
    writer = opening(address)
    with pytest.raises(EventfoldError, match="rights"):
        writer.replication.take_identity("0" * 32, 2)
    writer.close()
    sql(url, f"UPDATE {schema}.store SET layout = 1")
    with pytest.raises(EventfoldError, match="rights"):
        Opened(address, schema=schema).upgrade(copies=False)


def test_other_roles_have_no_rights(server: PostgresServer, url: str, schema: str, opening: Open) -> None:
    """PUBLIC has no right to the schema's contents, even if its use is granted."""
    opening()
    user = f"u{uuid4().hex[:8]}"
    sql(url, f"CREATE USER {user} PASSWORD 'x'", f"GRANT USAGE ON SCHEMA {schema} TO {user}")
    with psycopg.connect(server.url(user=user, password="x"), autocommit=True) as connection:
        for question in (f"SELECT * FROM {schema}.event", f"SELECT * FROM {schema}.attach()"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(question.encode())
