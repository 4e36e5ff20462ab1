"""Appends inside the user's own transaction: the user's rows and the events commit together, or neither does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import django
import psycopg
import pytest
import sqlalchemy as sa
from django.db import IntegrityError, InternalError, transaction
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from eventfold.core.query import ConditionClause
from eventfold.engines.postgres import refusal
from eventfold.errors import AppendConflict, EventIdReused, InvalidInput, InvalidQuery, NotSupported, StoreUnavailable
from eventfold.ports.messages import AppendRequest
from tests.engines.postgres.conftest import Open
from tests.engines.postgres.given import Opened, event, request, sql, tagged
from tests.support.servers.postgres import PostgresServer


@pytest.fixture
def rows(url: str, schema: str, engine: Opened) -> str:
    """A table of the user's own, in the same database as the store."""
    sql(url, f"CREATE TABLE {schema}.rows (x int PRIMARY KEY)")
    return f"{schema}.rows"


def count(url: str, rows: str) -> int:
    """Return the number of the user's rows."""
    return sql(url, f"SELECT count(*) FROM {rows}")[0][0]


def test_rows_and_events_commit_together(url: str, engine: Opened, rows: str) -> None:
    """No reader sees one without the other; positions and the receipt exist after the commit."""
    engine.append(event())
    mine = request(event("Paid", "order:1"), event("Sent", "order:1"), unless=tagged("order:1"), key="k-1")
    with psycopg.connect(url) as connection:
        connection.execute(f"INSERT INTO {rows} VALUES (1)".encode())
        (staged,) = engine.transactions.stage(connection, [mine])
        assert staged.ids == tuple(each.id for each in mine.events)
        assert engine.head().position == 1
        assert engine.transactions.confirm(staged) is None
        connection.commit()
    receipt = engine.transactions.confirm(staged)
    assert (receipt.first, receipt.last, receipt.digest) == (2, 3, staged.digest)
    assert engine.receipt_of("k-1").first == 2
    assert [(e.first, e.last) for e in engine.everything()[1:]] == [(2, 3), (2, 3)]
    assert count(url, rows) == 1


def test_a_rollback_leaves_nothing(url: str, schema: str, engine: Opened, rows: str) -> None:
    """There are no rows, no events and no gap; rolling back a savepoint removes its own appends only."""
    with psycopg.connect(url) as connection:
        engine.transactions.stage(connection, [request(event())])
        connection.rollback()
        with connection.transaction():
            engine.transactions.stage(connection, [request(event("Kept"))])
            with pytest.raises(ZeroDivisionError), connection.transaction():
                engine.transactions.stage(connection, [request(event("Gone"))])
                raise ZeroDivisionError
            engine.transactions.stage(connection, [request(event("Kept"))])
    assert [stored.type for stored in engine.everything()] == ["Kept", "Kept"]
    assert sql(url, f"SELECT count(*) FROM {schema}.staged") == [(0,)]


def test_a_condition_after_a_staged_event_is_refused_at_once(url: str, engine: Opened) -> None:
    """Positions are assigned at COMMIT: a condition after a staged event is refused, and nothing is staged."""
    first = request(event("Taken", "seat:1"))
    built = AppendRequest((event("Taken", "seat:2"),), (ConditionClause(tagged("seat:2"), 0, first.events[0].id),))
    with psycopg.connect(url) as connection:
        with pytest.raises(NotSupported):
            engine.transactions.stage(connection, [first, built])
        connection.commit()
    assert engine.head().position == 0


def test_a_condition_that_does_not_hold_fails_the_commit(url: str, engine: Opened, rows: str) -> None:
    """It is judged at COMMIT, against everything committed by then; the user's rows are not written either."""
    with psycopg.connect(url) as connection:
        connection.execute(f"INSERT INTO {rows} VALUES (1)".encode())
        engine.transactions.stage(connection, [request(event("Taken", "seat:1"), unless=tagged("seat:1"))])
        rival = engine.append(event("Taken", "seat:1"))
        with pytest.raises(psycopg.Error) as refused:
            connection.commit()
        assert refused.value.sqlstate == "EF001"
        conflict = refusal(refused.value)
        assert isinstance(conflict, AppendConflict)
        assert conflict.fields == {"clause": 0, "after": 0, "found": rival.first, "query": "Query(seat:1)"}
        assert conflict.remedy == "Read again and decide again."
    assert (count(url, rows), engine.head().position) == (0, 1)


def test_every_other_refusal_is_translated(url: str, engine: Opened) -> None:
    """A reused id and a condition in the future: the error of the COMMIT is translated into the library's."""
    known = event("Taken")
    engine.append(known)
    for asked, kind in (
        (request(known, event()), EventIdReused),
        (request(event(), unless=tagged("x"), after=99), InvalidQuery),
    ):
        with psycopg.connect(url) as connection:
            engine.transactions.stage(connection, [asked])
            with pytest.raises(psycopg.Error) as refused:
                connection.commit()
            assert isinstance(refusal(refused.value), kind)
    assert refusal(ValueError("something else")) is None
    assert engine.head().position == 1


def test_a_repetition_is_written_once(url: str, engine: Opened, rows: str) -> None:
    """The same append is staged again, by ids or by key: nothing more is written, and the transaction commits."""
    paid = event("Paid", "order:1")
    confirmed: list[Any] = []
    for turn, key in enumerate(["k-1", "k-1", "k-2"]):
        with psycopg.connect(url) as connection:
            connection.execute(f"INSERT INTO {rows} VALUES ({turn})".encode())
            mine = request(paid, unless=tagged("order:1"), key=key)
            (staged,) = engine.transactions.stage(connection, [mine])
        confirmed.append(engine.transactions.confirm(staged))
    assert (count(url, rows), engine.head().position) == (3, 1)
    assert [(receipt.first, receipt.repeated) for receipt in confirmed] == [(1, False), (1, True), (1, True)]
    assert engine.receipt_of("k-2").first == 1, "the one that was recognised by its ids has claimed its key"


def test_several_appends_of_one_transaction_follow_one_another(url: str, engine: Opened) -> None:
    """They are written in their order; the later ones' conditions see the earlier ones."""
    with psycopg.connect(url) as connection:
        engine.transactions.stage(connection, [request(event("A", "x")), request(event("B"))])
        engine.transactions.stage(connection, [request(event("C"))])
        connection.commit()
        engine.transactions.stage(connection, [request(event("D", "y"), unless=tagged("y"), after=3)])
        engine.transactions.stage(connection, [request(event("E", "y"), unless=tagged("y"), after=3)])
        with pytest.raises(psycopg.Error) as refused:
            connection.commit()
    assert isinstance(refusal(refused.value), AppendConflict)
    assert [stored.type for stored in engine.everything()] == ["A", "B", "C"]


def test_an_idle_joined_transaction_blocks_no_other(url: str, opening: Open, engine: Opened, rows: str) -> None:
    """It holds no lock until its COMMIT: others append, and their events come before its own."""
    other = opening(lock_timeout=60)
    with psycopg.connect(url) as connection, psycopg.connect(url) as another:
        connection.execute(f"INSERT INTO {rows} VALUES (1)".encode())
        engine.transactions.stage(connection, [request(event("Slow"))])
        engine.transactions.stage(another, [request(event("Slower"))])
        for _ in range(20):
            began = time.perf_counter()
            other.append(event("Quick"))
            assert time.perf_counter() - began < 30
        connection.commit()
        other.append(event("Quick"))
    assert [stored.type for stored in engine.everything()] == ["Quick"] * 20 + ["Slow", "Quick", "Slower"]


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
def test_isolation_that_would_break_a_condition_is_refused(
    url: str, engine: Opened, level: psycopg.IsolationLevel
) -> None:
    """A snapshot from before the lock cannot see what was committed since."""
    with psycopg.connect(url) as connection:
        connection.isolation_level = level
        with pytest.raises(InvalidInput, match="READ COMMITTED"):
            engine.transactions.stage(connection, [request(event())])
        connection.rollback()


def test_a_connection_that_cannot_be_joined_is_refused(url: str, server: PostgresServer, engine: Opened) -> None:
    """Autocommit outside a transaction, a failed transaction, a closed one, another database, another driver."""
    with psycopg.connect(url, autocommit=True) as connection:
        with pytest.raises(InvalidInput, match="autocommit"):
            engine.transactions.stage(connection, [request(event())])
        with connection.transaction():
            engine.transactions.stage(connection, [request(event())])
    with psycopg.connect(url) as connection:
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT 1 / 0")
        with pytest.raises(InvalidInput, match="failed"):
            engine.transactions.stage(connection, [request(event())])
    with pytest.raises(InvalidInput, match="closed"):
        engine.transactions.stage(connection, [request(event())])
    with psycopg.connect(url, client_encoding="LATIN1") as connection, pytest.raises(InvalidInput, match="UTF8"):
        engine.transactions.stage(connection, [request(event())])
    name = f"other_{uuid4().hex[:8]}"
    sql(url, f"CREATE DATABASE {name}")
    with (
        psycopg.connect(server.url(database=name)) as connection,
        pytest.raises(StoreUnavailable, match="without this"),
    ):
        engine.transactions.stage(connection, [request(event())])
    with pytest.raises(InvalidInput, match=r"builtins\.object"):
        engine.transactions.stage(object(), [request(event())])
    twice = event()
    with psycopg.connect(url) as connection, pytest.raises(EventIdReused):
        engine.transactions.stage(connection, [request(twice, twice)])
    assert engine.head().position == 1


def test_another_store_of_the_same_name_is_noticed(server: PostgresServer, schema: str, engine: Opened) -> None:
    """The connection is to another database, which has a store in the same schema."""
    name = f"twin_{uuid4().hex[:8]}"
    sql(server.url(), f"CREATE DATABASE {name}")
    twin = Opened(server.url(database=name), schema=schema)
    twin.open()
    with psycopg.connect(server.url(database=name)) as connection, pytest.raises(Exception, match="another store"):
        engine.transactions.stage(connection, [request(event())])
    twin.end()


def test_the_users_connection_settings_do_not_matter(url: str, engine: Opened) -> None:
    """The user's row factories, client-side binding, binary cursors and prepared statements make no difference."""
    with psycopg.connect(url, row_factory=dict_row, cursor_factory=psycopg.ClientCursor) as connection:
        connection.prepare_threshold = 0
        engine.transactions.stage(connection, [request(event(data=b"\x00\xff %s {}"))])
    assert engine.everything()[0].data == b"\x00\xff %s {}"


def test_an_async_connection_can_be_joined(url: str, opening: Open) -> None:
    """psycopg's AsyncConnection joins through the async engine."""
    engine = opening(mode="async")
    stage = engine.inner.services.transactions.stage

    async def go(commit: bool) -> None:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            await stage(connection, [request(event("Taken", "seat:1"), unless=tagged("seat:1"))])
            await (connection.commit() if commit else connection.rollback())

    engine.runner.run(go(False))
    engine.runner.run(go(True))
    with pytest.raises(psycopg.Error) as refused:
        engine.runner.run(go(True))
    assert isinstance(refusal(refused.value), AppendConflict)
    assert engine.head().position == 1


@pytest.fixture
def alchemy(server: PostgresServer) -> Iterator[sa.Engine]:
    """SQLAlchemy over psycopg 3."""
    engine = sa.create_engine(server.url().replace("postgresql://", "postgresql+psycopg://"))
    yield engine
    engine.dispose()


def test_sqlalchemy_can_be_joined(alchemy: sa.Engine, url: str, engine: Opened, rows: str) -> None:
    """Its Connection and its Session can be joined; a refusal is found inside SQLAlchemy's own error."""
    with alchemy.begin() as connection:
        connection.execute(sa.text(f"INSERT INTO {rows} VALUES (1)"))
        engine.transactions.stage(connection, [request(event("Taken", "seat:1"))])
    with Session(alchemy) as session:
        session.execute(sa.text(f"INSERT INTO {rows} VALUES (2)"))
        engine.transactions.stage(session, [request(event())])
        session.rollback()
        engine.transactions.stage(session, [request(event())])  # before the session ran any other statement
        session.execute(sa.text(f"INSERT INTO {rows} VALUES (3)"))
        session.commit()
        engine.transactions.stage(session, [request(event("Taken", "seat:1"), unless=tagged("seat:1"))])
        with pytest.raises(sa.exc.DBAPIError) as refused:
            session.commit()
    assert isinstance(refusal(refused.value), AppendConflict)
    assert (count(url, rows), engine.head().position) == (2, 2)


def test_async_sqlalchemy_can_be_joined(server: PostgresServer, url: str, opening: Open, rows: str) -> None:
    """AsyncConnection and AsyncSession can be joined."""
    engine = opening(mode="async")
    stage = engine.inner.services.transactions.stage

    async def go() -> None:
        theirs = create_async_engine(server.url().replace("postgresql://", "postgresql+psycopg://"))
        async with theirs.begin() as connection:
            await connection.execute(sa.text(f"INSERT INTO {rows} VALUES (1)"))
            await stage(connection, [request(event("Taken", "seat:1"))])
        async with AsyncSession(theirs) as session:
            await session.execute(sa.text(f"INSERT INTO {rows} VALUES (2)"))
            await stage(session, [request(event("Taken", "seat:1"), unless=tagged("seat:1"))])
            with pytest.raises(sa.exc.DBAPIError) as refused:
                await session.commit()
        assert isinstance(refusal(refused.value), AppendConflict)
        await theirs.dispose()

    engine.runner.run(go())
    assert (count(url, rows), engine.head().position) == (1, 1)


def test_django_can_be_joined(connections: Any, url: str, engine: Opened, rows: str) -> None:
    """It works inside atomic(); outside it there is no transaction. A refusal is found inside Django's own error."""
    theirs = connections["default"]
    with pytest.raises(InvalidInput, match="atomic"):
        engine.transactions.stage(theirs, [request(event())])

    def atomic(*asked: Any, number: int) -> None:
        theirs.set_autocommit(False)
        try:
            with theirs.cursor() as cursor:
                cursor.execute(f"INSERT INTO {rows} VALUES ({number})")
            engine.transactions.stage(theirs, asked)
            theirs.commit()
        except BaseException:
            theirs.rollback()
            raise
        finally:
            theirs.set_autocommit(True)

    atomic(request(event("Taken", "seat:1")), number=1)
    with pytest.raises((InternalError, IntegrityError, django.db.Error)) as refused:
        atomic(request(event("Taken", "seat:1"), unless=tagged("seat:1")), number=2)
    assert isinstance(refusal(refused.value), AppendConflict)
    assert (count(url, rows), engine.head().position) == (1, 1)


def test_djangos_atomic_can_be_joined(connections: Any, url: str, engine: Opened, rows: str) -> None:
    """`transaction.atomic()` surrounds both, over Django's own default connection."""
    from django.db import connection as default

    with transaction.atomic():
        with default.cursor() as cursor:
            cursor.execute(f"INSERT INTO {rows} VALUES (7)")
        engine.transactions.stage(default, [request(event())])
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        engine.transactions.stage(default, [request(event())])
        raise ZeroDivisionError
    assert (count(url, rows), engine.head().position) == (1, 1)
    default.close()


def test_a_joined_transaction_may_ask_for_its_positions_early(url: str, opening: Open, engine: Opened) -> None:
    """SET CONSTRAINTS ALL IMMEDIATE assigns positions at once, and then keeps the writers' lock until the COMMIT."""
    other = opening()
    with psycopg.connect(url) as connection:
        engine.transactions.stage(connection, [request(event())])
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        waiting = threading.Thread(target=lambda: other.append(event()))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        connection.commit()
        waiting.join(60)
    assert engine.head().position == 2
    assert asyncio.iscoroutinefunction(engine.inner.services.transactions.stage)
