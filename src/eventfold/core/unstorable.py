"""Checks for values that no target can store in a row, and errors that name the column, the value and the reason.

Knows: kinds of columns. Does not know: any database; the text of a database's error is only searched for the value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Any, cast

from eventfold.core.table import KINDS, Column, ColumnKind, columns_of, is_of_kind
from eventfold.errors import InvalidProjection

EDGE_YEARS = (1, 9999)  # the years in which a conversion to UTC may leave the range of datetime
PLAIN_TYPES: dict[ColumnKind, type] = {kind: of for of, kind in KINDS}
MIN_INT, MAX_INT = -(1 << 63), (1 << 63) - 1
MAX_DIGITS = 16_000  # digits of a decimal, before or after the point
SHOWN_CHARACTERS = 200  # characters of a value that a message quotes
MIN_SHOWN_CHARACTERS = 4  # characters of a value that are searched for in a database's error


def why_unstorable(column: Column, value: Any) -> str:
    """Return why no target can store a value in this column; "" if it can be stored."""
    if value is None:
        return "" if column.nullable else "it must have a value"
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return "text with lone surrogates cannot be stored"
    if isinstance(value, datetime) and not _is_in_calendar(value):
        return "in UTC it is outside the years 1 to 9999"
    if column.kind == "int" and isinstance(value, int) and not MIN_INT <= value <= MAX_INT:
        return "a whole number in a column has 64 bits"
    return ""


def _is_in_calendar(moment: datetime) -> bool:
    try:
        moment.astimezone(UTC)
    except OverflowError:
        return False
    return True


def refuse_moments(columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> None:
    """Raise OverflowError on a moment that is outside the years 1 to 9999 in UTC: databases cannot return it."""
    width = len(rows[0]) if rows else 0  # keys are the beginning of rows
    for at, column in enumerate(columns[:width]):
        if column.kind == "moment":
            for value in [row[at] for row in rows if row[at] is not None and row[at].year in EDGE_YEARS]:
                value.astimezone(UTC)


def refuse_other_types(columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> None:
    """Raise TypeError on a value of another type than its column: PostgreSQL would round 9.99 to 10 for an int."""
    for column, values in zip(columns, columns_of(rows), strict=False):  # keys are the beginning of rows
        for of in set(map(type, values)):
            if of is not PLAIN_TYPES.get(column.kind) and not is_of_kind(column.kind, of):
                raise TypeError(f"{column.name} holds {column.kind}, not {of.__name__}")


def _why_other(column: Column, value: Any) -> str:
    """Return why a value's type does not fit its column; "" if it fits."""
    of = cast("type[Any]", type(value))
    if is_of_kind(column.kind, of):
        return ""
    return f"the column is of kind {column.kind}, and the value is of type {of.__name__}"


def unstorable_error(
    projection: str, columns: Sequence[Column], rows: Iterable[Sequence[Any]], error: Exception
) -> Exception:
    """Return the error for rows, or keys of rows, that a target refused, with column and value if these are found."""
    values = [
        (column, value.value if isinstance(value, Enum) else value)
        for row in rows
        for column, value in zip(columns, row, strict=False)  # a key is the beginning of a row
    ]
    said = f"{error}".strip().partition("\n")[0].rstrip(".")
    for why in (why_unstorable, partial(_why_database_said, said), partial(_why_extreme, said), _why_other):
        for column, value in values:
            if reason := why(column, value):
                return _error(projection, column, value, reason)
    return error


def _why_database_said(said: str, _column: Column, value: Any) -> str:
    """Return the text of a database's error if it quotes the value; else ""."""
    shown = () if value is None or isinstance(value, (bool, bytes)) else (f"{value}", f"{value!r}")
    return said if any(len(each) >= MIN_SHOWN_CHARACTERS and each in said for each in shown) else ""


def _why_extreme(said: str, _column: Column, value: Any) -> str:
    """Return the text of a database's error if the value is a decimal with more digits than most databases store."""
    if not isinstance(value, Decimal) or not value.is_finite():
        return ""
    exponent = cast("int", value.as_tuple().exponent)
    return said if max(abs(exponent), abs(value.adjusted())) > MAX_DIGITS else ""


def _error(projection: str, column: Column, value: Any, reason: str) -> InvalidProjection:
    shown = f"{value!r}"
    shown = shown if len(shown) <= SHOWN_CHARACTERS else f"{shown[:SHOWN_CHARACTERS]}… ({len(shown):,} characters)"
    return InvalidProjection(
        f"{projection} cannot store {shown} in its column {column.name}: {reason}.",
        "Store another value, or give the field another type.",
        projection=projection,
        column=column.name,
        value=shown,
    )
