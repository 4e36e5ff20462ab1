"""Queries of rows: misuse is refused by name, slow ones are reported, older tables and other generations are read."""

from __future__ import annotations

import asyncio
import base64
import copy
import logging
import pickle
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import uuid4
from zlib import crc32

import msgspec
import psycopg
import pytest

import eventfold as ef
from eventfold.core.table import Column, Table
from eventfold.errors import InvalidFilter, InvalidProjection
from eventfold.projections import rows as reading
from eventfold.selection.conditions import AllOf, OrderTerm, RowQuery
from eventfold.selection.indexes import index_terms, serving_index
from eventfold.testing.conformance.target.queries import (
    NOTE,
    SHOP,
    TOTAL,
    Sale,
    Size,
    keys,
    sales,
    sorted_rows,
    write_sales,
)
from tests.support.servers.postgres import PostgresServer


@pytest.fixture
def filled() -> Any:
    """A store in memory with 60 rows."""
    with ef.Store(f"memory:{uuid4().hex}") as opened:
        opened.project(Sale)
        write_sales(opened, sales(60))
        yield opened


NAIVE = datetime(2026, 6, 1)


class Grade(Enum):
    """Another enum with a value that Size has too."""

    A = "a"


class Other(ef.Projection, name="query_other"):
    """Another read model."""

    shop: int

    def evolve(self, event: Any) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (lambda: ef.col(5), "takes a field of a read model's class"),
        (lambda: ef.col(Sale(1, "a").total), "takes a field of a read model's class"),
        (lambda: TOTAL > "5", "has values of type Decimal or int"),
        (lambda: TOTAL > None, "has values of type Decimal or int"),
        (lambda: TOTAL > 1.5, "has values of type Decimal or int"),
        (lambda: TOTAL > TOTAL, "has values of type Decimal or int"),
        (lambda: NOTE > 5, "has values of type str"),
        (lambda: NOTE.in_("ab"), "no list of values"),
        (lambda: TOTAL.prefix("1"), "is not a text"),
        (lambda: Decimal("NaN") < TOTAL, "NaN is no number"),
        (lambda: ef.col(Sale.ratio) < float("nan"), "NaN is no number"),
        (lambda: ef.col(Sale.parts) == ("a",), "stored as JSON"),
        (lambda: ef.col(Other.shop) == 1, "Other.shop is not a column of Sale"),
        (lambda: "total > 5", "is not a filter of rows"),
        (lambda: SHOP.in_(range(6_000)), "more than 5,000 values"),
        (lambda: (SHOP > 1) and (SHOP < 3), "neither true nor false"),
        (lambda: not (SHOP > 1), "neither true nor false"),
        (lambda: 1 < SHOP < 3, "neither true nor false"),
        (lambda: (SHOP > 1) & 5, "is not a filter"),
        (lambda: (SHOP > 1) & SHOP < 3, "parentheses"),
        (lambda: SHOP or NOTE, "neither true nor false"),
        (lambda: SHOP >= 1 & (SHOP < 3), "Put each comparison in parentheses"),  # noqa: SIM300
        (lambda: SHOP > 10**5_000, "too many digits to show"),
        (lambda: SHOP.in_(3), "no list of values"),
        (lambda: {"shp": 1}, "no column shp"),
        (lambda: {"size": "nonsense"}, "which is no Size"),
        (lambda: ef.col(Sale.size) == "nonsense", "which is no Size"),
        (lambda: ef.col(Sale.size) > "nonsense", "which is no Size"),
        (lambda: ef.col(Sale.size) == Grade.A, "which is no Size"),
        (lambda: ef.col(Sale.size).in_([Size.SMALL, Grade.A]), "which is no Size"),
        (lambda: ef.col(Sale.at) == NAIVE, "has no time zone"),
        (lambda: ef.col(Sale.at) != NAIVE, "has no time zone"),
        (lambda: ef.col(Sale.at) < NAIVE, "has no time zone"),
        (lambda: ef.col(Sale.at).in_([NAIVE]), "has no time zone"),
        (lambda: ef.col(Sale.at).between(NAIVE, NAIVE), "has no time zone"),
        (lambda: {"at": NAIVE}, "has no time zone"),
    ],
)
def test_misuse_is_refused_by_name(filled: ef.Store, ask: Any, why: str) -> None:
    """Before the database is asked: the target's connection is not used."""
    with pytest.raises(InvalidFilter, match=why):
        filled.rows(Sale, ask())


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"order": "tottal"}, "no column tottal"),
        ({"order": ["total", 5]}, "cannot be sorted by 5"),
        ({"order": "parts"}, "stored as JSON"),
        ({"limit": -1}, "not a number of rows"),
        ({"after": 5}, "not a cursor"),
    ],
)
def test_wrong_options_are_refused_by_name(filled: ef.Store, options: Any, why: str) -> None:
    """Order, limit, cursor."""
    with pytest.raises(InvalidFilter, match=why):
        filled.rows(Sale, **options)


def test_a_limit_of_a_selection_is_refused_with_the_method_that_takes_it(filled: ef.Store) -> None:
    """It is an argument of `rows`; `select` would take it for a column."""
    with pytest.raises(InvalidFilter, match=r"store\.select\(…\)\.rows\(limit=…\)"):
        filled.select(Sale, limit=3)


def test_the_error_about_a_wrong_enum_names_the_members(filled: ef.Store) -> None:
    """A member may be given as its value as well."""
    with pytest.raises(InvalidFilter, match=r"Size\.SMALL \('c'\), Size\.MIDDLE \('b'\), Size\.LARGE \('a'\)"):
        filled.rows(Sale, size="nonsense")
    assert filled.rows(Sale, size="a") == filled.rows(Sale, size=Size.LARGE) != []


def test_deep_filters_are_refused_and_long_ones_are_not(filled: ef.Store) -> None:
    """Combining with one operator does not nest."""
    wanted = SHOP == 0
    for _ in range(400):
        wanted = wanted | (SHOP == 1)
    assert len(filled.rows(Sale, wanted)) == 40
    for _ in range(120):
        wanted = ~wanted
    with pytest.raises(InvalidFilter, match="nested deeper than 100"):
        filled.rows(Sale, wanted)


def test_a_page_of_a_filter_with_many_values_is_followed_by_the_next(any_filled: ef.Store) -> None:
    """The filter is not repeated for each range of a page: databases bound the number of parameters."""
    terms = ["-total", "note", "size", "at"]
    many = SHOP.in_(range(5_000))
    expected = any_filled.rows(Sale, many, order=terms)
    found = [row for page in any_filled.select(Sale, many, order=terms).pages(7) for row in page]
    assert found == list(expected)
    assert len(found) == 60


@pytest.mark.parametrize("order", ["-at", "at"])
def test_an_index_serves_later_pages_sorted_by_a_nullable_column(any_filled: ef.Store, order: str) -> None:
    """Each range of a page is read by the index (-at): the table is never read and sorted as a whole."""
    selection = any_filled.select(Sale, order=order)
    query = RowQuery(order=selection._order, after=(datetime(2026, 6, 1, tzinfo=UTC), 1, "a"), limit=5)
    explanation = selection._source.reader().explain(query)
    assert explanation.index == (("-at",) if order == "-at" else None), "backwards, the index has the key descending"
    assert "SCAN query_sale" not in f"{explanation}", "SQLite's plan"
    place = "NULLS LAST" if order == "-at" else "NULLS FIRST"
    later = explanation.statement.partition(" AS b1")[2].partition(" AS b2")[0]
    assert f"{place}, " in later, "PostgreSQL uses an index with NULL in the same place only"


def test_thousands_of_joined_comparisons_are_answered(any_filled: ef.Store) -> None:
    """SQLite refuses expressions of more than 1,000 levels."""
    wanted = SHOP == 0
    for _ in range(3_000):
        wanted = wanted | (SHOP == 1)
    assert len(any_filled.rows(Sale, wanted)) == 40
    assert len(any_filled.rows(Sale, ~wanted)) == 20


def _forged(cursor: str, change: Callable[[str], str]) -> str:
    data = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[4:]
    changed = change(data.decode()).encode()
    return base64.urlsafe_b64encode(crc32(changed).to_bytes(4, "big") + changed).decode().rstrip("=")


@pytest.mark.parametrize("value", ["true", str(1 << 64), "[" * 100_000, '"1"', "1.5"])
def test_a_forged_cursor_is_refused_before_the_database_is_asked(any_filled: ef.Store, value: str) -> None:
    """Cursors come from URLs: one with a valid checksum may hold any values."""
    first = any_filled.rows(Sale, order="shop", limit=1).next
    assert first is not None
    forged = _forged(first, lambda text: re.sub(r",\[-?\d+,", lambda _: f",[{value},", text))
    assert forged != first
    with pytest.raises(InvalidFilter, match="not a cursor of rows"):
        any_filled.rows(Sale, order="shop", limit=1, after=forged)


def test_a_sum_of_floats_that_overflows_is_infinite_or_refused_by_name(any_filled: ef.Store) -> None:
    """PostgreSQL raises an error, which is not about a comparison; SQLite returns infinity, as Python does."""
    write_sales(any_filled, [Sale(7, "a", ratio=1.7e308), Sale(7, "b", ratio=1.7e308)])
    selection = any_filled.select(Sale, shop=7)
    if any_filled.projections.target(Sale).address.startswith("postgres"):
        with pytest.raises(InvalidFilter, match=r"The sum of ratio was refused by .*out of range"):
            selection.sum(ef.col(Sale.ratio))
    else:
        assert selection.sum(ef.col(Sale.ratio)) == float("inf")


def test_sqlite_stores_a_nan_of_a_float_as_a_missing_value(filled: ef.Store) -> None:
    """It has no NaN: the how-to says so."""
    write_sales(filled, [Sale(7, "a", ratio=float("nan"))])
    found = filled.rows(Sale, ef.col(Sale.ratio).is_null(), shop=7)
    assert [row.ratio for row in found] == [None]


def test_rows_are_a_list_that_is_copied_and_pickled_with_its_cursor(filled: ef.Store) -> None:
    """So a page can be cached or passed to another process."""
    page = filled.rows(Sale, limit=5)
    assert page == list(page)
    for other in (copy.copy(page), pickle.loads(pickle.dumps(page))):  # noqa: S301
        assert other == page
        assert other.next == page.next
    assert filled.rows(Sale).next is None


def test_a_view_and_its_pages_are_of_one_position(filled: ef.Store) -> None:
    """A cursor of a view at another position is refused, as is one of the table."""
    view = filled.view(Sale)
    view._rows.update({(row.shop, row.item): row for row in sales(30)})
    page = view.rows(order="-total", limit=7)
    assert keys(view.rows(order="-total", after=page.next)) == keys(sorted_rows(sales(30), "-total"))[7:]
    with pytest.raises(InvalidFilter, match="a view at position 0"):
        filled.rows(Sale, order="-total", after=page.next)
    assert view.select(size=Size.LARGE).explain().index == ("size", "-total")


def test_the_async_store_asks_the_same(tmp_path: Path) -> None:
    """Every method of a selection is awaited."""

    async def ask() -> None:
        name = str(tmp_path / "store.db")
        with ef.Store(name) as opened:
            opened.project(Sale)
            write_sales(opened, sales(60))
            async with ef.AsyncStore(name) as store:
                expected = opened.select(Sale, SHOP > 0, order="-total")
                selection = store.select(Sale, SHOP > 0, order="-total")
                assert [page async for page in selection.pages(7)] == list(expected.pages(7))
                assert await selection.count() == expected.count()
                assert await selection.first() == expected.first()
                assert await selection.exists()
                assert await selection.sum(TOTAL) == expected.sum(TOTAL)
                assert await selection.min(TOTAL) == expected.min(TOTAL)
                assert await selection.max(TOTAL) == expected.max(TOTAL)
                assert await selection.count_by(SHOP) == expected.count_by(SHOP)
                assert (await selection.explain()).index == expected.explain().index
                page = await store.rows(Sale, SHOP > 0, order="-total", limit=3)
                assert await selection.rows(3, page.next) == expected.rows(3, page.next)

    asyncio.run(ask())


def test_a_slow_query_without_an_index_is_reported_once(
    filled: ef.Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the index to declare; a query with an index is not reported, however slow it is."""
    monkeypatch.setattr(reading, "SLOW_S", 0.0)
    monkeypatch.setattr(reading.TargetRows, "_reported", set[Any]())
    with caplog.at_level(logging.WARNING, "eventfold"):
        for _ in range(3):
            filled.rows(Sale, ef.col(Sale.done) == True, order="-count", limit=5)  # noqa: E712
            filled.rows(Sale, order="-at", limit=5)
            filled.rows(Sale, SHOP == 1)
    assert len(caplog.records) == 1
    assert "indexes=[('done', '-count')]" in caplog.text
    assert "rebuild STORE query_sale --switch" in caplog.text


def test_indexes_are_created_and_dropped_with_generations(tmp_path: Path) -> None:
    """On SQLite; a descending column is a descending index."""
    with ef.Store(str(tmp_path / "store.db")) as store:
        store.project(Sale)
        store.projections.rebuild(Sale)
        store.projections.switch(Sale)
        target: Any = store.projections.target(Sale)
        sql = "SELECT tbl_name, sql FROM sqlite_schema WHERE type = 'index' AND sql LIKE '%query_sale%' ORDER BY name"
        found = target.query(sql)
        assert {table for table, _ in found} == {"query_sale__1", "query_sale__2"}
        assert any('("size", "total__order" DESC)' in sql for _, sql in found)
        store.projections.rebuild(Sale)
        store.projections.switch(Sale)
        assert {table for table, _ in target.query(sql)} == {"query_sale__2", "query_sale__3"}


def test_text_of_an_older_generation_on_postgresql_is_sorted_by_code_point(server: PostgresServer) -> None:
    """Its columns have the database's collation: the comparison names another."""
    schema = f"s{uuid4().hex[:12]}"
    with ef.Store(server.url(schema=schema)) as store:
        store.project(Sale)
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute(f'DROP VIEW "{schema}".query_sale'.encode())
            for column in ("item", "note"):
                change = f'ALTER TABLE "{schema}".query_sale__1 ALTER COLUMN {column} TYPE text COLLATE "en-x-icu"'
                connection.execute(change.encode())
        write_sales(store, sales(60))
        rows = store.rows(Sale)
        assert keys(rows) == keys(sorted_rows(rows))
        for order in ("note", "-note"):
            pages = [row for page in store.select(Sale, order=order).pages(7) for row in page]
            assert keys(pages) == keys(sorted_rows(rows, order))
        found = [row for row in rows if row.note is not None and row.note > "a"]
        assert keys(store.rows(Sale, NOTE > "a")) == keys(found)


class Counted(ef.Event, type="query.counted"):
    """An event of a partitioned read model."""

    item: str


class Split(ef.Projection, name="query_split", partitions=3):
    """A read model in three partitions."""

    item: str
    count: int = 0

    def evolve(self, event: Counted) -> None:
        """Count."""
        self.count += 1


def test_a_read_model_in_partitions_is_asked_as_one(tmp_path: Path) -> None:
    """Its partitions share one table, so one statement sees one state of all of them."""
    with ef.Store(str(tmp_path / "store.db")) as store:
        store.append(*[Counted(f"i{n:02}") for n in range(30)])
        store.project(Split)
        assert [row.item for row in store.rows(Split)] == [f"i{n:02}" for n in range(30)]
        assert store.select(Split).sum(ef.col(Split.count)) == 30
        assert [len(page) for page in store.select(Split, order="-count").pages(11)] == [11, 11, 8]


def test_an_index_on_an_unknown_field_is_refused() -> None:
    """With `-` as well."""
    with pytest.raises(InvalidProjection, match="an index on -totl"):

        class Wrong(ef.Projection, indexes=[("-totl",)]):
            item: str
            total: int = 0

            def evolve(self, event: Counted) -> None:
                """Do nothing."""

        ef.Store(f"memory:{uuid4().hex}").project(Wrong)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([()], "names no fields"),
        ([5], "names no fields"),
        ([""], "names no fields"),
        ("total", "no list of indexes"),
        (5, "no list of indexes"),
        ([("total", "-total")], "names a field twice"),
        (["total", ("total",)], "declared twice"),
    ],
)
def test_an_invalid_declaration_of_indexes_is_refused(given: Any, why: str) -> None:
    """At the class statement, with an example of what to write."""
    with pytest.raises(InvalidProjection, match=why) as error:

        class Wrong(ef.Projection, indexes=given):
            item: str
            total: int = 0

    assert 'indexes=[("owner", "-total")' in f"{error.value}"


def test_an_index_on_a_column_of_json_is_refused() -> None:
    """Its values cannot be compared."""

    class Wrong(ef.Projection, indexes=["-parts"]):
        item: str
        parts: tuple[str, ...] = ()

        def evolve(self, event: Counted) -> None:
            """Do nothing."""

    with ef.Store(f"memory:{uuid4().hex}") as store, pytest.raises(InvalidProjection, match="index on parts, which is"):
        store.project(Wrong)


A, NULLABLE, KEY = Column("a", "int"), Column("b", "int", nullable=True), Column("k", "int")


@pytest.mark.parametrize(
    ("index", "order", "serves"),
    [
        (("a",), [(A, False), (KEY, False)], True),
        (("a",), [(A, True), (KEY, True)], True),
        (("a",), [(A, True), (KEY, False)], False),
        (("a",), [(A, False), (NULLABLE, False), (KEY, False)], False),
        (("b",), [(NULLABLE, False), (KEY, False)], True),
        (("b",), [(NULLABLE, True), (KEY, True)], False),
        (("-b",), [(NULLABLE, False), (KEY, True)], True),
        (("a", "-b"), [(A, True), (NULLABLE, False), (KEY, True)], False),
    ],
)
def test_an_index_serves_the_opposite_order_if_key_and_missing_values_match(
    index: Any, order: Any, serves: bool
) -> None:
    """Read backwards, an index has its key descending and its missing values first."""
    table = Table("t", (KEY, A, NULLABLE), ("k",), (index,))
    terms = tuple(OrderTerm(column, down) for column, down in order)
    assert serving_index(table, AllOf(), terms) == (index if serves else None)
    assert serving_index(msgspec.structs.replace(table, indexes=(tuple(index_terms(terms, ("k",))),)), AllOf(), terms)


def test_a_query_follows_a_switch_that_dropped_its_table(any_filled: ef.Store) -> None:
    """The generation is looked up before the query: if its table is gone by then, the live one is asked."""
    admin: Any = any_filled.projections
    selection: Any = any_filled.select(Sale)
    reader, other = selection._source.reader(), selection._source.reader()
    for _ in range(2):
        admin.rebuild(Sale)
        admin.switch(Sale)
    assert reader.find(RowQuery()) == []
    assert reader.generation == "generation 3"
    with pytest.raises(InvalidFilter, match="of generation 1 of query_sale, and generation 3"):
        other.find(RowQuery(order=selection._order, after=(0, "a")))


@pytest.fixture(params=["sqlite", "postgres"])
def any_filled(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ef.Store]:
    """A store with 60 rows, in a file or on a server."""
    url = str(tmp_path / "store.db")
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("server")
        url = server.url(schema=f"s{uuid4().hex[:12]}")
    with ef.Store(url) as opened:
        opened.project(Sale)
        write_sales(opened, sales(60))
        yield opened
