"""Random rows, filters, orders and pages: every target gives what Python's own comparison gives."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import eventfold as ef
from eventfold.ports.target import PartitionKey
from eventfold.projections.definition import projection_definition
from eventfold.selection import Filter
from eventfold.testing.conformance.target.queries import COLUMNS, Sale, Size, keys, plain, sorted_rows, write_sales
from tests.support.repetitions import repetitions

CHARACTERS = st.sampled_from([*"aAbZ z_%\t", "\x01", "ä", "ß", "\ud7ff", "\ue000", "\uffff", "𐀀", "𝒳"])
TEXTS = st.text(CHARACTERS, max_size=3)
FIRST = datetime(1900, 1, 1, tzinfo=UTC)
ZONES = st.integers(-12, 12).map(lambda hours: timezone(timedelta(hours=hours)))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "shop": st.integers(-2, 2),
    "item": TEXTS,
    "total": st.builds(lambda n, places: Decimal(n).scaleb(-places), st.integers(-(10**9), 10**9), st.integers(0, 9))
    | st.sampled_from([Decimal("0.0"), Decimal("1"), Decimal("1.00"), Decimal("-1E+3"), Decimal("27.27")]),
    "count": st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-2, 2),
    "ratio": st.floats(-1e300, 1e300, allow_subnormal=False) | st.sampled_from([0.0, 0.5, -0.5]),
    "note": TEXTS,
    "at": st.builds(
        lambda micros, zone: (FIRST + timedelta(microseconds=micros)).astimezone(zone),
        st.integers(0, 200 * 365 * 86_400 * 10**6) | st.integers(0, 3),
        ZONES,
    ),
    "day": st.dates(date(1900, 1, 1), date(2100, 1, 1)) | st.sampled_from([date(2026, 1, 1), date(2026, 1, 2)]),
    "ref": st.uuids() | st.sampled_from([UUID(int=0), UUID(int=1 << 127)]),
    "size": st.sampled_from(Size),
    "done": st.booleans(),
    "raw": st.binary(max_size=2),
}
KEYED = ("shop", "item")


@st.composite
def rows(draw: st.DrawFn) -> list[Sale]:
    """Up to twelve rows with different keys, some values missing."""
    found: dict[tuple[int, str], Sale] = {}
    for _ in range(draw(st.integers(0, 12))):
        own = {name: draw(VALUES[name] if name in KEYED else st.none() | VALUES[name]) for name in COLUMNS}
        row = Sale(**own)
        found[row.shop, row.item] = row
    return list(found.values())


class Asked(NamedTuple):
    """A filter, and the same in Python."""

    wanted: Filter
    satisfies: Callable[[Sale], bool]


def compared(name: str, value: Any, operator: str) -> Asked:
    """One comparison."""
    column: Any = ef.col(getattr(Sale, name))
    than = plain(value)

    def present(test: Callable[[Any], bool]) -> Callable[[Sale], bool]:
        return lambda row: getattr(row, name) is not None and test(plain(getattr(row, name)))

    match operator:
        case "<":
            return Asked(column < value, present(lambda own: own < than))
        case "<=":
            return Asked(column <= value, present(lambda own: own <= than))
        case ">":
            return Asked(column > value, present(lambda own: own > than))
        case ">=":
            return Asked(column >= value, present(lambda own: own >= than))
        case "==":
            return Asked(column == value, present(lambda own: own == than))
        case "!=":
            return Asked(column != value, lambda row: plain(getattr(row, name)) != than)
        case "in":
            return Asked(column.in_([value, None]), lambda row: plain(getattr(row, name)) in (than, None))
        case _:
            return Asked(column.is_null(), lambda row: getattr(row, name) is None)


OPERATORS = st.sampled_from(["<", "<=", ">", ">=", "==", "!=", "in", "null"])


def prefixed(text: str) -> Asked:
    """A prefix."""
    return Asked(ef.col(Sale.note).prefix(text), lambda row: row.note is not None and row.note.startswith(text))


def both(a: Asked, b: Asked) -> Asked:
    """And."""
    return Asked(a.wanted & b.wanted, lambda row: a.satisfies(row) and b.satisfies(row))


def either(a: Asked, b: Asked) -> Asked:
    """Or."""
    return Asked(a.wanted | b.wanted, lambda row: a.satisfies(row) or b.satisfies(row))


def opposite(a: Asked) -> Asked:
    """Not."""
    return Asked(~a.wanted, lambda row: not a.satisfies(row))


COMPARISONS = TEXTS.map(prefixed) | st.sampled_from(COLUMNS).flatmap(
    lambda name: st.builds(compared, st.just(name), VALUES[name], OPERATORS)
)


def combined(parts: st.SearchStrategy[Asked]) -> st.SearchStrategy[Asked]:
    """And, or, not."""
    return st.builds(both, parts, parts) | st.builds(either, parts, parts) | st.builds(opposite, parts)


TESTS = st.recursive(COMPARISONS, combined, max_leaves=5)
TERMS = st.sampled_from([*COLUMNS, *(f"-{name}" for name in COLUMNS)])
ORDERS = st.lists(TERMS, max_size=3, unique_by=lambda term: term.removeprefix("-"))


def order_by_python(found: list[Sale], order: list[str]) -> list[tuple[int, str]]:
    """The keys of rows in the order that Python gives them."""
    return keys(sorted_rows(found, *order))


@settings(max_examples=repetitions(10, 25), deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(rows(), st.lists(st.tuples(TESTS, ORDERS), min_size=1, max_size=3), st.integers(1, 5))
def test_random_queries_give_what_python_gives(
    store: ef.Store, stored: list[Sale], asked: list[tuple[Asked, list[str]]], size: int
) -> None:
    """Rows, pages, counts, sums and extremes, of the table and of a view's evaluation in memory."""
    store.project(Sale)
    write_sales(store, stored)
    for test, order in asked:
        expected = order_by_python([row for row in stored if test.satisfies(row)], order)
        assert keys(store.rows(Sale, test.wanted, order=order)) == expected
        selection = store.select(Sale, test.wanted, order=order)
        assert [key for page in selection.pages(size) for key in keys(page)] == expected
        assert selection.count() == len(expected)
        assert selection.sum(ef.col(Sale.count)) == sum(row.count or 0 for row in stored if test.satisfies(row))
        view = store.view(Sale)
        view._rows.update({(row.shop, row.item): row for row in stored})  # pyright: ignore[reportPrivateUsage]
        assert keys(view.rows(test.wanted, order=order)) == expected
        assert [key for page in view.select(test.wanted, order=order).pages(size) for key in keys(page)] == expected


def test_pages_beside_a_writer_have_every_row_that_does_not_change_once(store: ef.Store) -> None:
    """While other rows are inserted, changed and deleted, in the pages' order and against it."""
    store.project(Sale)
    kept = [Sale(0, f"k{n:03}", Decimal(n % 17)) for n in range(150)]
    write_sales(store, kept)
    ended, failed = threading.Event(), list[BaseException]()

    def write() -> None:
        number = 0
        try:
            while not ended.is_set():
                number += 1
                others = [Sale(1, f"o{n:02}", Decimal((n * 7 + number) % 19)) for n in range(number % 30)]
                write_sales_of_shop(store, others)
        except BaseException as error:  # noqa: BLE001 (the assertion below reports it)
            failed.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for order in ("total", "-total", ("-total", "note", "-item")):
            for _ in range(repetitions(1, 3)):
                found = [row for page in store.select(Sale, order=order).pages(7) for row in page if row.shop == 0]
                assert keys(found) == keys(sorted_rows(kept, *([order] if isinstance(order, str) else order)))
    finally:
        ended.set()
        writer.join()
    assert not failed


def write_sales_of_shop(store: ef.Store, others: list[Sale]) -> None:
    """Replace the rows of shop 1 in one transaction, as a runner does."""
    codec = projection_definition(Sale).rows
    assert codec is not None
    table = codec.of_generation(1)
    known = [(1, f"o{n:02}") for n in range(30)]
    with store.projections.target(Sale).transaction(PartitionKey("query_sale", 1)) as tx:
        tx.delete(table, codec.pack_keys(known))
        if others:
            tx.upsert(table, codec.pack_all(others))
