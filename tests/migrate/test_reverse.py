"""The reverse projection: tables follow the events of decisions, each once, in the order of foreign keys."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

import eventfold as ef
from eventfold.core.envelope import NewEvent
from eventfold.errors import CursorMismatch, InvalidInput, MappingIncomplete, MigrationError, SourceUnavailable
from eventfold.migrate.connection import Connection
from eventfold.migrate.mapping import Mapping, Reference, SoftDelete, TableMapping, Transition
from eventfold.migrate.plan import plan_of
from eventfold.migrate.reflection import Schema, reflect
from eventfold.migrate.reverse import ReverseProjection
from eventfold.migrate.reverse_rows import obstacles
from tests.migrate.sources import SOURCES, source

IDENTITY = {
    "sqlite": "id INTEGER PRIMARY KEY",
    "postgresql": "id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
    "mariadb": "id integer AUTO_INCREMENT PRIMARY KEY",
}
TOTAL = {
    "sqlite": "total decimal(10,2) GENERATED ALWAYS AS (price * quantity) VIRTUAL",
    "postgresql": "total numeric(10,2) GENERATED ALWAYS AS (price * quantity) STORED",
    "mariadb": "total decimal(10,2) GENERATED ALWAYS AS (price * quantity) STORED",
}


def statements(kind: str) -> list[str]:
    """Return the tables: people refer to each other and to teams, and teams to their leader: two cycles."""
    team = "CREATE TABLE team (id integer PRIMARY KEY, title varchar(20) NOT NULL, leader integer)"
    person = (
        f"CREATE TABLE person ({IDENTITY[kind]}, name varchar(20) NOT NULL, boss integer REFERENCES person (id), "
        "team integer NOT NULL, secret varchar(20), gone boolean, FOREIGN KEY (team) REFERENCES team (id))"
    )
    item = (
        "CREATE TABLE item (person integer NOT NULL, nr integer NOT NULL, price decimal(10,2) NOT NULL, "
        f"quantity integer NOT NULL, {TOTAL[kind]}, PRIMARY KEY (person, nr), "
        "FOREIGN KEY (person) REFERENCES person (id))"
    )
    if kind == "sqlite":
        team = team.replace("leader integer", "leader integer REFERENCES person (id)")
        return ["PRAGMA foreign_keys = ON", team, person, item]
    return [team, person, item, "ALTER TABLE team ADD FOREIGN KEY (leader) REFERENCES person (id)"]


def mapping_of(dialect: Any, **changes: TableMapping) -> Mapping:
    """Return the mapping, with some tables' entries replaced."""
    tables = {
        "team": TableMapping(
            role="entity", tag="team", key=("id",), opening="TeamMade", changed="TeamChanged", removed="TeamClosed",
            references=(Reference(columns=("leader",), table="person"),), keep=("id", "title", "leader"),
        ),
        "person": TableMapping(
            role="entity", tag="person", key=("id",), opening="PersonJoined", changed="PersonChanged",
            removed="PersonLeft", transition=Transition(column="team", types={"2": "PersonMoved"}),
            soft_delete=SoftDelete(column="gone", when="true"), hide=("secret",),
            references=(Reference(columns=("team",), table="team"),), keep=("id", "name", "boss", "team", "gone"),
        ),
        "item": TableMapping(
            role="part", of="person", tag="item", key=("person", "nr"), opening="ItemAdded", changed="ItemChanged",
            removed="ItemTaken", keep=("person", "nr", "price", "quantity"),
        ),
    }  # fmt: skip
    return Mapping(dialect=dialect, tables=tables | changes)


class Reversed:
    """A store, a source, and the projection between them. `decide` appends events as an application does."""

    def __init__(self, store: ef.Store, connection: Connection, mapping: Mapping | None = None) -> None:
        self.store, self.connection = store, connection
        self.schema: Schema = reflect(connection)
        self.plan = plan_of(mapping or mapping_of(connection.dialect), self.schema, "m", 0, hide=lambda d, v: "h")
        self.projection = ReverseProjection(store, self.plan, connection, "m")

    def decide(self, *events: tuple[str, dict[str, Any]]) -> None:
        """Append events of these types and data, in one append."""
        encoded = [
            NewEvent(uuid4().bytes, name, 1, msgspec.json.encode(data), (self.tag(name, data),), None, None)
            for name, data in events
        ]
        self.store.append_encoded(*encoded)

    def tag(self, name: str, data: dict[str, Any]) -> str:
        """Return the tag of the row that an event is of."""
        events = next(each for each in self.plan.events.values() if name in each.types)
        return events.tag(events.key({"id": 0} | data))

    def rows(self, table: str, columns: str) -> list[tuple[Any, ...]]:
        """Return the rows of a table."""
        return self.connection.rows(f"SELECT {columns} FROM {table} ORDER BY 1, 2")


@contextmanager
def reversed_into(kind: str, folder: Path) -> Iterator[Reversed]:
    """Make the tables and a store, and install the projection."""
    with source(kind, folder, *statements(kind)) as connection, ef.Store("memory:") as store:
        found = Reversed(store, connection)
        found.projection.install()
        yield found


@pytest.fixture(params=SOURCES)
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reversed]:
    """Yield each source in turn."""
    with reversed_into(request.param, tmp_path) as found:
        yield found


TEAM = ("TeamMade", {"id": 1, "title": "Red", "leader": 7})
BOSS = ("PersonJoined", {"id": 7, "name": "Anna", "boss": None, "team": 1, "gone": None})
CLERK = ("PersonJoined", {"id": 8, "name": "Bert", "boss": 7, "team": 1, "gone": False})


def test_rows_are_inserted_although_they_refer_to_each_other(made: Reversed) -> None:
    """A clerk before the boss, a team whose leader is not there yet: in one append, in any order."""
    made.decide(CLERK, BOSS, ("ItemAdded", {"person": 8, "nr": 1, "price": "1.50", "quantity": 3}), TEAM)
    written = made.projection.catch_up()
    assert (written.events, written.rows, written.position) == (4, 4, 4)
    assert made.rows("person", "id, name, boss, team") == [(7, "Anna", None, 1), (8, "Bert", 7, 1)]
    assert made.rows("team", "id, leader") == [(1, 7)]
    (total,) = made.rows("item", "total, nr")
    assert float(total[0]) == 4.5, "a generated column is left to the database"


def test_the_old_application_writes_on_with_the_next_key(made: Reversed) -> None:
    """An identity column is written as it is, and its sequence goes on beyond it."""
    made.decide(TEAM, BOSS, CLERK)
    made.projection.catch_up()
    made.connection.run("INSERT INTO person (name, team) VALUES ('Cleo', 1)")
    assert made.rows("person", "id, name")[-1] == (9, "Cleo")


def test_changes_and_removals_are_written_in_an_order_that_the_keys_permit(made: Reversed) -> None:
    """A change has only what changed; a removal is soft if it says so; a row made again has its new values."""
    made.decide(TEAM, BOSS, CLERK, ("ItemAdded", {"person": 8, "nr": 1, "price": "1.50", "quantity": 3}))
    made.projection.catch_up()
    made.decide(
        ("TeamMade", {"id": 2, "title": "Blue", "leader": None}),
        ("PersonMoved", {"id": 8, "team": 2}),
        ("PersonChanged", {"id": 8, "boss": None}),
        ("PersonLeft", {"id": 7, "gone": True}),
        ("ItemTaken", {"person": 8, "nr": 1}),
        ("ItemAdded", {"person": 8, "nr": 1, "price": "2.00", "quantity": 1}),
    )
    made.projection.catch_up()
    people = [(number, team, bool(gone)) for number, team, gone in made.rows("person", "id, team, gone")]
    assert people == [(7, 1, True), (8, 2, False)]
    assert [float(price) for price, _ in made.rows("item", "price, nr")] == [2.0]
    made.decide(("PersonLeft", {"id": 8}), ("ItemTaken", {"person": 8, "nr": 1}))  # the part after the whole
    made.projection.catch_up()
    assert made.rows("person", "id, name") == [(7, "Anna")]


def test_each_append_is_written_once_although_a_pass_fails(made: Reversed, monkeypatch: Any) -> None:
    """Rows and progress are one transaction: what was not committed is written by the next pass."""
    made.decide(TEAM, BOSS)
    with monkeypatch.context() as patched:

        def lost() -> None:
            raise SourceUnavailable("The connection was lost.", "Try again.", source="here")

        patched.setattr(made.connection, "commit", lost)
        with pytest.raises(SourceUnavailable):
            made.projection.catch_up()
    made.connection.rollback()
    assert made.rows("person", "id, name") == []
    assert made.projection.catch_up().events == 2
    assert made.projection.catch_up().events == 0
    assert made.rows("person", "id, name") == [(7, "Anna")]


def test_what_cannot_be_written_back_stops_by_its_name(made: Reversed) -> None:
    """A field that no column has, a row that is not there, a key that is missing, a row that a constraint refuses."""
    made.decide(TEAM, BOSS)
    made.projection.catch_up()
    for event, kind, message in (
        (("PersonChanged", {"id": 7, "mood": "good"}), MappingIncomplete, "the field mood"),
        (("PersonChanged", {"id": 99, "name": "X"}), MigrationError, "person has no row 99"),
        (("PersonChanged", {"name": "X"}), InvalidInput, "does not say which row"),
        (("PersonJoined", {"id": 10, "name": "X", "team": 55}), SourceUnavailable, "(?i)foreign key"),
    ):
        store = ef.Store("memory:")
        with store:
            other = Reversed(store, made.connection)
            other.projection.remove()
            other.projection.install()
            other.decide(event)
            with pytest.raises(kind, match=message):
                other.projection.catch_up()
    assert made.rows("person", "id, name") == [(7, "Anna")]


def test_progress_of_another_store_is_refused(made: Reversed) -> None:
    """The tables follow one log: a restored or another store is noticed."""
    made.decide(TEAM, BOSS)
    made.projection.catch_up()
    with ef.Store("memory:") as other:
        strange = Reversed(other, made.connection)
        with pytest.raises(CursorMismatch):
            strange.projection.catch_up()


def test_new_rows_that_could_not_be_written_are_known_before_the_cutover(tmp_path: Path) -> None:
    """A dropped column that must have a value."""
    with source("sqlite", tmp_path, *statements("sqlite")) as connection, ef.Store("memory:") as store:
        own = mapping_of("sqlite").tables["item"]
        lacking = TableMapping(
            role="part", of="person", tag="item", key=own.key, opening="ItemAdded", changed="ItemChanged",
            removed="ItemTaken", keep=("person", "nr", "quantity"), drop=("price",),
        )  # fmt: skip
        made = Reversed(store, connection, mapping_of("sqlite", item=lacking))
        assert obstacles(made.plan) == ["item.price is dropped, and a row must have a value there"]
        with pytest.raises(InvalidInput, match=r"item\.price is dropped"):
            made.projection.install()
