"""Checks of filters against the table that they are used on, before a database is asked.

Knows: columns, kinds of values, Python's types. Does not know: databases.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from typing import Any, cast

import msgspec

from eventfold.core.table import COMPARABLE, Column, RowCodec, Table
from eventfold.core.unstorable import MAX_INT, why_unstorable
from eventfold.errors import InvalidFilter
from eventfold.selection.column import ComparableColumn
from eventfold.selection.conditions import AllOf, AnyOf, Compare, CompareOperator, Condition, Missing, OneOf, OrderTerm
from eventfold.selection.filters import Combined, Comparison, Filter, Negated

ARGUMENTS = ("order", "limit", "after", "wait", "generation")  # of `rows`, which hide fields of these names
MAX_VALUES = 5_000  # values of all comparisons of a query
MAX_DEPTH = 100  # of nested & and | and ~
SHOWN_CHARACTERS = 200
OPPOSITE: Mapping[str, CompareOperator] = {"=": "!=", "!=": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
LAST_CHARACTER = 0x10FFFF


class TableFields(msgspec.Struct, frozen=True):
    """The columns of a read model by name, and its class: what filters are checked against. `name`: for messages.

    `enums`: the classes of columns whose values are members of an enum.
    """

    name: str
    cls: type
    table: Table
    columns: dict[str, Column]
    enums: dict[str, type[Enum]]

    @classmethod
    def of(cls, name: str, model: type, codec: RowCodec) -> TableFields:
        """Return the fields of a read model's table."""
        pairs = zip(codec.table.columns, codec.decoders, strict=True)
        enums = {column.name: of for column, of in pairs if isinstance(of, type) and issubclass(of, Enum)}
        return cls(name, model, codec.table, {column.name: column for column in codec.table.columns}, enums)

    def column(self, name: str) -> Column:
        """Return the column. Raises InvalidFilter if there is none."""
        found = self.columns.get(name)
        if found is None:
            own = [each for each in ARGUMENTS if each in self.columns]
            hint = f' Filter by the column {own[0]} with rows(…, {{"{own[0]}": …}}).' if own else ""
            if name in ("limit", "after"):
                hint = f" Give it to the method: store.select(…).rows({name}=…)."
            raise InvalidFilter(
                f"The requested rows have no column {name}.",
                f"Their columns are {', '.join(self.columns)}.{hint}",
                projection=self.name,
                column=name,
            )
        return found

    def comparable(self, name: str) -> Column:
        """Return the column. Raises InvalidFilter if there is none, or if it is stored as JSON."""
        column = self.column(name)
        if column.kind == "json":
            raise InvalidFilter(
                f"Rows cannot be filtered or sorted by {name}: it is stored as JSON.",
                "Use another column, or do it in Python.",
                column=name,
            )
        return column

    def column_of(self, given: Any) -> Column:
        """Return the column of an `ef.col(…)`, or of a name. Raises InvalidFilter."""
        if isinstance(given, ComparableColumn):
            _refuse_other_class(self, cast("ComparableColumn[Any]", given).model, given.name)
            return self.comparable(given.name)
        if not isinstance(given, str):
            raise InvalidFilter(f"{given!r} is not a column.", "Give ef.col(Balance.total), or the name of a field.")
        return self.comparable(given)


def condition_of(fields: TableFields, filters: Sequence[Any], equal: Mapping[str, Any]) -> Condition:
    """Return filters and equalities, all of which must be true, as a condition. Raises InvalidFilter."""
    parts: list[Condition] = []
    count = [0]
    for each in filters:
        if isinstance(each, Filter):
            parts.append(_condition(fields, each, False, count, 0))
        elif isinstance(each, Mapping):
            given = cast("Mapping[str, Any]", each)
            parts += [_equal(fields, fields.column(name), given[name], False) for name in given]
        elif each is not None:
            raise InvalidFilter(
                f"{each!r} is not a filter of rows.",
                'Give ef.col(Balance.total) > 5, keywords such as owner="ann", or a dict of names and values.',
            )
    parts += [_equal(fields, fields.column(name), value, False) for name, value in equal.items()]
    return parts[0] if len(parts) == 1 else AllOf(tuple(parts))


def _condition(fields: TableFields, given: Any, negated: bool, count: list[int], depth: int) -> Condition:
    if depth > MAX_DEPTH:
        raise InvalidFilter(f"The filter is nested deeper than {MAX_DEPTH} levels.", "Combine fewer filters.")
    if isinstance(given, Negated):
        return _condition(fields, given.part, not negated, count, depth + 1)
    if isinstance(given, Combined):
        parts = tuple(_condition(fields, part, negated, count, depth + 1) for part in given.parts)
        return AllOf(parts) if (given.operator == "and") is not negated else AnyOf(parts)
    if not isinstance(given, Comparison):
        raise InvalidFilter(f"{given!r} is not a filter of rows.", "Compare a column: ef.col(Balance.total) > 5.")
    count[0] += len(given.value) if given.operator == "in" else 1
    if count[0] > MAX_VALUES:
        raise InvalidFilter(
            f"The filter has more than {MAX_VALUES:,} values.", "Ask in several calls, or select by a range."
        )
    _refuse_other_class(fields, given.model, given.column)
    return _comparison(fields, given, negated)


def _comparison(fields: TableFields, given: Comparison, negated: bool) -> Condition:
    column, value = fields.comparable(given.column), given.value
    match given.operator:
        case "=":
            return _equal(fields, column, value, negated)
        case "!=":
            return _equal(fields, column, value, not negated)
        case "in":
            return _one_of(fields, column, value, negated)
        case "prefix":
            return _prefix(fields, column, value, negated)
        case operator:
            plain = _value(fields, column, value)
            _refuse_unordered(column, plain)
            return (
                _or_missing(Compare(column, OPPOSITE[operator], plain)) if negated else Compare(column, operator, plain)
            )


def _or_missing(*parts: Compare | OneOf) -> Condition:
    """The opposite of a comparison: a row without a value satisfies it too."""
    column = parts[0].column
    every = (*parts, Missing(column)) if column.nullable else parts
    return every[0] if len(every) == 1 else AnyOf(every)


def _equal(fields: TableFields, column: Column, value: Any, negated: bool) -> Condition:
    if value is None:
        return Missing(column, negated)
    plain = _value(fields, column, value)
    return _or_missing(Compare(column, "!=", plain)) if negated else Compare(column, "=", plain)


def _one_of(fields: TableFields, column: Column, values: tuple[Any, ...], negated: bool) -> Condition:
    plain = tuple(_value(fields, column, value) for value in values if value is not None)
    with_none = len(plain) < len(values)
    if not plain:
        return Missing(column, negated) if with_none else AllOf() if negated else AnyOf()
    if negated:
        return OneOf(column, plain, True) if with_none else _or_missing(OneOf(column, plain, True))
    return AnyOf((OneOf(column, plain), Missing(column))) if with_none else OneOf(column, plain)


def _prefix(fields: TableFields, column: Column, value: Any, negated: bool) -> Condition:
    if column.kind != "text":
        raise InvalidFilter(
            f"{column.name} is not a text, so it has no prefix.", "Use between(low, high), or compare with < and >."
        )
    low = _value(msgspec.structs.replace(fields, enums={}), column, value)  # a prefix of a member's value is no member
    _refuse_unordered(column, low)
    if not low:
        return Missing(column, not negated)
    high = after_prefix(low)
    if negated:
        return _or_missing(Compare(column, "<", low), *([Compare(column, ">=", high)] if high else []))
    return AllOf((Compare(column, ">=", low), *([Compare(column, "<", high)] if high else [])))


def after_prefix(text: str) -> str:
    """Return the least text that is greater than all with this prefix; "" if there is none."""
    rest = text.rstrip(chr(LAST_CHARACTER))
    if not rest:
        return ""
    following = ord(rest[-1]) + 1
    return rest[:-1] + chr(0xE000 if 0xD800 <= following <= 0xDFFF else following)  # surrogates are not characters


def _refuse_other_class(fields: TableFields, model: type | None, column: str) -> None:
    if model is not None and not issubclass(fields.cls, model):
        raise InvalidFilter(
            f"{model.__name__}.{column} is not a column of {fields.cls.__name__}.",
            f"Use a field of {fields.cls.__name__}: {', '.join(fields.columns)}.",
            column=column,
        )


def _refuse_unordered(column: Column, value: Any) -> None:
    if column.kind == "text" and "\0" in value:
        raise InvalidFilter(
            f"{column.name} cannot be compared by order with {_shown(value)}: databases sort U+0000 differently.",
            "Compare it by ==, != or in_, or with a text without U+0000.",
            column=column.name,
        )


def _value(fields: TableFields, column: Column, given: Any) -> Any:
    """Return a value as it is compared with those of the column. Raises InvalidFilter."""
    value = given.value if isinstance(given, Enum) else given
    if column.kind == "json":
        fields.comparable(column.name)
    allowed, left_out = COMPARABLE[column.kind]
    if not isinstance(value, allowed) or isinstance(value, left_out):
        kinds = " or ".join(each.__name__ for each in allowed)
        shown = _shown(given)
        raise InvalidFilter(
            f"The value of the filter {column.name}={shown} is of type {type(given).__name__}, and the column "
            f"{column.name} has values of type {kinds}.",
            f"Give a value of type {kinds}.",
            column=column.name,
        )
    if (members := fields.enums.get(column.name)) is not None:
        return _member(column, members, given)
    if column.kind == "moment" and value.utcoffset() is None:
        raise InvalidFilter(
            f"{column.name} cannot be compared with {value!r}, which has no time zone.",
            "Give a moment with a time zone: datetime(2026, 6, 1, 12, tzinfo=UTC).",
            column=column.name,
        )
    if column.kind == "decimal":
        value = value if isinstance(value, Decimal) else Decimal(value)
    elif column.kind == "float":
        value = _float(column, value)
    if reason := _why_incomparable(column, value):
        shown = _shown(value)
        raise InvalidFilter(
            f"The column {column.name} of {fields.name} cannot be compared with {shown}: {reason}.",
            "Give another value.",
            projection=fields.name,
            column=column.name,
            value=shown,
        )
    return value


def _member(column: Column, members: type[Enum], given: Any) -> Any:
    """Return the stored value of a member, given itself or as its value. Raises InvalidFilter."""
    if isinstance(given, members):
        return given.value
    try:
        if not isinstance(given, Enum):
            return members(given).value
    except ValueError:
        pass  # it is no value of a member
    names = ", ".join(f"{members.__name__}.{each.name} ({each.value!r})" for each in members)
    raise InvalidFilter(
        f"{column.name} cannot be compared with {_shown(given)}, which is no {members.__name__}.",
        f"Give one of {names}.",
        column=column.name,
    )


def _float(column: Column, value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        raise InvalidFilter(
            f"The column {column.name} cannot be compared with {_shown(value)}: it is too large for a float.",
            "Give another value.",
            column=column.name,
        ) from None


def _why_incomparable(column: Column, value: Any) -> str:
    if (column.kind == "decimal" and value.is_nan()) or (column.kind == "float" and math.isnan(value)):
        return "NaN is no number"
    return why_unstorable(column, value)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python shows no whole number of more than 4,300 digits
        return f"a value of type {type(value).__name__} with too many digits to show"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}… ({len(text):,} characters)"


def order_of(fields: TableFields, order: Any) -> tuple[OrderTerm, ...]:
    """Return the terms by which rows are sorted: names of columns, `-` first: descending; then the key, ascending.

    Raises InvalidFilter.
    """
    given: list[Any] = [order]
    if not isinstance(order, str) and isinstance(order, Iterable):
        given = list(cast("Iterable[Any]", order))
    terms: dict[str, OrderTerm] = {}
    for each in given:
        if not isinstance(each, str) or not each:
            raise InvalidFilter(
                f"Rows cannot be sorted by {each!r}.",
                'Give names of fields: order="-total". Rows whose field order has this value: rows(…, {"order": …}).',
            )
        name = each.removeprefix("-")
        terms.setdefault(name, OrderTerm(fields.comparable(name), each[0] == "-"))
    for name in fields.table.key:
        if name not in terms:
            terms[name] = OrderTerm(fields.columns[name])
    return tuple(terms.values())


def refuse_limit(limit: Any) -> None:
    """Raise InvalidFilter if `limit` is not a number of rows: -1 means all in SQLite, and PostgreSQL refuses it."""
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or not 0 <= limit < MAX_INT):
        raise InvalidFilter(
            f"limit={limit!r} is not a number of rows.", "Give a whole number from 0, or None for all rows."
        )
