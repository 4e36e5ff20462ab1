"""Conditions: checked filters, as targets receive them, and queries made of them.

Negation is resolved and each value has the type of its column. A comparison with a missing value (NULL) counts as
false, as in SQL. Knows: columns. Does not know: user classes, databases.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from eventfold.core.table import Column

CompareOperator = Literal["=", "!=", "<", "<=", ">", ">="]


class Compare(msgspec.Struct, frozen=True):
    """The column has a value, and the comparison with `value` (never None) is true."""

    column: Column
    operator: CompareOperator
    value: Any


class OneOf(msgspec.Struct, frozen=True):
    """The column has a value, which is one of these; `negated`: which is none of these. At least one value."""

    column: Column
    values: tuple[Any, ...]
    negated: bool = False


class Missing(msgspec.Struct, frozen=True):
    """The column has no value; `negated`: it has one."""

    column: Column
    negated: bool = False


class AllOf(msgspec.Struct, frozen=True):
    """Every part is true; without parts: every row."""

    parts: tuple[Condition, ...] = ()


class AnyOf(msgspec.Struct, frozen=True):
    """Any part is true; without parts: no row."""

    parts: tuple[Condition, ...] = ()


Condition = Compare | OneOf | Missing | AllOf | AnyOf
EVERY_ROW = AllOf()


class OrderTerm(msgspec.Struct, frozen=True):
    """A column by which rows are sorted. Missing values are last in both directions."""

    column: Column
    descending: bool = False

    def __str__(self) -> str:
        return f"{'-' if self.descending else ''}{self.column.name}"


class RowQuery(msgspec.Struct, frozen=True):
    """Rows to find: up to `limit` (None: all) that satisfy the condition, in this order.

    `order` ends with the columns of the key, so it is total; empty: any order. `after`: the values of the order's
    columns in a row, after which the rows start; None: from the first.
    """

    condition: Condition = EVERY_ROW
    order: tuple[OrderTerm, ...] = ()
    after: tuple[Any, ...] | None = None
    limit: int | None = None


def top_level(condition: Condition) -> Iterator[Condition]:
    """Yield the conditions that all must be true."""
    if isinstance(condition, AllOf):
        for part in condition.parts:
            yield from top_level(part)
    else:
        yield condition
