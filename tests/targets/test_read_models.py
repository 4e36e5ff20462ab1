"""Read models in the queries of SQLAlchemy and Django: read by value, beside other tables, never written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

import eventfold as ef
from eventfold.errors import NotSupported
from eventfold.selection.conditions import RowQuery
from eventfold.targets.sqlalchemy.read_models import table_of
from eventfold.testing.conformance.target.queries import Sale, Size, keys, sales, write_sales
from tests.support.servers import mariadb
from tests.targets.conftest import place

DJANGO = """
import sys
from decimal import Decimal
import django
from django.conf import settings
host, port, name, user, password = sys.argv[1:]
settings.configure(USE_TZ=True, DATABASES={"default": {"ENGINE": "django.db.backends.postgresql",
    "HOST": host, "PORT": port, "NAME": name, "USER": user, "PASSWORD": password}})
django.setup()
from django.db.models import Max
from eventfold.errors import NotSupported
from eventfold.selection.conditions import RowQuery
from eventfold.targets.django import django_model
from eventfold.testing.conformance.target.queries import COLUMNS, Sale, Size, plain, sales
model = django_model(Sale, app_label="shop")
rows = {(row.shop, row.item): row for row in sales(40)}
found = list(model.objects.all())
assert len(found) == 40
for each in found:
    own = rows[each.shop, each.item]
    for column in COLUMNS:
        value = getattr(each, column)
        value = bytes(value) if isinstance(value, memoryview) else value
        assert value == plain(getattr(own, column)), (column, value)
    assert each.pk == (own.shop, own.item)
rich = model.objects.filter(total__gt=Decimal(10)).order_by("-total")
expected = sorted((r.total for r in rows.values() if r.total is not None and r.total > 10), reverse=True)
assert [each.total for each in rich] == expected
assert model.objects.aggregate(Max("total"))["total__max"] == expected[0]
for size in Size:
    assert model.objects.filter(size=size).count() == sum(row.size is size for row in rows.values()) > 0
    assert model.objects.filter(size__in=[size]).count() == model.objects.filter(size=size.value).count()
for write in (found[0].save, found[0].delete, model.objects.all().delete, lambda: model.objects.update(count=1),
              lambda: model.objects.create(shop=9, item="x"), lambda: model._base_manager.update(count=1)):
    try:
        write()
    except NotSupported as error:
        assert "its runner only" in str(error)
    else:
        raise AssertionError(write)
print("read", len(found))
"""


@pytest.fixture(params=["sqlite+pysqlite", "postgresql+psycopg", pytest.param("mysql+pymysql", marks=mariadb.needed)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a new database."""
    return place(request.param, tmp_path)


@pytest.fixture
def store(address: str, tmp_path: Path) -> Iterator[ef.Store]:
    """A store whose target is that database, with 40 rows."""
    with ef.Store(str(tmp_path / "store.db"), target=address) as opened:
        opened.project(Sale)
        write_sales(opened, sales(40))
        yield opened


@pytest.mark.parametrize("address", ["sqlite+pysqlite"], indirect=True)
def test_a_table_with_decimals_or_moments_is_refused_on_sqlite(store: ef.Store, address: str) -> None:
    """SQLite has them as text and would compare them as text; the model of Django refuses them there as well."""
    engine = sa.create_engine(address)
    with engine.connect() as connection, pytest.raises(NotSupported, match="compare as text"):
        connection.execute(sa.select(table_of(Sale)))
    engine.dispose()


def test_thousands_of_joined_comparisons_are_answered(store: ef.Store) -> None:
    """SQLite refuses expressions of more than 1,000 levels."""
    shop = ef.col(Sale.shop)
    wanted = shop == 0
    for _ in range(3_000):
        wanted = wanted | (shop == 1)
    expected = {(row.shop, row.item) for row in store.rows(Sale) if row.shop in (0, 1)}
    assert set(keys(store.rows(Sale, wanted))) == expected != set()
    assert len(store.rows(Sale, ~wanted)) == 40 - len(expected)


@pytest.mark.parametrize("address", ["postgresql+psycopg"], indirect=True)
@pytest.mark.parametrize("order", ["-at", "at"])
def test_an_index_serves_later_pages_sorted_by_a_nullable_column(store: ef.Store, order: str) -> None:
    """PostgreSQL uses an index with NULL in the same place only: the index (-at) has it last."""
    selection = store.select(Sale, order=order)
    query = RowQuery(order=selection._order, after=(datetime(2026, 6, 1, tzinfo=UTC), 1, "a"), limit=5)
    explanation = selection._source.reader().explain(query)
    assert explanation.index == (("-at",) if order == "-at" else None), "backwards, the index has the key descending"
    place = "NULLS LAST" if order == "-at" else "NULLS FIRST"
    assert f"{place}, " in explanation.statement
    expected = [each for page in selection.pages(7) for each in page]
    assert expected == list(selection.rows())


@pytest.mark.parametrize(
    "address", ["postgresql+psycopg", pytest.param("mysql+pymysql", marks=mariadb.needed)], indirect=True
)
def test_a_read_model_is_a_table_of_sqlalchemy(store: ef.Store, address: str) -> None:
    """Every value is read as it was written; the table is joined and filtered, and refuses to be written to."""
    table = table_of(Sale)
    engine = sa.create_engine(address)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(table).order_by(table.c.shop, table.c.item)).all()
        assert sorted((row.shop, row.item) for row in rows) == keys(store.rows(Sale))
        by_key = {(row.shop, row.item): row for row in store.rows(Sale)}
        for row in rows:
            own = by_key[row.shop, row.item]
            assert (row.total, row.at, row.ref, row.done) == (own.total, own.at, own.ref, own.done)
            assert row.size == (None if own.size is None else own.size.value)
        for size in Size:
            same = sa.select(sa.func.count()).select_from(table).where(table.c.size == size)
            assert connection.execute(same).scalar_one() == len(store.rows(Sale, size=size)) > 0
        other = table.alias()
        joined = sa.select(sa.func.count()).select_from(table.join(other, table.c.shop == other.c.shop))
        assert connection.execute(joined).scalar_one() == sum(sum(1 for b in rows if b.shop == a.shop) for a in rows)
        for write in (sa.update(table).values(count=1), sa.delete(table)):
            with pytest.raises(NotSupported, match="its runner only"):
                connection.execute(write)
        for method in (table.insert, table.update, table.delete):
            with pytest.raises(NotSupported, match="its runner only"):
                method()
    store.projections.rebuild(Sale)
    store.projections.switch(Sale)
    with engine.connect() as connection:
        assert connection.execute(sa.select(table)).all() == [], "the view shows the generation that is live now"
    engine.dispose()


@pytest.mark.parametrize("address", ["postgresql+psycopg"], indirect=True)
def test_a_read_model_is_a_model_of_django(store: ef.Store, address: str) -> None:
    """Every value is read as it was written; it is filtered, sorted, aggregated, and refuses every write."""
    url = sa.make_url(address)
    given = (url.host or url.query.get("host", ""), url.port or url.query.get("port", ""), url.database, url.username)
    words = [*map(str, given), url.password or ""]
    ran = subprocess.run(
        [sys.executable, "-c", DJANGO, *words],
        capture_output=True,
        text=True,
        timeout=90,
        cwd=Path(__file__).parents[2],
    )
    assert ran.stdout == "read 40\n", ran.stderr
