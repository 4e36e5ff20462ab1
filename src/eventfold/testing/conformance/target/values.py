"""Rows compare by value: order, filters, keys and digests of decimals, moments, dates, UUIDs, enums and booleans."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

import eventfold as ef

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
BERLIN, DENVER = timezone(timedelta(hours=2)), timezone(timedelta(hours=-6))


class Size(Enum):
    """An enum whose names sort differently from its values."""

    SMALL = "c"
    LARGE = "a"


class Measured(ef.Event, type="conformance.measured"):
    """A value of each kind."""

    item: str
    price: Decimal
    at: datetime
    day: date
    uuid: UUID
    size: Size
    sold: bool


class Item(ef.Projection, name="value_item", indexes=["price"]):
    """A row of values."""

    item: str
    price: Decimal = Decimal(0)
    at: datetime = NOON
    day: date = date(2026, 1, 1)
    uuid: UUID = UUID(int=0)
    size: Size = Size.SMALL
    sold: bool = False
    vat: Decimal = Decimal(0)

    def evolve(self, event: Measured) -> None:
        """Store the values of the event."""
        self.price, self.at, self.day, self.uuid = event.price, event.at, event.day, event.uuid
        self.size, self.sold, self.vat = event.size, event.sold, event.price


class ByPrice(ef.Projection, name="value_price"):
    """A row for each price and moment."""

    price: Decimal
    at: datetime
    count: int = 0

    def evolve(self, event: Measured) -> None:
        """Count one."""
        self.count += 1


class SplitByPrice(ef.Projection, name="value_split", partitions=3):
    """A row for each price, in three partitions."""

    price: Decimal
    count: int = 0

    def evolve(self, event: Measured) -> None:
        """Count one."""
        self.count += 1


PRICES = "0 9.99 27.27 -3 -20 1.0 1.00 1E+3 1000.5 100000000000.01 100000000000.02 1E-8 -1E-8 -0.5 -0.49".split()


def measured(number: int, price: str, at: datetime = NOON) -> Measured:
    """An event with a value of each kind."""
    size = Size.LARGE if number % 3 else Size.SMALL
    day = date(2026, 1, 1) + timedelta(days=number * 7 % 11)
    return Measured(f"i{number:02}", Decimal(price), at, day, UUID(int=number * 7919 % 31), size, number % 2 == 0)


def moments() -> list[datetime]:
    """Times in three zones, whose texts sort differently from the times."""
    zones = (UTC, BERLIN, DENVER)
    offsets = (0, 90, -60, 30, 3600 * 5, -3600 * 4, 1, 0, 7, 3600, 7200, 59, 61, 3601, 8)
    return [(NOON + timedelta(seconds=each)).astimezone(zones[n % 3]) for n, each in enumerate(offsets)]


@pytest.fixture
def filled(store: ef.Store) -> ef.Store:
    """A store with a row for each price."""
    store.extend(measured(n, price, at) for n, (price, at) in enumerate(zip(PRICES, moments(), strict=True)))
    store.project(Item)
    return store


@pytest.mark.parametrize("column", ["price", "at", "day", "uuid", "size", "sold", "vat"])
def test_rows_are_ordered_by_value(filled: ef.Store, column: str) -> None:
    """Ascending and descending, with an index and without, rows are in Python's order of the values."""

    def value(row: Item) -> Any:
        found = getattr(row, column)
        return found.value if isinstance(found, Enum) else found

    rows = [value(row) for row in filled.rows(Item, order=column)]
    assert rows == sorted(rows)
    down = [value(row) for row in filled.rows(Item, order=f"-{column}")]
    assert down == sorted(rows, reverse=True)
    assert len(rows) == len(PRICES)


class Sparse(ef.Projection, name="value_sparse", indexes=["vat"]):
    """A row whose values may be missing, with an index and without."""

    item: str
    vat: Decimal | None = None
    at: datetime | None = None

    def evolve(self, event: Measured) -> None:
        """Leave the values of small sizes missing."""
        if event.size is Size.LARGE:
            self.vat, self.at = event.price, event.at


@pytest.mark.parametrize("column", ["vat", "at"])
def test_none_is_last(filled: ef.Store, column: str) -> None:
    """Missing values are last in ascending and in descending order, on every target."""
    filled.project(Sparse)
    up = [getattr(row, column) is None for row in filled.rows(Sparse, order=column)]
    down = [getattr(row, column) is None for row in filled.rows(Sparse, order=f"-{column}")]
    assert (up, down) == (sorted(up), sorted(down))
    assert set(up) == {True, False}


def test_rows_are_found_by_value(filled: ef.Store) -> None:
    """1 finds 1.0 and 1.00; a time finds equal times in any zone; enums, dates, UUIDs and booleans find equal ones."""
    for column in ("price", "vat"):
        found = filled.rows(Item, {column: Decimal("1.000")})
        assert [row.item for row in found] == ["i05", "i06"]
        assert [row.item for row in filled.rows(Item, {column: 1})] == ["i05", "i06"]
    at = moments()[4]
    for zone in (UTC, BERLIN, DENVER):
        assert [row.item for row in filled.rows(Item, at=at.astimezone(zone))] == ["i04"]
    for row in filled.rows(Item):
        for column in ("day", "uuid", "size", "sold"):
            assert row in filled.rows(Item, {column: getattr(row, column)})


def test_equal_keys_are_one_row_however_events_came(store: ef.Store) -> None:
    """Events one by one, as for a runner, and in one page, as for a rebuild, give the same rows and digests."""
    later = NOON.astimezone(BERLIN)
    for number, (price, at) in enumerate((("1.0", NOON), ("1.00", later), ("1", NOON), ("2", later), ("0E+1", NOON))):
        store.append(measured(number, price, at))
        store.project(ByPrice, SplitByPrice)
    for projection in (ByPrice, SplitByPrice):
        one_by_one = {(row.price, row.count) for row in store.rows(projection)}
        assert one_by_one == {(Decimal(1), 3), (Decimal(2), 1), (Decimal(0), 1)}
        store.projections.rebuild(projection)
        comparison = store.projections.compare(projection)
        assert comparison.equal
        assert comparison.digests[0] == comparison.digests[1]
        store.projections.switch(projection)
        assert {(row.price, row.count) for row in store.rows(projection)} == one_by_one
        assert all(proof.proved for proof in store.projections.verify(projection))
        assert all(proof.proved for proof in store.projections.verify_rows(projection))


def test_a_row_that_is_not_kept_is_deleted_by_the_value_of_its_key(store: ef.Store) -> None:
    """An event with the key 1.0 deletes the row that was written with the key 1.00."""

    class Open(ef.Projection, name="value_open"):
        price: Decimal
        count: int = 0

        def evolve(self, event: Measured) -> None:
            self.count += 1

        def keep(self) -> bool:
            return self.count < 2

    for number, price in enumerate(("1.00", "1.0", "3")):
        store.append(measured(number, price))
        store.project(Open)
    assert [row.price for row in store.rows(Open)] == [3]
