"""Filters: values that say which rows of a read model are wanted, made by comparing its columns.

A filter is checked when it is used (check.py). Knows: operators, and, or, not. Does not know: tables, databases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NoReturn

import msgspec

from eventfold.errors import InvalidFilter

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in", "prefix"]


class Filter(msgspec.Struct, frozen=True, eq=False):
    """Which rows are wanted. `a & b`: those of both; `a | b`: of either; `~a`: all that `a` does not select."""

    def __and__(self, other: Filter) -> Filter:
        return Combined("and", (*_parts("and", self), *_parts("and", other)))

    def __or__(self, other: Filter) -> Filter:
        return Combined("or", (*_parts("or", self), *_parts("or", other)))

    if not TYPE_CHECKING:  # type checkers report it

        def __rand__(self, other: Any) -> NoReturn:
            raise _not_a_filter(other)

        __ror__ = __rand__

    def __invert__(self) -> Filter:
        return Negated(self)

    def __bool__(self) -> NoReturn:
        raise InvalidFilter(
            "A filter is neither true nor false, so `and`, `or`, `not` and a < b < c cannot combine it.",
            "Write & for and, | for or, ~ for not, each comparison in parentheses; and .between(a, b) for a range.",
        )


class Comparison(Filter, frozen=True, eq=False):
    """A column compared with a value: a list of values for `in`. `model`: the class of the column; None: any."""

    model: type | None
    column: str
    operator: Operator
    value: Any


class Combined(Filter, frozen=True, eq=False):
    """The rows of all parts (and), or of any (or)."""

    operator: Literal["and", "or"]
    parts: tuple[Filter, ...]


class Negated(Filter, frozen=True, eq=False):
    """All rows that the part does not select."""

    part: Filter


def _parts(operator: str, given: Any) -> tuple[Filter, ...]:
    if not isinstance(given, Filter):
        raise _not_a_filter(given)
    return given.parts if isinstance(given, Combined) and given.operator == operator else (given,)


def _not_a_filter(given: Any) -> InvalidFilter:
    return InvalidFilter(
        f"{given!r} is not a filter, so it cannot be combined with one.",
        "Put each comparison in parentheses: (ef.col(Balance.total) > 5) & (ef.col(Balance.total) < 9).",
    )
