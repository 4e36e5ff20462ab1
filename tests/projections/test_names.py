"""Names that SQL reserves, names of other alphabets, and names longer than a database takes: all work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import eventfold as ef
from eventfold.errors import InvalidProjection
from eventfold.projections.definition import projection_definition
from eventfold.targets.sql.statements import quote_identifier, shorten_name
from eventfold.targets.sql.transaction import expand_table_names


class Did(ef.Event, type="names-did"):
    """Something happened to a thing."""

    thing: ef.Tag
    n: int


FIELDS = (
    "order group select key value values index to position rowid oid type limit where user end all desc check table "
    "primary default column analyze rank interval wait generation projection größe"
).split()
CLASSES = "Order User Größe".split()


def made(name: str, fields: Sequence[str], /, **keywords: Any) -> Any:
    """Return a read model whose numbers, in fields of these names, are sums over the events."""
    space: dict[str, Any] = {"__module__": __name__, "__annotations__": {"thing": str} | dict.fromkeys(fields, int)}
    space |= dict.fromkeys(fields, 0)

    def evolve(self: Any, event: Did) -> None:
        for field in fields:
            setattr(self, field, getattr(self, field) + event.n)

    evolve.__annotations__ = {"event": Did, "return": None}
    kind: Any = type(ef.Projection)
    return kind(name, (ef.Projection,), {**space, "evolve": evolve}, version=1, **keywords)


def use(store: ef.Store, cls: Any, field: str) -> None:
    """Fold it, filter by this field, rebuild it, and verify it."""
    store.project(cls)
    (row,) = store.rows(cls, {field: 3}, order=f"-{field}")
    assert getattr(row, field) == 3
    store.projections.rebuild(cls)
    store.projections.switch(cls)
    assert store.projections.verify(cls)[0].proved
    assert [getattr(row, field) for row in store.rows(cls, {"thing": "a"})] == [3]


def test_a_read_model_may_have_any_name_of_a_class(store: ef.Store) -> None:
    """Names of tables and views are quoted, whatever words the database reserves."""
    store.append(Did("a", 1), Did("a", 2))
    for name in CLASSES:
        cls = made(name, ["n"])
        store.project(cls)
        assert [(row.thing, row.n) for row in store.rows(cls)] == [("a", 3)], name


def test_a_field_may_have_any_name_and_an_index(store: ef.Store) -> None:
    """Columns are quoted: in tables, indexes, filters, and the order of rows."""
    store.append(Did("a", 1), Did("a", 2))
    cls = made("Reserved", FIELDS, indexes=["order", ("group", "user")])
    use(store, cls, "order")
    for field in FIELDS:
        assert len(store.rows(cls, {field: 3}, order=field)) == 1, field


def test_a_name_of_63_bytes_may_have_generations(store: ef.Store) -> None:
    """A database truncates a longer name silently: two generations would be one table."""
    store.append(Did("a", 1), Did("a", 2))
    use(store, made("A" * 63, ["b" * 63], indexes=["b" * 63]), "b" * 63)


def test_fields_may_have_longer_names_than_a_database_takes(store: ef.Store) -> None:
    """Two names with the same beginning are two columns."""
    store.append(Did("a", 1), Did("a", 2))
    long = "b" * 80
    use(store, made("Long", [long, f"{long}c"], indexes=[f"{long}c"]), f"{long}c")


def test_a_name_that_is_no_table_is_refused_with_what_may_be_one() -> None:
    """The error comes before anything is created."""
    for name in ("Weird Name", "x;drop", "ALLCAPS", "1x", "_x", "a__b", "x" * 64, "é" * 32, "e\u0301"):
        with pytest.raises(InvalidProjection, match="cannot be the name of a projection"):
            projection_definition(made("P", ["n"], name=name))


class Declared(ef.SqlProjection, name="names_declared", version=1):
    """A read model with declared tables, whose names SQL reserves or does not take unquoted."""

    tables = {"order": "thing TEXT, n INTEGER", "Größe": "thing TEXT", "group": "thing TEXT"}  # noqa: RUF012

    def did(self, event: Did, tx: ef.Transaction) -> None:
        """Write three rows."""
        tx.execute("INSERT INTO {order} VALUES ('a', 1)")
        tx.execute("INSERT INTO {Größe} SELECT thing FROM {order}")
        tx.execute("INSERT INTO {group} SELECT thing FROM {order}")


def test_declared_tables_may_have_names_that_sql_reserves(store: ef.Store) -> None:
    """{table} is quoted where needed."""
    store.append(Did("a", 1))
    store.project(Declared)
    target = store.projections.target(Declared)
    assert [len(list(target.dump(name, 1))) for name in Declared.tables] == [1, 1, 1]


def test_a_column_may_be_called_as_one_of_the_system(store: ef.Store) -> None:
    """PostgreSQL has system columns in every table: readers see the field under its name all the same."""
    store.append(Did("a", 1), Did("a", 2))
    use(store, made("Hidden", ["ctid", "xmin"]), "ctid")


def test_a_table_in_sql_is_quoted_once() -> None:
    """If the user quotes {table}, no quotes are added; a name that needs none stays unquoted."""
    for sql, expected in (
        ("SELECT {order}.n FROM {order}", "SELECT order__2.n FROM order__2"),
        ('SELECT * FROM "{order}"', 'SELECT * FROM "order__2"'),
        ("CREATE INDEX {order}_n ON {Order} (n)", 'CREATE INDEX order__2_n ON "Order__2" (n)'),
    ):
        assert expand_table_names(sql, 2, quote_identifier, None) == expected


def test_names_that_are_cut_differ_as_the_names_do() -> None:
    """The generation number stays, no character is cut in two, and each name is as long as allowed."""
    long = ["é" * 40 + end for end in ("a__1", "b__1", "a__2", "a")]
    cut = [shorten_name(each, 63) for each in long]
    assert len(set(cut)) == len(cut)
    assert all(len(each.encode()) in (62, 63) for each in cut)
    assert [each[-3:] for each in cut[:3]] == ["__1", "__1", "__2"]
    assert shorten_name("short__1", 63) == "short__1"
    assert shorten_name(long[0], None) == long[0]
