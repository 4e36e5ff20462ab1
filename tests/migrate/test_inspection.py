"""`eventfold migrate inspect`: guesses with their evidence, on each source; files that are edited are kept."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

import eventfold as ef
from eventfold.errors import EventfoldError, InvalidInput, MappingIncomplete
from eventfold.migrate.connection import opened
from eventfold.migrate.hidden import hide_with, read_key
from eventfold.migrate.inspection import Decisions, Inspection, inspect
from eventfold.migrate.mapping import Mapping, TableMapping, read_mapping, require_complete
from eventfold.migrate.mapping_text import mapping_text
from eventfold.migrate.reflection import Schema, reflect
from eventfold.migrate.session import open_session
from eventfold.migrate.table_codec import TableCodec, select_of
from tests.cli.commands import run
from tests.migrate.sources import SOURCES, address_of

SHOP = (
    "CREATE TABLE country (code char(2) PRIMARY KEY, title varchar(40) NOT NULL)",
    "CREATE TABLE customers (id integer PRIMARY KEY, full_name varchar(80), contact varchar(80), "
    "country_code char(2) REFERENCES country (code), created_at {datetime} NOT NULL, deleted_at {datetime})",
    "CREATE TABLE orders (id integer PRIMARY KEY, customer_id integer NOT NULL REFERENCES customers (id), "
    "status varchar(20) NOT NULL, total decimal(10,2) NOT NULL, placed_at {datetime} NOT NULL, "
    "shipped_at {datetime}, updated_at {datetime})",
    "CREATE TABLE order_lines (order_id integer NOT NULL, nr integer NOT NULL, article varchar(20) NOT NULL, "
    "qty integer NOT NULL, PRIMARY KEY (order_id, nr), "
    "FOREIGN KEY (order_id) REFERENCES orders (id) ON DELETE CASCADE)",
    "CREATE TABLE labels (id integer PRIMARY KEY, title varchar(20) NOT NULL)",
    "CREATE TABLE order_labels (order_id integer NOT NULL, label_id integer NOT NULL, "
    "PRIMARY KEY (order_id, label_id), FOREIGN KEY (order_id) REFERENCES orders (id), "
    "FOREIGN KEY (label_id) REFERENCES labels (id))",
    "CREATE TABLE remark (id integer PRIMARY KEY, item_type varchar(20) NOT NULL, item_id integer NOT NULL, "
    "customer_id integer, country_code varchar(10), body varchar(200), created_at {datetime})",
    "CREATE TABLE log (at {datetime}, line varchar(200))",
    "CREATE TABLE schema_migrations (version varchar(20) PRIMARY KEY)",
    "INSERT INTO country VALUES ('de', 'Germany'), ('fr', 'France')",
    "INSERT INTO customers VALUES (1, 'Anna', 'anna@example.com', 'de', '2026-01-01 10:00:00', NULL), "
    "(2, 'Bert', 'bert@example.org', 'fr', '2026-01-02 10:00:00', '2026-02-01 00:00:00')",
    "INSERT INTO orders VALUES (10, 1, 'open', 1.50, '2026-01-03 10:00:00', NULL, NULL), "
    "(11, 1, 'shipped', 20, '2026-01-04 10:00:00', '2026-01-05 10:00:00', '2026-01-05 10:00:00')",
    "INSERT INTO order_lines VALUES (10, 1, 'tea', 2), (11, 1, 'cup', 1)",
    "INSERT INTO remark VALUES (1, 'order', 10, 1, 'x9', 'late', '2026-01-05 10:00:00'), "
    "(2, 'customer', 1, 2, 'x8', 'nice', '2026-01-06 10:00:00')",
)
TIMES = {"sqlite": "datetime", "postgresql": "timestamp", "mariadb": "datetime"}


@pytest.fixture(params=SOURCES)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return each source in turn, with the tables of a shop."""
    yield shop(request.param, tmp_path)


def shop(kind: str, folder: Path) -> str:
    """Make the shop, and return its address."""
    found = address_of(kind, folder)
    with opened(found, readonly=False) as connection:
        for statement in SHOP:
            connection.run(statement.replace("{datetime}", TIMES[kind]))
    return found


def by_kind(found: Inspection, kind: str) -> dict[str, str]:
    """Return the findings of a kind, by subject."""
    return {each.subject: each.text for each in found.findings if each.kind == kind}


def module_of(path: Path) -> Any:
    """Import events.py."""
    spec = importlib.util.spec_from_file_location(f"events_{abs(hash(path))}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its annotations are looked up
    spec.loader.exec_module(module)
    return module


def test_each_table_is_guessed_with_its_evidence(address: str, tmp_path: Path) -> None:
    """Entities, parts, joins and references; states, dates and soft deletes; the reasons are in the file."""
    found = inspect(address, tmp_path / "out")
    tables = read_mapping(tmp_path / "out" / "migration.toml").tables
    assert {label: own.role for label, own in tables.items()} == {
        "country": "reference",
        "customers": "entity",
        "labels": "reference",
        "log": "undecided",
        "order_labels": "join",
        "order_lines": "part",
        "orders": "entity",
        "remark": "entity",
        "schema_migrations": "ignored",
    }
    orders, customers = tables["orders"], tables["customers"]
    assert (orders.name, orders.tag, orders.key, orders.opening) == ("Order", "order", ("id",), "OrderImported")
    assert orders.transition is not None
    assert orders.transition.types == {"open": "OrderOpen", "shipped": "OrderShipped"}
    assert orders.dates == {"shipped_at": "OrderShipped"}
    assert orders.occurred is not None and orders.occurred.column == "placed_at"
    assert orders.no_fact == ("updated_at",)
    assert customers.soft_delete is not None and customers.soft_delete.column == "deleted_at"
    assert customers.undecided == ("full_name", "contact")
    assert tables["order_lines"].of == "orders"
    assert "its key (order_id, nr) contains that of orders" in tables["order_lines"].because
    assert all(own.because for own in tables.values())
    personal = by_kind(found, "personal")
    assert personal["customers"] == "contact: 2 of 2 sampled values are e-mail addresses"
    assert "full_name: its name suggests a name" in [each.text for each in found.findings]
    assert by_kind(found, "cascade") == {
        "order_lines": "a change of orders reaches its rows (order_id ON DELETE CASCADE)"
    }
    assert by_kind(found, "undecided") == {"log": "it has no key: name columns that identify a row, or ignore it"}
    assert "guarantee" in {each.kind for each in found.findings}


def test_references_that_no_constraint_declares_are_confirmed_by_values(address: str, tmp_path: Path) -> None:
    """A generic foreign key, a column named after a table whose values are its keys, and one whose values are not."""
    found = inspect(address, tmp_path / "out")
    remark = read_mapping(tmp_path / "out" / "migration.toml").tables["remark"]
    generic, named = remark.references
    assert generic.type_column == "item_type" and generic.columns == ("item_id",)
    assert generic.types == {"customer": "customers", "order": "orders"}
    assert named.table == "customers" and named.columns == ("customer_id",)
    said = (
        "customer_id is named after customers, and 2 of 2 sampled values (100 %) are keys of it; no constraint says so"
    )
    assert said in remark.because
    assert (
        "country_code is named after country, and 0 of 2 sampled values (0 %)" in by_kind(found, "reference")["remark"]
    )


def test_a_load_stops_at_what_is_not_decided_and_names_it(address: str, tmp_path: Path) -> None:
    """Tables and columns; a table that is new in the source; once all is decided nothing is missing."""
    folder = tmp_path / "out"
    found = inspect(address, folder)
    assert found.open == ["the column customers.full_name", "the column customers.contact", "the table log"]
    mapping = read_mapping(folder / "migration.toml")
    with opened(address, readonly=False) as connection:
        schema = reflect(connection)
        with pytest.raises(
            MappingIncomplete, match=r"customers\.full_name, the column customers\.contact, the table log"
        ):
            require_complete(mapping, schema)
        text = (folder / "migration.toml").read_text()
        text = text.replace('is = "undecided"', 'is = "ignored"').replace("undecided = [", "hide = [")
        (folder / "migration.toml").write_text(text)
        require_complete(read_mapping(folder / "migration.toml"), schema)
        connection.run("ALTER TABLE orders ADD COLUMN note varchar(20)")
        connection.run("CREATE TABLE parcel (id integer PRIMARY KEY)")
        with pytest.raises(MappingIncomplete) as raised:
            require_complete(read_mapping(folder / "migration.toml"), reflect(connection))
    assert raised.value.fields["missing"] == ["the column orders.note", "the table parcel"]


def test_the_generated_classes_read_what_a_codec_gives(address: str, tmp_path: Path) -> None:
    """The JSON of each row is an opening event of its class, and the same JSON when it is written again."""
    folder = tmp_path / "out"
    inspect(address, folder)
    module, mapping = module_of(folder / "events.py"), read_mapping(folder / "migration.toml")
    tags: dict[str, list[str]] = {}
    with opened(address) as connection, ef.Store("memory:") as store:
        schema = reflect(connection)
        for label, own in mapping.migrated.items():
            codec = TableCodec(connection.dialect, schema.table(label), own)
            for row in connection.rows(select_of(codec)):
                data = codec.read(row)
                event = msgspec.convert(data, getattr(module, own.opening), strict=False)
                assert msgspec.json.decode(msgspec.json.encode(event)) == data
                store.append(event)
                tags.setdefault(label, []).extend(list(store.read())[-1].tags)
    assert {"order:10", "customer:1", "order:11"} == set(tags["orders"])
    assert module.OrderShipped(id=11, status="shipped").total is msgspec.UNSET


def test_a_file_that_was_edited_is_kept_and_its_difference_is_shown(address: str, tmp_path: Path) -> None:
    """A file that was not edited is written again when the source has changed."""
    folder = tmp_path / "out"
    assert [each.outcome for each in inspect(address, folder).files] == ["written", "written"]
    assert [each.outcome for each in inspect(address, folder).files] == ["unchanged", "unchanged"]
    with opened(address, readonly=False) as connection:
        connection.run("ALTER TABLE orders ADD COLUMN coupon varchar(20)")
    again = inspect(address, folder)
    assert [each.outcome for each in again.files] == ["replaced", "replaced"]
    assert "coupon" in (folder / "migration.toml").read_text()
    edited = (folder / "migration.toml").read_text().replace('name = "Order"', 'name = "Sale"')
    (folder / "migration.toml").write_text(edited)
    with opened(address, readonly=False) as connection:
        connection.run("ALTER TABLE orders ADD COLUMN gift varchar(20)")
    kept = inspect(address, folder).files[0]
    assert kept.outcome == "kept"
    assert (folder / "migration.toml").read_text() == edited
    assert '-name = "Sale"' in kept.difference and '+name = "Order"' in kept.difference
    assert "gift" in kept.difference
    (folder / "migration.toml").write_text("format = 1\nsauce = 2\n")
    with pytest.raises(InvalidInput, match="sauce"):
        inspect(address, folder)


def test_decisions_on_columns_are_options_and_are_kept_by_the_next_run(tmp_path: Path) -> None:
    """A hidden column needs a key, which only its owner may read and git ignores."""
    address, folder = shop("sqlite", tmp_path), tmp_path / "out"
    inspect(address, folder, Decisions(hide=["customers.contact"], drop=["customers.full_name"]))
    again = inspect(address, folder)
    assert [each.outcome for each in again.files] == ["unchanged", "unchanged"]
    mapping = read_mapping(folder / "migration.toml")
    customers = mapping.tables["customers"]
    assert customers.hide == ("contact",) and customers.drop == ("full_name",) and customers.undecided == ()
    assert mapping.hide_key == "file:hide.key"
    assert stat.S_IMODE((folder / "hide.key").stat().st_mode) == 0o600
    assert (folder / ".gitignore").read_text() == "hide.key\n"
    assert "full_name" not in (folder / "events.py").read_text()
    key = read_key(mapping.hide_key, folder)
    with opened(address) as connection:
        codec = TableCodec("sqlite", reflect(connection).table("customers"), customers, hide_with(key))
        first, second = (codec.read(row) for row in connection.rows(select_of(codec)))
    assert first["contact"].startswith("hidden-") and first["contact"] != second["contact"]
    assert "anna" not in json.dumps(first) and "Anna" not in json.dumps(first)
    for wrong, message in (
        (Decisions(drop=["customers.id"]), "part of the key"),
        (Decisions(keep=["x.y"]), "no column"),
    ):
        with pytest.raises(InvalidInput, match=message):
            inspect(address, folder, wrong)


def test_the_key_of_hidden_columns_is_refused_where_it_is_not_safe(tmp_path: Path, monkeypatch: Any) -> None:
    """A file that others may read, no file, a short key, a place that is none; a variable is another place."""
    path = tmp_path / "hide.key"
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_key("file:hide.key", tmp_path)
    path.write_text("ab" * 32)
    path.chmod(0o640)
    with pytest.raises(InvalidInput, match="can be read by others"):
        read_key("file:hide.key", tmp_path)
    path.chmod(0o600)
    monkeypatch.setenv("HIDE", "ab" * 32)
    assert read_key("file:hide.key", tmp_path) == read_key("env:HIDE", tmp_path) == bytes.fromhex("ab" * 32)
    for place in ("env:NOT_SET", "hide.key", "file:"):
        with pytest.raises(InvalidInput):
            read_key(place, tmp_path)
    hide, other = hide_with(b"a" * 32), hide_with(b"b" * 32)
    assert hide("t.c", "x") == hide("t.c", "x") != hide("t.d", "x")
    assert hide("t.c", "x") != other("t.c", "x")


def test_another_key_of_hidden_columns_is_noticed_before_anything_is_written(tmp_path: Path) -> None:
    """The log keeps a hash by which the key is known again, and no key."""
    address, folder = shop("sqlite", tmp_path), tmp_path / "out"
    inspect(address, folder, Decisions(hide=["customers.contact"], drop=["customers.full_name"]))
    text = (folder / "migration.toml").read_text().replace('is = "undecided"', 'is = "ignored"')
    (folder / "migration.toml").write_text(text)
    mapping = read_mapping(folder / "migration.toml")
    with ef.Store(str(tmp_path / "store.db")) as store:
        for _ in range(2):
            with open_session(store, mapping, address, hide=hide_with(b"a" * 32)) as session:
                planned = session.state().planned
        assert planned is not None and planned.key_check.startswith("hidden-")
        other = open_session(store, mapping, address, hide=hide_with(b"b" * 32))
        with pytest.raises(InvalidInput, match="not the one with which"), other:
            pass


def test_what_a_mapping_says_that_cannot_be_is_named() -> None:
    """A column in two lists, a name that the source does not have, no key, a part of nothing, a type twice."""
    with contextlib.closing(apsw.Connection(":memory:")):
        pass
    schema = Schema(dialect="sqlite", version="", tables=())
    own = TableMapping(role="part", key=(), keep=("id", "id"), of="nothing", opening="Same", tag="t")
    other = TableMapping(role="entity", key=("id",), drop=("id",), opening="Same", tag="t")
    with pytest.raises(InvalidInput) as raised:
        require_complete(Mapping(tables={"a": own, "b": other}), schema)
    assert raised.value.fields["wrong"] == ["a is no table of the source", "b is no table of the source",
                                            "two tables have the opening Same"]  # fmt: skip


def test_a_mapping_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Names that need quotes, quotes and control characters in texts, nested entries."""
    address = str(tmp_path / "odd.db")
    with contextlib.closing(apsw.Connection(address)) as odd:
        odd.execute('CREATE TABLE "a ""b"" .c" (id INTEGER PRIMARY KEY, "we\\ird é" TEXT, "from" TEXT, class INT)')
        odd.execute('CREATE TABLE "2nd" (id INTEGER PRIMARY KEY, "1st" TEXT, created_at DATETIME)')
        odd.execute("INSERT INTO \"2nd\" VALUES (1, 'x', '2026-01-01T00:00:00Z')")
    inspect(address, tmp_path / "out")
    path = tmp_path / "out" / "migration.toml"
    mapping = read_mapping(path)
    assert mapping_text(mapping) == path.read_text()
    assert mapping.tables["2nd"].columns["created_at"].form == "YYYY-MM-DDThh:mm:ss[.ffffff]Z"
    module_of(tmp_path / "out" / "events.py")


def test_the_command_prints_findings_and_writes_json(tmp_path: Path) -> None:
    """For people as lines, for programs as one object; an error has its code, and no password."""
    address, out = shop("sqlite", tmp_path), str(tmp_path / "out")
    ran = run("migrate", "inspect", address, "--out", out, "--table")
    assert ran.code == 0, ran.err
    assert "personal  customers: contact: 2 of 2 sampled values are e-mail addresses" in ran.out
    assert "To decide in migration.toml before load: the column customers.full_name" in ran.out
    found = json.loads(run("migrate", "inspect", address, "--out", out, "--json").out)
    assert found["roles"]["entity"] == 3
    assert [each["outcome"] for each in found["files"]] == ["unchanged", "unchanged"]
    ran = run("migrate", "inspect", "postgresql://u:secret-word@127.0.0.1:1/x", "--out", out, "--json")
    assert ran.code == 1
    assert "secret-word" not in ran.err
    assert json.loads(ran.err)["error"] == "source-unavailable"
    assert run("migrate", "inspect", address, "--out", out, "--hide", "nothing.at_all").code == 2
    assert issubclass(MappingIncomplete, EventfoldError)
