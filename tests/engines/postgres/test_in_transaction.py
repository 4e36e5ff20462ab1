"""`store.in_transaction(connection)`: a user's rows and the events commit together or not at all, in both modes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

import eventfold as ef
from eventfold.engines.postgres import refusal


class Ordered(ef.Event, type="joining-ordered"):
    """An order came in."""

    order: ef.Tag
    cents: int = 0


class Order(ef.State):
    """Whether an order exists, and its amount."""

    order: ef.Tag
    cents: int = 0

    def evolve(self, event: Ordered) -> None:
        """Apply the event."""
        self.cents += event.cents


def order(known: Order, cents: int) -> list[ef.Event]:
    """Decide to place an order, once for each number."""
    return [] if known.cents else [Ordered(known.order, cents)]


@pytest.fixture
def store(url: str, schema: str) -> Iterator[ef.Store]:
    """A store in a schema of its own, with a table of the user's next to it."""
    with ef.Store(url, schema=schema) as store, psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE {schema}.mine (n int PRIMARY KEY)".encode())
        yield store


def mine(url: str, schema: str) -> int:
    """Return the number of the user's rows."""
    with psycopg.connect(url) as connection:
        row = connection.execute(f"SELECT count(*) FROM {schema}.mine".encode()).fetchone()
    assert row is not None
    return row[0]


def test_a_decision_joins_and_is_confirmed_after_the_commit(store: ef.Store, url: str, schema: str) -> None:
    """There is no position before the COMMIT; afterwards the receipt, the event and the row exist."""
    with psycopg.connect(url) as connection:
        connection.execute(f"INSERT INTO {schema}.mine VALUES (1)".encode())
        done = store.in_transaction(connection).decide(order, Order("o-1"), 500)
        assert (done.receipt, done.events, done.state(Order("o-1")).cents) == (None, (), 500)
        assert store.state(Order("o-1")).cents == 0
        assert store.confirm(done.staged) is None
    receipt = store.confirm(done.staged)
    assert receipt is not None
    assert list(receipt.positions) == [1]
    assert store.state(Order("o-1")).cents == 500
    assert mine(url, schema) == 1


def test_a_rollback_removes_the_staged_events(store: ef.Store, url: str, schema: str) -> None:
    """There are no rows and no events, and no position is used up."""
    with psycopg.connect(url) as connection:
        connection.execute(f"INSERT INTO {schema}.mine VALUES (1)".encode())
        staged = store.in_transaction(connection).append(Ordered("o-1", 5))
        connection.rollback()
    assert store.confirm(staged) is None
    assert (store.head(), mine(url, schema)) == (0, 0)
    assert store.append(Ordered("o-2", 5)).first == 1


def test_a_conflict_fails_the_commit_with_an_append_conflict(store: ef.Store, url: str, schema: str) -> None:
    """The decided state changed meanwhile: the user's rows are refused with the events."""
    connection = psycopg.connect(url)
    connection.execute(f"INSERT INTO {schema}.mine VALUES (1)".encode())
    store.in_transaction(connection).decide(order, Order("o-1"), 500)
    store.append(Ordered("o-1", 7))
    with pytest.raises(psycopg.Error) as failed:
        connection.commit()
    connection.close()
    assert isinstance(refusal(failed.value), ef.AppendConflict)
    assert (store.state(Order("o-1")).cents, mine(url, schema)) == (7, 0)


def test_tasks_join_their_own_transactions(url: str, schema: str, store: ef.Store) -> None:
    """The same holds for AsyncStore."""

    async def main() -> int:
        async with ef.AsyncStore(url, schema=schema) as twin:
            async with await psycopg.AsyncConnection.connect(url) as connection:
                await connection.execute(f"INSERT INTO {schema}.mine VALUES (1)".encode())
                done = await twin.in_transaction(connection).decide(order, Order("o-1"), 500)
            receipt = await twin.confirm(done.staged)
            assert receipt is not None
            return receipt.first

    assert asyncio.run(main()) == 1
    assert mine(url, schema) == 1


def test_engines_without_joined_transactions_raise_not_supported() -> None:
    """They raise NotSupported, with a remedy."""
    store = ef.Store("memory:")
    with pytest.raises(ef.NotSupported, match="PostgreSQL"):
        store.in_transaction(object()).append(Ordered("o-1"))
