"""Idle connections: closed after `max_idle` seconds, and opened again by the next call."""

from __future__ import annotations

import asyncio
from time import monotonic, sleep

import psycopg
import pytest

import eventfold as ef
from eventfold.errors import InvalidInput
from tests.support.servers.postgres import PostgresServer

IDLE_S = 0.2
DEADLINE_S = 60.0
COUNT = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"


class Paid(ef.Event, type="idle-paid"):
    """A bill was paid."""

    bill: ef.Tag


class Row(ef.Projection, name="idle_row"):
    """The number of payments of a bill."""

    bill: str
    n: int = 0

    def evolve(self, event: Paid) -> None:
        """Add one."""
        self.n += 1


def connections(server: PostgresServer, database: str) -> int:
    """Return the number of connections to the database."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        row = connection.execute(COUNT, (database,)).fetchone()
        return row[0] if row else 0


def wait_until_none(server: PostgresServer, database: str) -> None:
    """Wait until no connection is left."""
    ends = monotonic() + DEADLINE_S
    while found := connections(server, database):
        assert monotonic() < ends, found
        sleep(0.02)


def test_an_idle_store_has_no_connection_and_connects_again(server: PostgresServer, database: str) -> None:
    """This holds for events, rows and locks."""
    with ef.Store(server.url(database=database), max_idle=IDLE_S) as store:
        for n in range(1, 4):
            store.append(Paid("1"))
            store.project(Row)
            assert [row.n for row in store.rows(Row)] == [n]
            with store.lock(ef.Query.of(tags="bill:1")):
                assert store.count() == n
                assert connections(server, database)
            wait_until_none(server, database)


def test_an_idle_async_store_has_no_connection_and_connects_again(server: PostgresServer, database: str) -> None:
    """The loop closes the connections while it does other things."""

    async def scenario() -> None:
        async with ef.AsyncStore(server.url(database=database), max_idle=IDLE_S) as store:
            for n in range(1, 4):
                await store.append(Paid("1"))
                async with store.lock(ef.Query.of(tags="bill:1")):
                    assert await store.count() == n
                    assert connections(server, database)
                await asyncio.to_thread(wait_until_none, server, database)

    asyncio.run(scenario())


def test_without_max_idle_connections_are_kept(server: PostgresServer, database: str) -> None:
    """Without the option nothing closes them."""
    with ef.Store(server.url(database=database)) as store:
        store.append(Paid("1"))
        before = connections(server, database)
        sleep(2 * IDLE_S)
        assert before and connections(server, database) == before


@pytest.mark.parametrize("wrong", [0, -1, "nan"])
def test_an_invalid_max_idle_is_refused(server: PostgresServer, wrong: object) -> None:
    """The refusal comes before a connection is made."""
    with pytest.raises(InvalidInput, match="max_idle"):
        ef.Store(server.url(), max_idle=wrong)
