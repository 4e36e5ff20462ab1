"""Schemas as each database's catalogue describes them: keys, cascades, triggers that write, rights, fingerprints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from eventfold.errors import InvalidInput, SourceUnavailable
from eventfold.migrate.connection import Connection, connect, opened
from eventfold.migrate.reflection import ForeignKey, fingerprint, reflect
from tests.migrate.sources import SOURCES, address_of, source
from tests.support.servers import mariadb, postgres

SHOP = (
    "CREATE TABLE customer (id integer PRIMARY KEY, email varchar(80) NOT NULL UNIQUE)",
    "CREATE TABLE basket (id integer PRIMARY KEY, owner integer REFERENCES customer (id) ON DELETE SET NULL)",
    "CREATE TABLE line (basket integer NOT NULL, nr integer NOT NULL, qty integer NOT NULL CHECK (qty > 0), "
    "PRIMARY KEY (basket, nr), FOREIGN KEY (basket) REFERENCES basket (id) ON DELETE CASCADE ON UPDATE CASCADE)",
    "CREATE TABLE audit (what varchar(40))",
)
TRIGGERS = {
    "sqlite": (
        "CREATE TRIGGER noted AFTER UPDATE ON basket BEGIN INSERT INTO audit VALUES ('UPDATE line'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO audit VALUES (TG_OP); RETURN NEW; END'",
        "CREATE TRIGGER noted AFTER UPDATE ON basket FOR EACH ROW EXECUTE FUNCTION note()",
        "CREATE PROCEDURE clean_up() LANGUAGE sql AS 'DELETE FROM line'",
        "CREATE FUNCTION anything(t text) RETURNS void LANGUAGE plpgsql AS "
        "'BEGIN EXECUTE format(''DELETE FROM %%I'', t); END'",
        "CREATE FUNCTION harmless() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM line'",
    ),
    "mariadb": (
        "CREATE TRIGGER noted AFTER UPDATE ON basket FOR EACH ROW INSERT INTO audit VALUES ('u')",
        "CREATE PROCEDURE clean_up() DELETE FROM line",
        "CREATE FUNCTION harmless() RETURNS bigint RETURN (SELECT count(*) FROM line)",
    ),
}  # fmt: skip


@pytest.fixture(params=SOURCES)
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connection]:
    """Yield each source in turn, with the tables of a small shop."""
    with source(request.param, tmp_path, *SHOP, *TRIGGERS[request.param]) as found:
        yield found


def test_keys_cascades_and_checks_are_read(connection: Connection) -> None:
    """A composite key, and a foreign key with its actions, are the same on every source."""
    schema = reflect(connection)
    assert [table.label for table in schema.tables] == ["audit", "basket", "customer", "line"]
    line = schema.table("line")
    assert line.key == ("basket", "nr")
    (key,) = line.foreign_keys
    assert key == ForeignKey(columns=("basket",), table="basket", to=("id",), on_delete="CASCADE", on_update="CASCADE")
    assert key.cascades
    assert [check.columns for check in line.checks] == [("qty",)]
    assert schema.table("customer").unique == (("email",),)
    assert schema.table("audit").key == ()
    assert not schema.table("customer").column("email").is_nullable
    with pytest.raises(InvalidInput, match="The table line has no column price"):
        line.column("price")


def test_triggers_and_routines_that_write_are_listed_with_the_tables_that_they_change(connection: Connection) -> None:
    """A text within a trigger is no statement; one that is composed at run time is reported as unknown."""
    schema = reflect(connection)
    (trigger,) = schema.table("basket").triggers
    assert (trigger.name, trigger.on) == ("noted", "UPDATE")
    assert "audit" in trigger.writes
    expected = {
        "sqlite": {},
        "postgresql": {"clean_up()": ("line",), "anything(t text)": ("?",)},
        "mariadb": {"clean_up": ("line",)},
    }[connection.dialect]
    assert {each.name: each.writes for each in schema.routines} == expected


def test_the_fingerprint_changes_with_the_definition_and_not_with_rows_or_triggers(connection: Connection) -> None:
    """A column that was added, or a cascade that was removed, changes it."""
    first = fingerprint(reflect(connection).tables)
    connection.run("INSERT INTO customer VALUES (1, 'a@example.com')")
    connection.run("DROP TRIGGER noted" + (" ON basket" if connection.dialect == "postgresql" else ""))
    connection.run("CREATE INDEX owners ON basket (owner)")
    assert fingerprint(reflect(connection).tables) == first
    connection.run("ALTER TABLE customer ADD COLUMN born date")
    assert fingerprint(reflect(connection).tables) != first
    assert fingerprint(reflect(connection, ["line"]).tables) != first


@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_is_opened_for_reading_only_unless_asked_otherwise(kind: str, tmp_path: Path) -> None:
    """A statement that writes is refused by the database, with its own words and without a password."""
    address = address_of(kind, tmp_path)
    with opened(address) as connection, pytest.raises(SourceUnavailable) as refused:
        connection.run("CREATE TABLE t (id integer)")
    assert postgres.PASSWORD not in str(refused.value)
    assert "read" in str(refused.value).lower()


def test_an_address_that_is_no_source_is_refused(tmp_path: Path) -> None:
    """A missing file, a file that is no database, a scheme that is not known, and a server that does not answer."""
    with pytest.raises(SourceUnavailable, match="does not exist"):
        connect(str(tmp_path / "none.db"))
    (tmp_path / "text.db").write_text("not a database, and longer than the header of one. " * 20)
    with pytest.raises(SourceUnavailable, match="not a database"):
        connect(str(tmp_path / "text.db"))
    with pytest.raises(InvalidInput, match="oracle"):
        connect("oracle://scott:tiger@localhost/orcl")
    with pytest.raises(SourceUnavailable) as refused:
        connect(f"postgresql://shop:very-secret@127.0.0.1:{postgres.free_port()}/shop?options=-csearch_path%3Dhidden1")
    assert "very-secret" not in str(refused.value)
    assert "hidden1" not in str(refused.value)


def test_the_process_of_a_sqlite_source_ends_with_its_connection(tmp_path: Path) -> None:
    """A connection that is used after its process has ended says so."""
    (tmp_path / "s.db").touch()
    connection = connect(str(tmp_path / "s.db"), readonly=False)
    connection.run("CREATE TABLE t (id integer PRIMARY KEY, x)")
    connection.run_many("INSERT INTO t VALUES (?, ?)", [(n, n / 2) for n in range(5000)])
    assert [len(page) for page in connection.pages("SELECT * FROM t", size=2000)] == [2000, 2000, 1000]
    connection.begin(snapshot=True)
    connection.rollback()
    connection.close()
    with pytest.raises(SourceUnavailable, match="has ended"):
        connection.rows("SELECT 1")


def test_rights_that_a_role_does_not_have_are_not_listed(tmp_path: Path) -> None:
    """A role that may only read one table of PostgreSQL."""
    address = address_of("postgresql", tmp_path)
    role = "reader_" + address.rpartition("/")[2]
    with psycopg.connect(address, autocommit=True) as admin:
        admin.execute("CREATE TABLE seen (id int PRIMARY KEY)")
        admin.execute("CREATE TABLE unseen (id int PRIMARY KEY)")
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")  # type: ignore[arg-type]
        admin.execute(f"GRANT SELECT ON seen TO {role}")  # type: ignore[arg-type]
    theirs = address.replace(f"{postgres.SUPERUSER}:{postgres.PASSWORD}", f"{role}:x")
    with opened(theirs) as connection:
        schema = reflect(connection)
    assert {table.label: table.rights for table in schema.tables} == {"seen": ("SELECT",), "unseen": ()}
    assert "replication" not in schema.rights


@mariadb.needed
def test_rights_on_mariadb_are_those_of_the_grants(tmp_path: Path) -> None:
    """Rights on one table, and on the whole database."""
    address = address_of("mariadb", tmp_path)
    name = address.rpartition("/")[2]
    server = mariadb.shared()
    for statement in (
        f"CREATE TABLE {name}.seen (id int PRIMARY KEY)",
        f"CREATE TABLE {name}.unseen (id int PRIMARY KEY)",
        f"CREATE USER 'r{name}'@'127.0.0.1' IDENTIFIED BY 'x'",
        f"GRANT SELECT, TRIGGER ON {name}.seen TO 'r{name}'@'127.0.0.1'",
        f"GRANT INSERT ON {name}.* TO 'r{name}'@'127.0.0.1'",
    ):
        server.ask(statement)
    with opened(address.replace("root@", f"r{name}:x@")) as connection:
        schema = reflect(connection)
    rights = {table.label: table.rights for table in schema.tables}
    assert rights == {"seen": ("SELECT", "INSERT", "TRIGGER"), "unseen": ("INSERT",)}
