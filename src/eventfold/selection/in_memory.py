"""Queries answered over rows in memory: for views, and for targets that have no query language.

Knows: conditions, Python's values. Does not know: databases.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, localcontext
from math import isnan
from typing import Any

from eventfold.core.table import Column, Table
from eventfold.selection.conditions import AllOf, AnyOf, Compare, Condition, Missing, OneOf, OrderTerm, RowQuery

Row = Sequence[Any]
Test = Callable[[Row], bool]
COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN)


def order_key(column: Column) -> Callable[[Any], Any]:
    """Return the function whose results sort as values of the column do. NaN is greater than every number."""
    match column.kind:
        case "decimal":
            return lambda value: (True, 0) if value.is_nan() else (False, value)
        case "float":
            return lambda value: (True, 0.0) if isnan(value) else (False, value)
        case "moment":
            return lambda value: value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        case _:
            return lambda value: value


def test_of(table: Table, condition: Condition) -> Test:
    """Return the function that says whether a row satisfies the condition."""
    match condition:
        case AllOf(parts):
            tests = [test_of(table, part) for part in parts]
            return lambda row: all(test(row) for test in tests)
        case AnyOf(parts):
            tests = [test_of(table, part) for part in parts]
            return lambda row: any(test(row) for test in tests)
        case Missing(column, negated):
            at = table.fields.index(column.name)
            return lambda row: (row[at] is None) is not negated
        case OneOf(column, values, negated):
            at, key = table.fields.index(column.name), order_key(column)
            known = {key(value) for value in values}
            return lambda row: row[at] is not None and (key(row[at]) in known) is not negated
        case Compare(column, sign, value):
            at, key, compare = table.fields.index(column.name), order_key(column), COMPARE[sign]
            than = key(value)
            return lambda row: row[at] is not None and compare(key(row[at]), than)


def find(rows: Iterable[Row], table: Table, query: RowQuery) -> list[Row]:
    """Return the rows that a query asks for."""
    test = test_of(table, query.condition)
    found = [row for row in rows if test(row)]
    for term in reversed(query.order):
        found.sort(key=_term_key(table, term), reverse=term.descending)
    if query.after is not None:
        later = _is_after(table, query.order, query.after)
        found = [row for row in found if later(row)]
    return found if query.limit is None else found[: query.limit]


def _term_key(table: Table, term: OrderTerm) -> Callable[[Row], Any]:
    at, key, down = table.fields.index(term.column.name), order_key(term.column), term.descending
    return lambda row: _with_missing(row[at], key, down)


def _with_missing(value: Any, key: Callable[[Any], Any], down: bool) -> tuple[Any, ...]:
    """Missing values are last: the least where the order is reversed."""
    return (not down,) if value is None else (down, key(value))


def _is_after(table: Table, order: Sequence[OrderTerm], after: Row) -> Test:
    terms = [
        (table.fields.index(term.column.name), order_key(term.column), term.descending, value)
        for term, value in zip(order, after, strict=True)
    ]

    def later(row: Row) -> bool:
        for at, key, down, than in terms:
            value = row[at]
            if value is None or than is None:
                if value is not than:
                    return value is None
                continue
            own, other = key(value), key(than)
            if own != other:
                return (own < other) is down
        return False

    return later


def count_by(rows: Iterable[Row], table: Table, condition: Condition, column: Column) -> list[tuple[Any, int]]:
    """Return each value of a column, and None, with the number of rows that have it."""
    test, at, key = test_of(table, condition), table.fields.index(column.name), order_key(column)
    counts: dict[Any, list[Any]] = {}
    for row in rows:
        if test(row):
            value = row[at]
            counts.setdefault(None if value is None else key(value), [value, 0])[1] += 1
    return [(value, count) for value, count in counts.values()]


def total(column: Column, values: Iterable[Any]) -> Any:
    """Return the sum of numbers of a column; None are left out. Decimals are added exactly."""
    known = [value for value in values if value is not None]
    return sum_of_decimals((value, 1) for value in known) if column.kind == "decimal" else sum(known)


def sum_of_decimals(counted: Iterable[tuple[Decimal, int]]) -> Decimal:
    """Return the exact sum of decimals, each as often as its count says."""
    with localcontext(EXACT):
        return sum((value * count for value, count in counted), Decimal(0))
