"""A small shop as a source: customers, orders and lines, on each database, and its mapping.

Knows: SQL of the three databases, the terms of the mapping. Does not know: what a test does with it.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

import eventfold as ef
from eventfold.migrate.connection import Connection, connect
from eventfold.migrate.mapping import Mapping, Moment, Reference, TableMapping, Transition
from eventfold.migrate.progress import Way
from eventfold.migrate.rows import FoldedRows
from eventfold.migrate.session import Session, open_session
from tests.migrate.sources import address_of
from tests.support.servers import mariadb, postgres

WAYS = (
    "sqlite",
    "postgresql-triggers",
    "postgresql-decoding",
    pytest.param("mariadb", marks=mariadb.needed),
)
TIMES = {"sqlite": "datetime", "postgresql": "timestamp", "mariadb": "datetime(6)"}
CUSTOMERS, ORDERS = 5, 20

_LOGICAL: list[postgres.PostgresServer] = []


def logical_server() -> postgres.PostgresServer:
    """Return a server whose log can be decoded: started at first use, removed when the process ends."""
    if not _LOGICAL:
        server = postgres.PostgresServer(
            within=postgres._in_memory(), wal_level="logical", max_replication_slots="40", max_wal_senders="40"
        ).start()
        _LOGICAL.append(server)
        atexit.register(server.remove)
    return _LOGICAL[0]


class Shop:
    """The shop's database: `run` is what its application does."""

    def __init__(self, way: str, folder: Path) -> None:
        self.dialect, _, name = way.partition("-")
        self.way: Way | None = name or None  # pyright: ignore[reportAttributeAccessIssue]
        self.address = _decoded() if name == "decoding" else address_of(self.dialect, folder)
        self.application = self.connect()
        self.store_path = str(folder / "store.db")
        time = TIMES[self.dialect]
        self.run("CREATE TABLE customer (id integer PRIMARY KEY, name varchar(50), email varchar(90))")
        self.run(
            "CREATE TABLE orders (id integer PRIMARY KEY, customer_id integer NOT NULL REFERENCES customer (id), "
            "status varchar(10) NOT NULL, total numeric(10,2) NOT NULL, "
            f"placed_at {time}, shipped_at {time}, note text)"
        )
        self.run(
            "CREATE TABLE line (order_id integer NOT NULL REFERENCES orders (id), number integer NOT NULL, "
            "sku varchar(20) NOT NULL, quantity integer NOT NULL, PRIMARY KEY (order_id, number))"
        )

    def connect(self) -> Connection:
        """Open another connection of the application."""
        return connect(self.address, readonly=False)

    def run(self, sql: str, *parameters: Any) -> None:
        """Run a statement of the application."""
        self.application.run(sql.replace("?", self.application.mark), parameters)

    def fill(self) -> None:
        """Insert customers, orders and lines; every third order was shipped."""
        self.application.begin()
        for number in range(CUSTOMERS):
            self.run("INSERT INTO customer VALUES (?, ?, ?)", number, f"Name {number}", f"{number}@example.com")
        for number in range(ORDERS):
            shipped = f"2024-02-{number + 1:02d} 08:30:00" if number % 3 == 0 else None
            self.run(
                "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?)",
                number,
                number % CUSTOMERS,
                "shipped" if shipped else "new",
                f"{number}.50",
                f"2024-01-{number + 1:02d} 10:00:00",
                shipped,
                None,
            )
            self.run("INSERT INTO line VALUES (?, 1, 'apple', ?)", number, number + 1)
        self.application.commit()

    @property
    def mapping(self) -> Mapping:
        """The mapping, as a person would write it."""
        return Mapping(
            dialect=self.dialect,  # pyright: ignore[reportArgumentType]
            tables={
                "customer": TableMapping(
                    role="entity",
                    tag="customer",
                    key=("id",),
                    opening="CustomerImported",
                    changed="CustomerChanged",
                    removed="CustomerRemoved",
                    keep=("id", "name", "email"),
                ),
                "orders": TableMapping(
                    role="entity",
                    tag="order",
                    key=("id",),
                    opening="OrderImported",
                    changed="OrderChanged",
                    removed="OrderRemoved",
                    occurred=Moment(column="placed_at"),
                    dates={"shipped_at": "OrderShipped"},
                    transition=Transition(column="status", types={"shipped": "OrderShipped", "paid": "OrderPaid"}),
                    references=(Reference(columns=("customer_id",), table="customer"),),
                    keep=("id", "customer_id", "status", "total", "placed_at", "shipped_at", "note"),
                ),
                "line": TableMapping(
                    role="part",
                    of="orders",
                    tag="line",
                    key=("order_id", "number"),
                    opening="LineImported",
                    changed="LineChanged",
                    removed="LineRemoved",
                    references=(Reference(columns=("order_id",), table="orders"),),
                    keep=("order_id", "number", "sku", "quantity"),
                ),
            },
        )

    @contextmanager
    def session(self, mapping: Mapping | None = None) -> Iterator[Session]:
        """Open the migration of this shop, in a store of its own."""
        with (
            ef.Store(self.store_path) as store,
            open_session(store, mapping or self.mapping, self.address) as session,
        ):
            yield session

    def begin(self, session: Session) -> None:
        """Record changes, and load."""
        session.install(self.way)
        session.load()

    def rows(self, session: Session, label: str) -> list[dict[str, Any]]:
        """Return the rows of a table as JSON, by its key."""
        events = session.plan.events[label]
        keys = ", ".join(events.mapping.key)
        found = self.application.rows(f"SELECT {events.codec.select_list()} FROM {label} ORDER BY {keys}")
        return [events.codec.read(row) for row in found]


def _decoded() -> str:
    server, name = logical_server(), f"s{uuid4().hex[:12]}"
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return server.url(database=name)


def assert_equal(shop: Shop, session: Session) -> None:
    """Assert that the events say of every row of every table what the source says."""
    folded = FoldedRows(session.store, session.plan.events)
    for label, events in session.plan.events.items():
        ours = {key: row.values for key, row in folded.table(label).items() if row.values is not None}
        theirs = {events.key(row): row for row in shop.rows(session, label)}
        assert ours.keys() == theirs.keys(), label
        differing = {key: names for key, row in ours.items() if (names := events.codec.differing(row, theirs[key]))}
        assert not differing, label
