"""The filter language applied to the columns of a read model.

Knows: kinds of columns, how their values are written. Does not know: databases.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Literal
from uuid import UUID

from eventfold.core.table import Column, ColumnKind
from eventfold.errors import InvalidFilter
from eventfold.search.grammar import Clause, Group, Node, Not, Value, parse
from eventfold.selection.check import TableFields
from eventfold.selection.column import ComparableColumn
from eventfold.selection.filters import Combined, Filter

DAY = timedelta(days=1)
NO_VALUE = "null"
EXAMPLES: Mapping[ColumnKind, str] = {
    "text": "ann",
    "int": "42",
    "float": "1.5",
    "bool": "true or false",
    "bytes": "hex digits: 00ff",
    "decimal": "12.50",
    "moment": "2026-06-01T12:00Z, or a date, which is the whole day in UTC",
    "date": "2026-06-01",
    "uuid": "0192f3a0-0000-7000-8000-000000000000",
}


def _bool(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError
    return moment


READ: Mapping[ColumnKind, Callable[[str], Any]] = {
    "text": str,
    "int": int,
    "float": float,
    "bool": _bool,
    "bytes": bytes.fromhex,
    "decimal": Decimal,
    "moment": _moment,
    "date": date.fromisoformat,
    "uuid": UUID,
}


def filter_of_text(text: str, fields: TableFields) -> Filter:
    """Return the filter that a text describes. Raises InvalidFilter: syntax, column, value."""
    return _filter(parse(text), fields)


def _filter(node: Node, fields: TableFields) -> Filter:
    if isinstance(node, Not):
        return ~_filter(node.part, fields)
    if isinstance(node, Group):
        return _combined(node.operator, [_filter(part, fields) for part in node.parts])
    assert isinstance(node, Clause), "a filter of rows has no words"
    return _clause(node, fields)


def _combined(operator: Literal["and", "or"], parts: Sequence[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else Combined(operator, tuple(parts))


def _clause(clause: Clause, fields: TableFields) -> Filter:
    if clause.key == "has" and "has" not in fields.columns:
        columns = [_column(value.text, fields) for value in clause.values]
        return _combined("and", [~ComparableColumn[Any](None, column.name).is_null() for column in columns])
    column, first = _column(clause.key, fields), clause.values[0]
    if clause.operator == "~":
        raise InvalidFilter(
            f"The filter {clause.key}~… asks for a part of a text, which no index of rows can answer.",
            f"Ask for its beginning: {clause.key}:{first.text}*."
            if column.kind == "text"
            else f"Compare its value: {clause.key}:{first.text}, {clause.key}>{first.text}.",
        )
    if clause.operator in (":", "=", "!="):
        found = _combined("or", [_equal(column, value) for value in clause.values])
        return ~found if clause.operator == "!=" else found
    if len(clause.values) > 1 or (first.text == NO_VALUE and not first.quoted):
        raise InvalidFilter(
            f"The filter {clause.key}{clause.operator} is compared with a list or with null.",
            "Give one value; lists and null are compared by :, = and != only.",
        )
    return _ordered(column, clause.operator, first.text)


def _column(name: str, fields: TableFields) -> Column:
    if name in fields.columns:
        return fields.comparable(name)
    near = difflib.get_close_matches(name, list(fields.columns), 1)
    raise InvalidFilter(
        f"{fields.name} has no column {name!r}.{f' Did you mean {near[0]}?' if near else ''}",
        f"Its columns are {', '.join(fields.columns)}.",
        column=name,
    )


def _equal(column: Column, value: Value) -> Filter:
    own = ComparableColumn[Any](None, column.name)
    if not value.quoted:
        if value.text == NO_VALUE:
            return own.is_null()
        low, dots, high = value.text.partition("..")
        if dots and low and high:
            return _ordered(column, ">=", low) & _ordered(column, "<=", high)
        if dots and (low or high) and column.kind != "text":
            raise InvalidFilter(
                f"The range {column.name}:{value.text} has one end only.",
                f"Write {column.name}>={low}." if low else f"Write {column.name}<={high}.",
                column=column.name,
            )
        if value.text.endswith("*") and column.kind == "text":
            return own.prefix(value.text[:-1])
    if (day := _day(column, value.text)) is not None:
        return own.between(day, day + DAY - timedelta(microseconds=1))
    return own == _read(column, value.text)


def _ordered(column: Column, operator: str, text: str) -> Filter:
    own, day = ComparableColumn[Any](None, column.name), _day(column, text)
    if day is not None:  # after, or up to, the whole day
        value = day + DAY - timedelta(microseconds=1) if operator in (">", "<=") else day
    else:
        value = _read(column, text)
    match operator:
        case "<":
            return own < value
        case "<=":
            return own <= value
        case ">":
            return own > value
        case _:
            return own >= value


def _day(column: Column, text: str) -> datetime | None:
    """The first moment of a day in UTC, where a moment is compared with a date."""
    if column.kind != "moment":
        return None
    try:
        return datetime.combine(date.fromisoformat(text), time.min, UTC)
    except ValueError:
        return None


def _read(column: Column, text: str) -> Any:
    try:
        return READ[column.kind](text)
    except (ValueError, KeyError, InvalidOperation):
        raise InvalidFilter(
            f"{text!r} is no value of the column {column.name}.",
            f"Write {EXAMPLES[column.kind]}.",
            column=column.name,
        ) from None
