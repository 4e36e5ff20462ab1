"""Queries for rows: filters, orders, pages, counts and sums give what Python's own comparison of the values gives."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

import eventfold as ef
from eventfold.errors import InvalidFilter
from eventfold.ports.target import PartitionKey, Target
from eventfold.projections.definition import projection_definition

NAME = "query_sale"
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
# Sorted by code point. Databases that sort by language, without case or by UTF-16 sort them differently.
TEXTS = ["", "\t", " ", "10", "9", "A", "Z", "_", "a", "a ", "ab", "ab%", "ab_c", "abc", "b", "z", "ä", "ﬀ", "𐀀", "𝒳"]
MAX_INT = (1 << 63) - 1


class Size(Enum):
    """An enum whose names sort differently from its values."""

    SMALL = "c"
    MIDDLE = "b"
    LARGE = "a"


class Sold(ef.Event, type="conformance.sold"):
    """An event that no test appends: rows are written directly."""

    shop: int
    item: str


class Sale(ef.Projection, name=NAME, indexes=[("size", "-total"), "note", "-at"]):
    """A row with a nullable column of each kind."""

    shop: int
    item: str
    total: Decimal | None = None
    count: int | None = None
    ratio: float | None = None
    note: str | None = None
    at: datetime | None = None
    day: date | None = None
    ref: UUID | None = None
    size: Size | None = None
    done: bool | None = None
    raw: bytes | None = None
    parts: tuple[str, ...] = ()

    def evolve(self, event: Sold) -> None:
        """Do nothing."""


SHOP, ITEM, TOTAL, COUNT = ef.col(Sale.shop), ef.col(Sale.item), ef.col(Sale.total), ef.col(Sale.count)
RATIO, NOTE, AT, DAY = ef.col(Sale.ratio), ef.col(Sale.note), ef.col(Sale.at), ef.col(Sale.day)
REF, SIZE, DONE, RAW = ef.col(Sale.ref), ef.col(Sale.size), ef.col(Sale.done), ef.col(Sale.raw)
COLUMNS = ["shop", "item", "total", "count", "ratio", "note", "at", "day", "ref", "size", "done", "raw"]


def sales(number: int) -> list[Sale]:
    """Rows with every kind of value, some missing, with many equal ones."""
    pick = random.Random(number)  # noqa: S311

    def some(value: Callable[[], Any]) -> Any:
        return None if pick.random() < 0.2 else value()

    return [
        Sale(
            n % 3,
            f"{pick.choice(TEXTS)}{n}",
            some(lambda: Decimal(pick.randint(-300, 300)) / pick.choice([1, 2, 100])),
            some(lambda: pick.choice([0, -1, 1, 7, MAX_INT, -MAX_INT - 1, 2**53 + 1])),
            some(lambda: pick.choice([0.0, -0.5, 1.5, 1e300, -1e-9])),
            some(lambda: pick.choice(TEXTS)),
            some(lambda: (NOON + timedelta(minutes=pick.randint(-90, 90))).astimezone(timezone(timedelta(hours=2)))),
            some(lambda: date(2026, 1, 1) + timedelta(days=pick.randint(-5, 5))),
            some(lambda: UUID(int=pick.choice([0, 1, 1 << 127, (1 << 128) - 1]))),
            some(lambda: pick.choice(list(Size))),
            some(lambda: pick.random() < 0.5),
            some(lambda: pick.choice([b"", b"\x00", b"a", b"\xff", b"a\x00"])),
        )
        for n in range(number)
    ]


def write_sales(store: ef.Store, rows: list[Sale]) -> None:
    """Replace all rows of the read model."""
    codec = projection_definition(Sale).rows
    assert codec is not None
    target: Target = store.projections.target(Sale)
    table = codec.of_generation(1)
    with target.transaction(PartitionKey(NAME, 1)) as tx:
        tx.delete(table, codec.pack_keys(codec.keys_of(store.rows(Sale))))
        tx.upsert(table, codec.pack_all(rows))


@pytest.fixture
def asked(store: ef.Store) -> ef.Store:
    """A store with 60 rows."""
    store.project(Sale)
    write_sales(store, sales(60))
    return store


def plain(value: Any) -> Any:
    """A value as it is compared."""
    return value.value if isinstance(value, Enum) else value


def sorted_rows(rows: list[Sale], *order: str) -> list[Sale]:
    """Rows sorted by Python: None last, then by key."""
    found = sorted(rows, key=lambda row: (row.shop, row.item))
    for name in reversed(order):
        own = name.removeprefix("-")
        present = [row for row in found if getattr(row, own) is not None]
        present.sort(key=lambda row: plain(getattr(row, own)), reverse=own != name)
        found = present + [row for row in found if getattr(row, own) is None]
    return found


def keys(rows: list[Sale]) -> list[tuple[int, str]]:
    """The keys of rows."""
    return [(row.shop, row.item) for row in rows]


def test_rows_are_sorted_by_value_and_then_by_key(asked: ef.Store) -> None:
    """By each column, ascending and descending, text by code point, missing values last; also by several columns."""
    rows = asked.rows(Sale)
    assert len(rows) == 60
    for name in COLUMNS:
        assert keys(asked.rows(Sale, order=name)) == keys(sorted_rows(rows, name)), name
        assert keys(asked.rows(Sale, order=f"-{name}")) == keys(sorted_rows(rows, f"-{name}")), name
    assert keys(asked.rows(Sale, order=["-done", "size", "-total"])) == keys(
        sorted_rows(rows, "-done", "size", "-total")
    )


def test_a_comparison_selects_by_value(asked: ef.Store) -> None:
    """Every operator on every kind, and its opposite; a missing value satisfies none but the opposite."""
    rows = asked.rows(Sale)
    values: list[tuple[Any, str, Any]] = [
        (TOTAL, "total", Decimal("-1.50")),
        (TOTAL, "total", Decimal(3)),
        (COUNT, "count", 1),
        (COUNT, "count", MAX_INT),
        (RATIO, "ratio", -0.5),
        (NOTE, "note", "a"),
        (NOTE, "note", "ä"),
        (NOTE, "note", ""),
        (AT, "at", NOON),
        (DAY, "day", date(2026, 1, 2)),
        (REF, "ref", UUID(int=1 << 127)),
        (SIZE, "size", Size.MIDDLE),
        (DONE, "done", False),
        (RAW, "raw", b"a"),
    ]
    for column, name, value in values:
        than = plain(value)
        tests: list[tuple[Any, Callable[[Any], bool]]] = [
            (column < value, lambda v, t=than: v < t),
            (column <= value, lambda v, t=than: v <= t),
            (column > value, lambda v, t=than: v > t),
            (column >= value, lambda v, t=than: v >= t),
            (column == value, lambda v, t=than: v == t),
            (column.in_([value]), lambda v, t=than: v == t),
            (column.between(value, value), lambda v, t=than: v == t),
        ]
        for wanted, satisfies in tests:
            found = [row for row in rows if getattr(row, name) is not None and satisfies(plain(getattr(row, name)))]
            assert keys(asked.rows(Sale, wanted)) == keys(found), (name, value, wanted)
            others = [row for row in rows if row not in found]
            assert keys(asked.rows(Sale, ~wanted)) == keys(others), (name, value, wanted)
        assert keys(asked.rows(Sale, column != value)) == keys(asked.rows(Sale, ~(column == value)))


def test_filters_are_combined(asked: ef.Store) -> None:
    """And, or, not, missing values, lists with None, keywords and dicts."""
    rows = asked.rows(Sale)
    wanted = ~((SIZE == Size.LARGE) | TOTAL.is_null()) & ~(COUNT.in_([1, 7, None]) & (DONE == True))  # noqa: E712
    found = [
        row
        for row in rows
        if not (row.size is Size.LARGE or row.total is None) and not (row.count in (1, 7, None) and row.done is True)
    ]
    assert found
    assert keys(asked.rows(Sale, wanted)) == keys(found)
    assert keys(asked.rows(Sale, wanted, {"shop": 1}, done=None)) == keys(
        [row for row in found if row.shop == 1 and row.done is None]
    )
    assert keys(asked.rows(Sale, ~NOTE.in_(["a", None]))) == keys([row for row in rows if row.note not in ("a", None)])
    assert asked.rows(Sale, NOTE.in_([])) == []
    assert len(asked.rows(Sale, ~NOTE.in_([]))) == len(rows)


def test_a_prefix_is_compared_by_character(asked: ef.Store) -> None:
    """Case, trailing blanks and the wildcards of LIKE are plain characters."""
    rows = asked.rows(Sale)
    for prefix in ("", "a", "ab", "ab%", "ab_", "Z", "ﬀ", "𐀀", "a "):
        found = [row for row in rows if row.note is not None and row.note.startswith(prefix)]
        assert keys(asked.rows(Sale, NOTE.prefix(prefix))) == keys(found), prefix
        assert keys(asked.rows(Sale, ~NOTE.prefix(prefix))) == keys([row for row in rows if row not in found]), prefix


@pytest.mark.parametrize(
    "order",
    [(), "-total", "total", ("size", "-total"), ("-at", "note"), ("done", "-raw", "ref"), "-item", ("ratio", "shop")],
)
def test_pages_have_every_row_once_in_order(asked: ef.Store, order: Any) -> None:
    """The pages of any size together are the rows; the last has no cursor."""
    for wanted, sizes in (([], (7, 60)), ([~(SIZE == Size.SMALL)], (13, 1000)), ([SHOP == 1], (1, 20))):
        rows = asked.rows(Sale, *wanted, order=order)
        assert len(rows) == sizes[1] or sizes[1] > 60
        for size in sizes:
            pages = list(asked.select(Sale, *wanted, order=order).pages(size))
            assert [key for page in pages for key in keys(page)] == keys(rows)
            assert {len(page) for page in pages[:-1]} <= {size}


def test_a_page_continues_after_a_row_that_was_deleted(asked: ef.Store) -> None:
    """A cursor is a place in the order, not a number of rows: rows that do not change are read once."""
    rows = asked.rows(Sale, order="-total")
    page = asked.rows(Sale, order="-total", limit=10)
    write_sales(asked, [row for row in rows if keys([row])[0] not in keys(page[5:])])
    following = asked.rows(Sale, order="-total", limit=100, after=page.next)
    assert keys(following) == keys(rows[10:])


def test_counts_sums_and_extremes(asked: ef.Store) -> None:
    """Missing values are left out of sums and extremes; numbers are added exactly."""
    rows = asked.rows(Sale)
    for wanted, found in (([], rows), ([SHOP == 1], [row for row in rows if row.shop == 1]), ([SHOP == 9], [])):
        selection = asked.select(Sale, *wanted)
        assert selection.count() == len(found)
        assert selection.exists() is bool(found)
        assert selection.first() == (found[0] if found else None)
        assert selection.sum(TOTAL) == sum((row.total for row in found if row.total is not None), Decimal(0))
        assert selection.sum(COUNT) == sum(row.count for row in found if row.count is not None)
        assert selection.sum(RATIO) == pytest.approx(sum(row.ratio for row in found if row.ratio is not None))
        for name in COLUMNS:
            column: Any = ef.col(getattr(Sale, name))
            present = [getattr(row, name) for row in found if getattr(row, name) is not None]
            assert selection.min(column) == min(present, key=plain, default=None), name
            assert selection.max(column) == max(present, key=plain, default=None), name
            if name != "raw":
                assert selection.count_by(column) == Counter(getattr(row, name) for row in found), name


def test_a_query_is_explained(asked: ef.Store) -> None:
    """The explanation has the statement and the plan of the database."""
    explanation = asked.select(Sale, size=Size.LARGE, order="-total").explain()
    assert NAME in explanation.statement
    assert any(explanation.plan)
    if asked.projections.target(Sale).creates_indexes and "sqlite+" not in asked.projections.target(Sale).address:
        assert explanation.index == ("size", "-total")
    assert asked.select(Sale, parts_of_key()).explain().index == ("shop", "item")
    assert asked.select(Sale, order="-raw").explain().index is None


def parts_of_key() -> Any:
    """A filter that finds one row."""
    return (SHOP == 1) & (ITEM == "a")


def test_cursors_of_other_queries_are_refused(asked: ef.Store) -> None:
    """Another filter, another order, a changed text: each is named."""
    cursor = asked.rows(Sale, SHOP > 0, order="-total", limit=5).next
    assert cursor is not None
    assert asked.rows(Sale, SHOP > 0, order=["-total"], limit=5, after=cursor)
    for ask, why in (
        (lambda: asked.rows(Sale, SHOP > 1, order="-total", after=cursor), "another filter"),
        (lambda: asked.rows(Sale, SHOP > 0, order="total", after=cursor), "sorted by -total,shop,item"),
        (lambda: asked.rows(Sale, SHOP > 0, order="-total", after=cursor[:-2]), "not a cursor"),
        (lambda: asked.rows(Sale, SHOP > 0, order="-total", after="é"), "not a cursor"),
    ):
        with pytest.raises(InvalidFilter, match=why):
            ask()


def test_a_cursor_of_an_earlier_generation_is_refused(asked: ef.Store) -> None:
    """After a rebuild was switched to, a page cannot be continued; with generation= it can."""
    cursor = asked.rows(Sale, limit=5).next
    asked.projections.rebuild(Sale)
    asked.projections.switch(Sale)
    with pytest.raises(InvalidFilter, match="generation 1"):
        asked.rows(Sale, limit=5, after=cursor)
    assert len(asked.rows(Sale, limit=5, after=cursor, generation=1)) == 5


def test_the_order_of_u0000_is_refused_and_its_equality_is_not(asked: ef.Store) -> None:
    """Databases sort U+0000 differently, or cannot store it."""
    for wanted in (lambda: NOTE < "a\0", lambda: NOTE.prefix("\0")):
        with pytest.raises(InvalidFilter, match=r"U\+0000"):
            asked.rows(Sale, wanted())
    assert asked.rows(Sale, NOTE == "a\0") == []
