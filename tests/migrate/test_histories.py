"""Histories of packages, as the real packages write them: recognised by their columns, read as changes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import apsw
import psycopg
import pytest

from eventfold.errors import InvalidInput, MigrationError
from eventfold.migrate.connection import opened
from eventfold.migrate.histories import Change, changes, recognise
from eventfold.migrate.histories.gaps import find_gaps
from eventfold.migrate.inspection import inspect
from eventfold.migrate.mapping import History, read_mapping
from eventfold.migrate.reflection import reflect
from eventfold.migrate.table_codec import TableCodec, select_of
from tests.migrate.applications import HERE, environment
from tests.migrate.sources import address_of, source
from tests.packaging.environments import run
from tests.support.servers import mariadb


def read(address: str, label: str) -> list[Change]:
    """Return the changes of a history table."""
    with opened(address) as connection:
        schema = reflect(connection)
        return list(changes(connection, schema, label, recognise(schema)[label]))


def short(found: list[Change]) -> list[tuple[Any, ...]]:
    """Return changes without times: the operation, the key, the values and those before."""
    return [(each.operation, each.key, each.values, each.before) for each in found]


def test_simple_history_has_each_row_after_each_change(django_histories: str) -> None:
    """A bulk update is missing in it: that is a finding, with both values."""
    found = read(django_histories, "shop_historicalarticle")
    assert short(found) == [
        ("insert", (1,), {"id": 1, "title": "Tea", "price": "1.5"}, None),
        ("update", (1,), {"id": 1, "title": "Tea", "price": "2"}, None),
        ("insert", (2,), {"id": 2, "title": "Cup", "price": "3"}, None),
        ("delete", (2,), {"id": 2, "title": "Cup", "price": "3"}, None),
    ]
    assert all(each.when is not None and each.is_whole for each in found)
    with opened(django_histories) as connection:
        schema = reflect(connection)
        history = recognise(schema)["shop_historicalarticle"]
        gaps = find_gaps(connection, schema, "shop_historicalarticle", history)
    said = "shop_article 1: title is 'Green tea', and the history says 'Tea'"
    assert (gaps.compared, gaps.differing, gaps.first) == (2, 1, said)


def test_reversion_has_models_as_json(django_histories: str) -> None:
    """Fields become columns, and their values those of the columns."""
    found = read(django_histories, "reversion_version")
    home = {"id": 1, "title": "Home", "price": "1.5", "at": "2026-01-01T00:00:00", "parent_id": None}
    assert short(found) == [
        ("insert", (1,), home, None),
        ("update", (1,), home | {"title": "Start", "parent_id": 1}, None),
    ]
    assert read(django_histories, "reversion_revision") == []


def test_auditlog_has_old_and_new_values(django_histories: str) -> None:
    """As text, which is read by the type of the column."""
    found = read(django_histories, "auditlog_logentry")
    anna, changed, bert, gone = found
    assert anna.values == {"id": 1, "name": "Anna", "level": 1, "active": True, "seen": None, "boss_id": None}
    assert changed.values == {"level": 2, "active": False, "seen": "2026-01-02T03:04:05.000600"}
    assert changed.before == {"level": 1, "active": True, "seen": None}
    assert (bert.key, bert.values["boss_id"], gone.operation, gone.key) == ((2,), 1, "delete", (2,))


def test_continuum_has_versions_and_transactions(continuum: str) -> None:
    """The time of a change is that of its transaction."""
    found = read(continuum, "article_version")
    assert short(found) == [
        ("insert", (1,), {"id": 1, "title": "Tea", "price": "1.00"}, None),
        ("update", (1,), {"id": 1, "title": "Green tea", "price": "1.00"}, None),
        ("insert", (2,), {"id": 2, "title": "Cup", "price": None}, None),
        ("delete", (2,), {"id": 2, "title": "Cup", "price": None}, None),
    ]
    moments = [each.when for each in found if each.when is not None]
    assert len(moments) == 4 and moments == sorted(moments)


def test_trac_begins_with_the_birth_of_a_ticket(trac: str) -> None:
    """The first old value of a field, or that of its row; the changes lead to the row as it is."""
    found = read(trac, "ticket_change")
    births = [each for each in found if each.operation == "insert"]
    assert len(births) == 20
    assert {each.values["status"] for each in births} == {"new"}
    assert all(each.when is not None and each.when.microsecond for each in births)
    assert_folded(trac, "ticket", "ticket_change", without=("changetime",))


def test_roundup_is_folded_backwards(roundup: str) -> None:
    """The journal has old values only; the changes lead to the row as it is, also to a retired one."""
    found = read(roundup, "issue__journal")
    assert [each.operation for each in found].count("insert") == 12
    first = [each for each in found if each.key == (2,)]
    assert [each.values["_title"] for each in first] == ["Issue 1", "Issue 1, step 0"]
    assert first[-1].before is not None and first[-1].before["_title"] == "Issue 1"
    retired = [each for each in found if "__retired__" in each.values and each.operation == "update"]
    assert [(each.key, each.before) for each in retired] == [((1,), {"__retired__": 0})]
    assert_folded(roundup, "_issue", "issue__journal", without=("_activity", "_actor"))


def assert_folded(address: str, table: str, label: str, without: tuple[str, ...]) -> None:
    """Assert that the changes of each row, one after the other, give the row as it is."""
    folder = Path(address).parent / f"out-{table}"
    inspect(address, folder)
    own = read_mapping(folder / "migration.toml").tables[table]
    with opened(address) as connection:
        schema = reflect(connection)
        names = tuple(each.name for each in schema.table(table).columns if each.name not in without)
        plain = own.__class__(role="entity", key=("id",), keep=names)
        codec = TableCodec("sqlite", schema.table(table), plain)
        rows = {row["id"]: row for row in map(codec.read, connection.rows(select_of(codec)))}
        found = changes(connection, schema, label, recognise(schema)[label])
        for (key,), of_row in groupby(found, key=lambda each: each.key):
            state: dict[str, Any] = {}
            last = None
            for each in of_row:
                assert last is None or each.when is None or each.when >= last, "in the order of time"
                assert each.before is None or {k: state[k] for k in each.before} == each.before
                state |= each.values
                last = each.when
            assert {plain.field(name): state[name] for name in names} == rows[key]


@pytest.fixture
def audited(tmp_path: Path) -> Iterator[str]:
    """Yield a database with the triggers of postgresql-audit, installed by the package itself."""
    address = address_of("postgresql", tmp_path)
    run([environment(), HERE / "make_audit.py", address.replace("postgresql://", "postgresql+psycopg://")])
    yield address


def test_postgresql_audit_is_read_exactly(audited: str) -> None:
    """Numbers of its JSON keep their digits; a change of several columns has only those."""
    found = read(audited, "activity")
    assert short(found) == [
        ("insert", (1,), {"id": 1, "title": "Tea", "price": "1.50", "big": 9007199254740993}, None),
        ("update", (1,), {"price": "20000000000000000.01"},
         {"id": 1, "title": "Tea", "price": "1.50", "big": 9007199254740993}),
        ("delete", (1,), {}, {"id": 1, "title": "Tea", "price": "20000000000000000.01", "big": 9007199254740993}),
    ]  # fmt: skip


@mariadb.needed
def test_a_system_versioned_table_is_its_own_history(tmp_path: Path) -> None:
    """Each version of a row is a change; the table stays an entity."""
    with source(
        "mariadb",
        tmp_path,
        "CREATE TABLE item (id int PRIMARY KEY, price decimal(8,2), made datetime) WITH SYSTEM VERSIONING",
        "INSERT INTO item VALUES (1, 1.50, '2026-01-01'), (2, 2, NULL)",
        "UPDATE item SET price = 3 WHERE id = 1",
        "DELETE FROM item WHERE id = 2",
    ) as connection:
        schema = reflect(connection)
        assert schema.table("item").kind == "system-versioned"
        found = list(changes(connection, schema, "item", History(package="system-versioned", of="item")))
    assert [(each.operation, each.key) for each in found] == [
        ("insert", (1,)), ("update", (1,)), ("insert", (2,)), ("delete", (2,)),
    ]  # fmt: skip
    assert found[1].values["price"] == "3.00" and found[1].before is not None and found[1].before["price"] == "1.50"


def test_tables_with_a_period_are_read_with_their_history_on_postgresql(tmp_path: Path) -> None:
    """As the extension temporal_tables keeps them: the row that is, and its earlier versions beside it."""
    address = address_of("postgresql", tmp_path)
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("CREATE TABLE item (id int PRIMARY KEY, price numeric(8,2), sys_period tstzrange NOT NULL)")
        connection.execute("CREATE TABLE item_history (LIKE item)")
        connection.execute("INSERT INTO item VALUES (1, 3, '[2026-01-02,)')")
        connection.execute(
            "INSERT INTO item_history VALUES (1, 1.5, '[2026-01-01,2026-01-02)'), (2, 2, '[2026-01-01,2026-01-05)')"
        )
    found = read(address, "item_history")
    assert [(each.operation, each.values.get("price"), str(each.when)[:10]) for each in found] == [
        ("insert", "1.50", "2026-01-01"),
        ("update", "3.00", "2026-01-02"),
        ("insert", "2.00", "2026-01-01"),
        ("delete", None, "2026-01-05"),
    ]


def test_what_a_history_cannot_be_read_as_is_named(trac: str, tmp_path: Path) -> None:
    """A package that is not known; a value that its column cannot hold."""
    with opened(trac) as connection, pytest.raises(InvalidInput, match="trac"):
        changes(connection, reflect(connection), "ticket_change", History(package="unknown"))
    path = str(tmp_path / "r.db")
    copy = apsw.Connection(path)
    copy.execute("CREATE TABLE _issue (id INTEGER PRIMARY KEY, _order INTEGER)")
    copy.execute("CREATE TABLE issue__journal (nodeid integer, date VARCHAR(30), tag text, action text, params text)")
    copy.execute("INSERT INTO _issue VALUES (1, 2)")
    copy.execute("INSERT INTO issue__journal VALUES (1, '20260101000000.000', '1', 'set', '{''order'': ''many''}')")
    copy.close()
    with pytest.raises(MigrationError, match=r"issue__journal/1/20260101000000\.000 has 'many'"):
        read(path, "issue__journal")
