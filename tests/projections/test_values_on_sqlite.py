"""Decimals and moments on SQLite: stored as text, and sorted by a second column or a function."""

from __future__ import annotations

import sqlite3
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventfold as ef
from eventfold.core.value_order import canonical, decimal_order, moment_order
from eventfold.errors import ProjectionChanged
from eventfold.testing.conformance.target.values import PRICES, ByPrice, Item, measured

DECIMALS = st.decimals(allow_nan=False) | st.sampled_from([Decimal(text) for text in PRICES])


@given(DECIMALS, DECIMALS)
def test_the_text_of_a_decimal_sorts_as_the_number(one: Decimal, other: Decimal) -> None:
    """Equal exactly where the numbers are equal, infinities included."""
    assert (decimal_order(one) < decimal_order(other)) == (one < other)
    assert (decimal_order(one) == decimal_order(other)) == (one == other)
    assert canonical(one) == one
    assert (str(canonical(one)) == str(canonical(other))) == (one == other)


@given(st.datetimes(timezones=st.timezones()), st.datetimes(timezones=st.timezones()))
def test_the_text_of_a_moment_sorts_as_the_moment(one: object, other: object) -> None:
    """This holds for all time zones."""
    from datetime import UTC, datetime

    assert isinstance(one, datetime) and isinstance(other, datetime)
    try:
        first, second = one.astimezone(UTC), other.astimezone(UTC)
    except OverflowError:
        return  # before year 1 or after year 9999 in UTC
    assert (moment_order(one) < moment_order(other)) == (first < second)
    assert (moment_order(one) == moment_order(other)) == (first == second)


def test_readers_see_the_columns_of_the_row_only(tmp_path: Path) -> None:
    """Another tool finds readable text under the read model's name, without the columns that exist for sorting."""
    path = tmp_path / "rows.db"
    with ef.Store(str(tmp_path / "store.db"), target=str(path)) as store:
        store.append(measured(1, "1.00"))
        store.project(ByPrice)
    other = sqlite3.connect(path)
    try:
        cursor = other.execute("SELECT * FROM value_price")
        assert [column[0] for column in cursor.description] == ["price", "at", "count"]
        assert cursor.fetchone() == ("1.00", "2026-06-01T12:00:00+00:00", 1)
    finally:
        other.close()


def made_by_an_older_release(store: ef.Store) -> None:
    """Put a table in place of the live one that tells keys apart by their text."""
    target = store.projections.target(ByPrice)
    with target.connect(write=True) as connection:  # type: ignore[attr-defined]
        for sql in (
            "DROP VIEW value_price",
            "DROP TABLE value_price__1",
            'CREATE TABLE value_price__1 ("price" TEXT NOT NULL, "at" TEXT NOT NULL, "count" INTEGER NOT NULL, '
            'PRIMARY KEY ("price", "at")) STRICT, WITHOUT ROWID',
            "CREATE VIEW value_price AS SELECT * FROM value_price__1",
            "INSERT INTO value_price__1 VALUES ('1.0', '2026-06-01T12:00:00+00:00', 1), "
            "('1.00', '2026-06-01T14:00:00+02:00', 1)",
        ):
            target._driver.execute(connection, sql)  # type: ignore[attr-defined]


def test_rows_of_an_older_release_are_read_and_have_to_be_rebuilt_once(tmp_path: Path) -> None:
    """They are not written to any more, since equal keys would become two rows; a rebuild is the only step needed."""
    url = str(tmp_path / "store.db")
    with ef.Store(url) as store:
        store.append(measured(1, "1.0"), measured(2, "1.00"))
        store.project(ByPrice, Item)
        made_by_an_older_release(store)
    with ef.Store(url) as store:
        assert len(store.rows(ByPrice, order="-price", price=1)) == 2
        with pytest.raises(ProjectionChanged, match=r"eventfold projections rebuild \S+ value_price --switch"):
            store.project(ByPrice)
        with pytest.raises(ProjectionChanged, match="by their text"):
            store.projections.accept(ByPrice)
        store.append(measured(1, "1.000"))
        store.project(Item)
    with ef.Store(url) as store:  # which has not read the old rows: comparing does not update them
        store.projections.rebuild(ByPrice)
        assert store.projections.compare(ByPrice).different == 2
        store.projections.switch(ByPrice)
        store.project(ByPrice)
        assert [(row.price, row.count) for row in store.rows(ByPrice)] == [(1, 3)]
