"""Wrong servers, addresses and permissions: each raises one clear error, and nothing is lost or half-written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from eventfold.engines.postgres import pool as pools
from eventfold.engines.postgres import schema as store_schema
from eventfold.errors import (
    EventfoldError,
    InvalidUrl,
    NotAStore,
    StoreBusy,
    StoreClosed,
    StoreDamaged,
    StoreFull,
    StoreNotFound,
    StoreReadOnly,
    StoreUnavailable,
    StoreUnsafe,
    StoreVersionMismatch,
)
from tests.engines.postgres.conftest import Open
from tests.engines.postgres.given import Opened, event, request, sql, together
from tests.support.servers.postgres import PASSWORD, PostgresServer, free_port, own

ROOT = Path(__file__).parents[3]


def refused(url: str, kind: type[EventfoldError], *words: str, **options: Any) -> EventfoldError:
    """Check that opening raises this error, in two sentences that contain these words and not the password."""
    for mode in ("sync", "async"):
        engine = Opened(url, mode, **options)
        try:
            with pytest.raises(kind) as caught:
                engine.open()
        finally:
            engine.end()
        error = caught.value
        assert error.what.endswith(".") and error.remedy.endswith((".", "`."))
        assert all(word in str(error) for word in words), str(error)
        assert PASSWORD not in str(error)
        assert error.__cause__ is None, "no driver's traceback"
    return error  # pyright: ignore[reportPossiblyUnbound]


def test_a_wrong_password_is_refused(server: PostgresServer) -> None:
    """A wrong password or user: the error names the server, and where to correct it."""
    refused(server.url(password="wrong"), StoreUnavailable, "user name or password", "127.0.0.1")
    refused(server.url(user="no-such-user"), StoreUnavailable, "user name or password")


def test_a_missing_database_is_not_found(server: PostgresServer) -> None:
    """The database does not exist."""
    refused(server.url(database="not_there"), StoreNotFound, "no such database", "not_there")


def test_a_server_that_does_not_answer_is_unavailable() -> None:
    """No process listens at the address, or the host name does not resolve."""
    refused(f"postgresql://a@127.0.0.1:{free_port()}/x", StoreUnavailable, "could not be reached")
    refused("postgresql://a@host.invalid/x?connect_timeout=2", StoreUnavailable, "could not be reached")


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("postgresql://a@127.0.0.1/x?shema=typo", {}),
        ("postgresql://a@127.0.0.1:port/x", {}),
        ("postgresql://a@127.0.0.1/x", {"shcema": "typo"}),
        ("postgresql://a@127.0.0.1/x", {"lock_timeout": "soon"}),
        ("postgresql://a@127.0.0.1/x", {"schema": ""}),
        ("postgresql://a@127.0.0.1/x", {"schema": "pg_mine"}),
        ("postgresql://a@127.0.0.1/x", {"schema": "x" * 64}),
    ],
)
def test_an_invalid_address_is_refused(url: str, options: dict[str, Any]) -> None:
    """Typing errors in the URL and the options are refused before a connection is opened."""
    with pytest.raises(InvalidUrl):
        Opened(url, **options).open()


def test_the_schema_may_be_given_in_the_url(url: str, schema: str, opening: Open) -> None:
    """`?schema=` in the URL is eventfold's; every other parameter is libpq's."""
    engine = opening(f"{url}?schema={schema}&application_name=mine")
    engine.append(event())
    assert sql(url, f"SELECT count(*) FROM {schema}.event") == [(1,)]


def test_no_store_is_created_without_create(url: str, schema: str) -> None:
    """With create=False a missing store raises StoreNotFound with a remedy, and nothing is created."""
    refused(url, StoreNotFound, "create=True", schema=schema, create=False)
    assert sql(url, "SELECT count(*) FROM pg_namespace WHERE nspname = %s", values=[schema]) == [(0,)]


def test_a_foreign_table_is_left_alone(url: str, schema: str) -> None:
    """A table that shares only its name with a store's table is refused and stays unchanged."""
    sql(url, f"CREATE SCHEMA {schema}", f"CREATE TABLE {schema}.event (x int)")
    refused(url, NotAStore, "not a store's", "event", schema=schema)
    sql(url, f"CREATE TABLE {schema}.store (y int)")
    refused(url, NotAStore, "not a store's", schema=schema)
    assert sql(url, f"SELECT count(*) FROM pg_class WHERE relnamespace = '{schema}'::regnamespace") == [(2,)]


def test_an_empty_schema_made_by_an_administrator_is_used(url: str, schema: str, opening: Open) -> None:
    """A schema without a store's tables can hold a store, also next to other tables."""
    sql(url, f"CREATE SCHEMA {schema}", f"CREATE TABLE {schema}.theirs (x int)")
    assert opening().append(event()).first == 1


def test_a_newer_layout_is_refused(url: str, schema: str, opening: Open) -> None:
    """A store written by a newer eventfold can only be used by that version."""
    opening()
    sql(url, f"UPDATE {schema}.store SET layout = 99")
    refused(url, StoreVersionMismatch, "layout 99", "newer", schema=schema)
    with pytest.raises(StoreVersionMismatch):
        Opened(url, schema=schema).upgrade()


def test_an_old_server_is_refused(url: str, schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers before PostgreSQL 13 are refused."""
    monkeypatch.setattr(store_schema, "MIN_SERVER_VERSION", 990000)
    refused(url, StoreUnavailable, "too old", "PostgreSQL 99", schema=schema)


def test_a_database_that_cannot_hold_every_tag_is_refused(server: PostgresServer, url: str) -> None:
    """The database has an encoding other than UTF-8."""
    name = f"latin_{uuid4().hex[:8]}"
    sql(url, f"CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
    refused(server.url(database=name), StoreUnsafe, "LATIN1", "UTF8")


def test_a_server_that_loses_commits_is_refused(schema: str) -> None:
    """fsync=off and full_page_writes=off are refused, except with unsafe=True, for tests."""
    with own(fsync="off", full_page_writes="off") as unsafe:
        refused(unsafe.url(), StoreUnsafe, "fsync=off and full_page_writes=off", "unsafe=True", schema=schema)
        tests_only = Opened(unsafe.url(), schema=schema, unsafe=True)
        tests_only.open()
        assert tests_only.append(event()).first == 1
        tests_only.end()


@pytest.mark.parametrize("value", ["off", "local", "remote_write"])
def test_a_weaker_synchronous_commit_is_corrected(server: PostgresServer, schema: str, value: str) -> None:
    """A default of the database, the role or the server that acknowledges before the disk is overridden."""
    name = f"weak_{uuid4().hex[:8]}"
    sql(server.url(), f"CREATE DATABASE {name}", f"ALTER DATABASE {name} SET synchronous_commit = '{value}'")
    url = server.url(database=name)
    engine = Opened(url, schema=schema)
    engine.open()
    # A trigger records the setting that the commit uses.
    sql(
        url,
        f"CREATE TABLE {schema}.witness (value text)",
        f"CREATE FUNCTION {schema}.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" INSERT INTO {schema}.witness VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$",
        f"CREATE CONSTRAINT TRIGGER see AFTER INSERT ON {schema}.event DEFERRABLE INITIALLY DEFERRED"
        f" FOR EACH ROW EXECUTE FUNCTION {schema}.see()",
    )
    engine.append(event())
    engine.end()
    assert sql(url, f"SELECT value FROM {schema}.witness") == [("on",)]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_stricter_default_isolation_is_overridden(server: PostgresServer, schema: str, level: str) -> None:
    """The database's default is another isolation level: the store's transactions are still READ COMMITTED."""
    name = f"strict_{uuid4().hex[:8]}"
    sql(server.url(), f"CREATE DATABASE {name}", f"ALTER DATABASE {name} SET default_transaction_isolation = '{level}'")
    engine = Opened(server.url(database=name), schema=schema)
    engine.open()
    assert engine.append(event()).first == 1
    engine.end()
    refused(server.url(database=name), StoreUnsafe, level, schema=schema, pooler=True)


def test_a_read_only_database_can_be_read(server: PostgresServer, schema: str) -> None:
    """Reads work; writes raise StoreReadOnly."""
    name = f"fenced_{uuid4().hex[:8]}"
    sql(server.url(), f"CREATE DATABASE {name}")
    url = server.url(database=name)
    engine = Opened(url, schema=schema)
    engine.open()
    engine.append(event())
    engine.end()
    sql(server.url(), f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    fenced = Opened(url, schema=schema)
    fenced.open()
    assert len(fenced.everything()) == 1
    with pytest.raises(StoreReadOnly):
        fenced.append(event())
    fenced.end()
    refused(url, StoreReadOnly, "takes no writes", schema=f"{schema}x")


def test_a_user_without_permission_is_refused(server: PostgresServer, url: str, schema: str, opening: Open) -> None:
    """The user has no permission for the schema, or none to create one."""
    opening()
    user = f"u{uuid4().hex[:8]}"
    sql(url, f"CREATE USER {user} PASSWORD 'x'")
    theirs = server.url(user=user, password="x")
    refused(theirs, StoreUnavailable, "rights", "roles_sql", schema=schema)
    refused(theirs, StoreUnavailable, "may not create the schema", schema=f"{schema}x")


def test_too_many_connections_are_reported(server: PostgresServer, url: str, schema: str, opening: Open) -> None:
    """The role, or the server, has reached its limit of connections."""
    opening()
    user = f"u{uuid4().hex[:8]}"
    sql(url, f"CREATE USER {user} PASSWORD 'x' CONNECTION LIMIT 0")
    refused(server.url(user=user, password="x"), StoreUnavailable, "too many connections", schema=schema)


def test_a_lock_of_another_writer_is_waited_for_and_then_store_busy(url: str, schema: str, opening: Open) -> None:
    """Another writer does not release the lock: StoreBusy after lock_timeout, and nothing was written."""
    engine = opening(lock_timeout=0.2)
    engine.append(event())
    with psycopg.connect(url) as other:
        engine.transactions.stage(other, [request(event())])
        other.execute("SET CONSTRAINTS ALL IMMEDIATE")  # takes the writers' lock now, and keeps it
        with pytest.raises(StoreBusy):
            engine.append(event())
        other.rollback()
    assert engine.append(event()).first == 2


def test_a_statement_timeout_is_busy(server: PostgresServer, schema: str) -> None:
    """The server cancels long statements."""
    name = f"hasty_{uuid4().hex[:8]}"
    sql(server.url(), f"CREATE DATABASE {name}")
    url = server.url(database=name)
    engine = Opened(url, schema=schema)
    engine.open()
    engine.append(event())
    engine.end()
    sql(server.url(), f"ALTER DATABASE {name} SET statement_timeout = '2s'")
    hasty = Opened(url, schema=schema)
    hasty.open()
    with psycopg.connect(url) as other:
        other.execute("SET statement_timeout = 0")
        other.execute(f"LOCK TABLE {schema}.event IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreBusy, match="cancelled"):
            hasty.append(event())
    assert hasty.append(event()).first == 2
    hasty.end()


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("53100", StoreFull),
        ("40001", StoreBusy),
        ("40P01", StoreBusy),
        ("57014", StoreBusy),
        ("55P03", StoreBusy),
        ("25006", StoreReadOnly),
        ("XX001", StoreDamaged),
        ("XX002", StoreDamaged),
        ("53200", StoreUnavailable),
        ("58030", StoreUnavailable),
        ("XX000", StoreUnavailable),
    ],
)
def test_every_error_of_the_server_is_translated(
    url: str, schema: str, engine: Opened, mode: str, opening: Open, state: str, kind: type[EventfoldError]
) -> None:
    """A full disk, a deadlock or damaged data, planted inside an append, raises its error, and nothing is written."""
    engine.append(event("Deposited", "account:a-1"))
    sql(
        url,
        f"CREATE FUNCTION {schema}.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF NEW.tag = 'boom' THEN RAISE EXCEPTION USING ERRCODE = '{state}', MESSAGE = 'planted'; END IF;"
        " RETURN NEW; END $$",
        f"CREATE TRIGGER fail BEFORE INSERT ON {schema}.tag FOR EACH ROW EXECUTE FUNCTION {schema}.fail()",
    )
    met = opening(mode=mode)
    with pytest.raises(kind, match="planted") as caught:
        met.append_many([request(event("A", "x"), key="k"), request(event("B", "boom"))])
    assert type(caught.value) is kind
    assert caught.value.fields["sqlstate"] == state
    assert (met.head().position, met.replication.keys()) == (1, [])
    assert met.append(event("A", "x")).first == 2


def test_a_store_that_vanishes_is_not_found(url: str, schema: str, opening: Open) -> None:
    """The schema is dropped under a running process, and then another store is created in its place."""
    engine = opening()
    engine.append(event())
    sql(url, f"DROP SCHEMA {schema} CASCADE")
    with pytest.raises((StoreNotFound, NotAStore)):
        engine.append(event())
    with pytest.raises((StoreNotFound, NotAStore)):
        engine.head()
    opening()
    with pytest.raises(StoreDamaged, match="replaced"):
        for _ in range(3):
            sql(url, f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                     f" AND query LIKE '%{schema}%'")  # fmt: skip
            engine.head()
            engine.append(event())


def test_many_engines_may_create_the_store_at_once(url: str, schema: str) -> None:
    """The first process creates the store; all of them find the same one."""
    engines = [Opened(url, schema=schema) for _ in range(8)]
    try:
        assert together(*[engine.open for engine in engines]) == []
        assert len({engine.inner.store_id for engine in engines}) == 1
    finally:  # otherwise a later test finds their connections when garbage is collected
        for engine in engines:
            engine.end()


def test_a_store_that_is_created_meanwhile_is_found(url: str, schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may create it between the check for a store and the check for foreign tables: it is used."""
    look = store_schema._foreign_tables
    rival, late = Opened(url, schema=schema), Opened(url, schema=schema)

    async def after_the_rival(link: Any, *where: str) -> list[str]:
        monkeypatch.setattr(store_schema, "_foreign_tables", look)
        rival.open()
        return await look(link, *where)

    monkeypatch.setattr(store_schema, "_foreign_tables", after_the_rival)
    try:
        late.open()
        assert late.inner.store_id == rival.inner.store_id
    finally:
        rival.end()
        late.end()


def test_several_stores_live_in_one_database(url: str, schema: str, opening: Open) -> None:
    """Each schema is a store of its own, also with unusual characters in its name."""
    odd = opening(schema=f'{schema} "quoted" ä')
    plain = opening()
    assert odd.append(event()).first == plain.append(event()).first == 1
    assert odd.inner.store_id != plain.inner.store_id
    notified: list[int] = []
    stop = odd.inner.watch(lambda: notified.append(1))
    odd.append(event())
    stop()
    assert odd.stats()["schema"].endswith("ä")


def test_a_closed_engine_raises_store_closed(opening: Open) -> None:
    """Calls after close() raise StoreClosed; closing again does nothing."""
    engine = opening()
    engine.close()
    engine.close()
    with pytest.raises(StoreClosed):
        engine.head()


FORK = """
import os, sys
import eventfold as ef
from eventfold.errors import StoreClosed
from tests.engines.postgres.given import Opened, event
engine = Opened(sys.argv[1], schema=sys.argv[2])
engine.open()
engine.append(event())
child = os.fork()
if child == 0:
    try:
        engine.head()
    except StoreClosed as refused:
        os._exit(7 if "forked" in str(refused) else 8)
    os._exit(9)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert engine.append(event()).first == 2
engine.end()
"""


def test_a_fork_is_refused(url: str, schema: str) -> None:
    """A connection cannot be shared by two processes; the child gets an error, and the parent continues.

    It runs in a process that has no threads: forking a process with threads can fail by itself.
    """
    command = [sys.executable, "-c", FORK, url, schema]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr


def test_too_many_callers_get_store_busy(opening: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """All connections are in use for longer than the time limit."""
    engine = opening(pool=1, patience=0)
    pool = engine.inner._servers._reader_pool  # pyright: ignore[reportPrivateUsage]
    link = engine.runner.run(pool.acquire())
    monkeypatch.setattr(pools, "MIN_ACQUIRE_TIMEOUT_S", 0.1)
    with pytest.raises(StoreBusy, match="pool="):
        engine.head()
    engine.runner.run(pool.release(link))
    assert engine.head().position == 0
