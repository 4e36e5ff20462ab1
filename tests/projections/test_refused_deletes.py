"""A row that the database does not let a read model delete: the failure of one event, not of the database."""

from __future__ import annotations

import threading
from uuid import uuid4

import psycopg
import pytest

import eventfold as ef
from eventfold.errors import EventfoldError, InlineFailed
from tests.support.servers.postgres import PostgresServer

pytestmark = pytest.mark.timeout(60)


class Stocked(ef.Event):
    """Goods were added to a shelf, or taken from it."""

    shelf: ef.Tag
    goods: int


class ParkedShelf(ef.Projection, on_error="park"):
    """A row for each shelf that is not empty."""

    shelf: str
    goods: int = 0

    def evolve(self, event: Stocked) -> None:
        """Count."""
        self.goods += event.goods

    def keep(self) -> bool:
        """Delete the row of an empty shelf."""
        return self.goods != 0


class InlineShelf(ef.Projection):
    """The same, within every append."""

    shelf: str
    goods: int = 0

    def evolve(self, event: Stocked) -> None:
        """Count."""
        self.goods += event.goods

    def keep(self) -> bool:
        """Delete the row of an empty shelf."""
        return self.goods != 0


def refer(server: PostgresServer, schema: str, table: str) -> None:
    """Let a table of the user's refer to the row of shelf "a"."""
    with psycopg.connect(server.url(), autocommit=True) as other:
        other.execute(f"CREATE TABLE {schema}.label (shelf text REFERENCES {schema}.{table} (shelf))".encode())
        other.execute(f"INSERT INTO {schema}.label VALUES ('a')".encode())


def test_a_runner_parks_the_event_whose_row_a_foreign_key_keeps(server: PostgresServer) -> None:
    """It does not try again without end, and other rows continue."""
    schema = f"s{uuid4().hex[:12]}"
    with ef.Store(server.url(schema=schema)) as store:
        store.append(Stocked("a", 1))
        store.project(ParkedShelf)
        refer(server, schema, "parked_shelf__1")
        store.append(Stocked("a", -1))
        store.append(Stocked("b", 1))
        store.project(ParkedShelf)
        assert [parked.position for parked in store.projections.parked(ParkedShelf)] == [2]
        assert {row.shelf: row.goods for row in store.rows(ParkedShelf)} == {"a": 1, "b": 1}


def test_an_append_is_refused_whose_row_a_foreign_key_keeps_and_others_are_written(server: PostgresServer) -> None:
    """Appends of other threads, which are committed together with it, are not refused."""
    schema = f"s{uuid4().hex[:12]}"
    with ef.Store(server.url(schema=schema), inline=[InlineShelf]) as store:
        store.append(Stocked("a", 1))
        refer(server, schema, "inline_shelf__1")
        refused: dict[str, EventfoldError] = {}

        def append(shelf: str, goods: int) -> None:
            try:
                store.append(Stocked(shelf, goods))
            except EventfoldError as error:
                refused[shelf] = error

        every = [("a", -1), *((f"other-{number}", 1) for number in range(9))]
        threads = [threading.Thread(target=append, args=each) for each in every]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert refused.keys() == {"a"}
        assert isinstance(refused["a"], InlineFailed)
        assert store.head() == 10
        assert {row.goods for row in store.rows(InlineShelf)} == {1}
