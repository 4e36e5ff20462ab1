"""`eventfold migrate inspect` on the tables of real applications: what it says of them, on SQLite and PostgreSQL."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import apsw
import pytest

from eventfold.migrate.connection import opened
from eventfold.migrate.inspection import Decisions, Inspection, inspect
from eventfold.migrate.mapping import Mapping, read_mapping, require_complete
from eventfold.migrate.reflection import reflect
from eventfold.migrate.table_codec import TableCodec, select_of
from tests.migrate.applications import chinook, make
from tests.migrate.sources import address_of
from tests.migrate.test_inspection import module_of

ORDERS = 6


def inspected(address: str, folder: Path) -> tuple[Inspection, Mapping]:
    """Inspect a source, keep every suspected column, and read every row of every migrated table."""
    found = inspect(address, folder)
    columns = [each.removeprefix("the column ") for each in found.open if each.startswith("the column ")]
    inspect(address, folder, Decisions(keep=columns))
    mapping = read_mapping(folder / "migration.toml")
    module = module_of(folder / "events.py")
    with opened(address) as connection:
        schema = reflect(connection)
        for label, own in mapping.migrated.items():
            assert hasattr(module, own.opening)
            codec = TableCodec(connection.dialect, schema.table(label), own)
            for row in connection.rows(select_of(codec)):
                codec.read(row)
    return found, mapping


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_shop_of_django_oscar(kind: str, tmp_path: Path) -> None:
    """Its 90 and more tables are all mapped; orders have their states, whose changes its own table proves."""
    address = address_of(kind, tmp_path)
    make("oscar", address, ORDERS)
    found, mapping = inspected(address, tmp_path / "out")
    tables = mapping.tables
    assert found.tables > 90 and "undecided" not in found.roles
    with opened(address) as connection:
        require_complete(mapping, reflect(connection))
    order, line = tables["order_order"], tables["order_line"]
    assert (order.role, order.name, order.tag) == ("entity", "Order", "order")
    assert order.transition is not None and set(order.transition.types.values()) >= {"OrderPending", "OrderPacked"}
    assert order.occurred is not None and order.occurred.column == "date_placed"
    assert (line.role, line.of) == ("part", "order_order")
    assert tables["basket_basket_vouchers"].role == "join"
    assert tables["catalogue_productclass"].role == "reference"
    assert tables["django_session"].role == "ignored"
    change = tables["order_orderstatuschange"]
    assert change.role == "part" and change.history is not None and change.history.of == "order_order"
    generic = [each for each in tables["catalogue_productattributevalue"].references if each.type_column]
    assert [each.type_column for each in generic] == ["entity_content_type_id"]
    assert set(generic[0].types.values()) >= {"catalogue_product"}
    personal = {each.subject for each in found.findings if each.kind == "personal"}
    assert personal >= {"auth_user", "address_useraddress", "order_shippingaddress", "payment_bankcard"}
    assert not [each for each in found.findings if each.kind == "history" and "compared rows" in each.text]


def test_trac_has_no_foreign_keys_and_they_are_found(trac: str, tmp_path: Path) -> None:
    """Containment from names, confirmed by values; times as whole numbers of microseconds."""
    _, mapping = inspected(trac, tmp_path / "out")
    ticket = mapping.tables["ticket"]
    assert ticket.occurred is not None and (ticket.occurred.column, ticket.occurred.unit) == ("time", "us")
    assert ticket.no_fact == ("changetime",)
    assert {each.table for each in ticket.references} == {"component", "milestone", "version"}
    assert any("(100 %) are keys of it; no constraint says so" in each for each in ticket.because)
    assert (mapping.tables["ticket_custom"].role, mapping.tables["ticket_custom"].of) == ("part", "ticket")
    history = mapping.tables["ticket_change"].history
    assert history is not None and history.package == "trac"


def test_roundup_has_soft_deletes_and_dates_as_text(roundup: str, tmp_path: Path) -> None:
    """Its own tables are ignored, its journals are histories, its tables of links are parts."""
    _, mapping = inspected(roundup, tmp_path / "out")
    issue = mapping.tables["_issue"]
    assert issue.soft_delete is not None and issue.soft_delete.column == "__retired__"
    assert issue.occurred is not None and (issue.occurred.column, issue.occurred.unit) == ("_creation", "roundup")
    roles = defaultdict(set)
    for label, each in mapping.tables.items():
        roles[each.role].add(label)
    assert roles["history"] == {label for label in mapping.tables if label.endswith("__journal")}
    assert roles["ignored"] >= {"ids", "otks", "sessions", "__words"}
    assert {"issue_nosy", "issue_keyword"} <= roles["part"] | roles["join"]


def test_chinook_as_tables_without_constraints(tmp_path: Path) -> None:
    """The rows of its fixture, in tables that declare nothing but keys: references are found by names and values."""
    path = str(tmp_path / "chinook.db")
    counts = make_chinook(path, chinook(tmp_path))
    assert sum(counts.values()) == 15_607 and counts["track"] == 3503 and counts["customer"] == 59
    found, mapping = inspected(path, tmp_path / "out")
    assert found.roles.get("undecided") is None
    invoice, line = mapping.tables["invoice"], mapping.tables["invoiceline"]
    assert [(each.columns, each.table) for each in invoice.references] == [(("customer_id",), "customer")]
    assert {each.table for each in line.references} == {"invoice", "track"}
    assert {each.table for each in mapping.tables["track"].references} == {"album", "genre", "mediatype"}
    assert invoice.occurred is not None and invoice.occurred.column == "invoicedate"
    personal = {each.subject for each in found.findings if each.kind == "personal"}
    assert personal >= {"customer", "employee"}


def make_chinook(path: str, rows: list[dict[str, Any]]) -> dict[str, int]:
    """Make a table for each model of a fixture, with its fields as columns; names of references end in _id."""
    tables: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        tables[row["model"].rpartition(".")[2]].append({"id": row["pk"]} | row["fields"])
    names = set(tables)
    with contextlib.closing(apsw.Connection(path)) as connection, connection:
        for table, content in tables.items():
            fields = list(dict.fromkeys(field for row in content for field in row))
            types = {
                field: next((type(r[field]) for r in content if r.get(field) is not None), str) for field in fields
            }
            declared = [
                f'"{field}_id" INTEGER' if field in names else f'"{field}" {_declared(field, types[field])}'
                for field in fields
                if not isinstance(content[0].get(field), list)
            ]
            plain = [field for field in fields if not isinstance(content[0].get(field), list)]
            connection.execute(f'CREATE TABLE "{table}" ({", ".join(declared)})')
            marks = ", ".join("?" * len(plain))
            connection.executemany(
                f'INSERT INTO "{table}" VALUES ({marks})', [[row.get(field) for field in plain] for row in content]
            )
    return {table: len(content) for table, content in tables.items()}


def _declared(field: str, kind: type) -> str:
    if field == "id":
        return "INTEGER PRIMARY KEY"
    if field.endswith("date"):
        return "DATETIME"
    return {int: "INTEGER", float: "REAL"}.get(kind, "TEXT")
