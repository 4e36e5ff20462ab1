"""How a value of a filter is compared with a JSON value of an event: as numbers, as moments, or as text.

A number is compared with numbers, and with text that is one (a Decimal stands in JSON as text); a moment or a day with
moments and days, in UTC where they name no time zone; any other text with text, case-sensitive. So a number is neither
above nor below a word. `~` is contained in the text, without case. In quotes, a value is text.
Knows: JSON values, the operators. Does not know: where in an event a value stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from eventfold.core.envelope import to_micros
from eventfold.errors import InvalidFilter
from eventfold.search.grammar import Clause, Value


class Number(Decimal):
    """A number of a payload that is no whole number, exactly; `text`: as it stands there."""

    __slots__ = ("text",)
    text: str


Scalar = str | int | Number | bool | None
Test = Callable[[Any], bool]

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,6})?")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?(?:Z|[+-][0-9]{2}:[0-9]{2})?)?"
)
MAX_NUMBER_CHARACTERS = 400


class Moment(NamedTuple):
    """A moment, or a day in UTC, from its first µs since 1970 to its last, inclusive."""

    first: int
    last: int


def number_of(text: str) -> Decimal | None:
    """The number that a text is; None if it is none."""
    if len(text) > MAX_NUMBER_CHARACTERS or _NUMBER.fullmatch(text) is None:
        return None
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def moment_of(text: str) -> Moment | None:
    """The moment or the day that a text is, in UTC if it names no time zone; None if it is neither."""
    if len(text) > 40 or _MOMENT.fullmatch(text) is None:
        return None
    try:
        if len(text) == 10:
            day = date.fromisoformat(text)
            return Moment(*(to_micros(datetime.combine(day, end, UTC)) for end in (time.min, time.max)))
        moment = datetime.fromisoformat(text)
        at = to_micros(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None
    return Moment(at, at)


def text_of(value: Scalar) -> str:
    """A JSON value that is no array or object as text: that of JSON, without the quotes of a string."""
    match value:
        case str():
            return value
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case Number():
            return value.text
        case _:
            return str(value)


class Operand:
    """One value of a filter, prepared for comparisons with many values."""

    __slots__ = ("moment", "number", "text")

    def __init__(self, text: str, quoted: bool = False) -> None:
        self.text = text
        self.number = None if quoted else number_of(text)
        self.moment = None if quoted or self.number is not None else moment_of(text)

    def order(self, value: Scalar) -> int | None:
        """-1 if a value is below this one, 1 if above, 0 if equal (within the day, for a day); None: no order."""
        if value is None or (isinstance(value, bool) and self.number is not None):
            return None
        if self.number is not None:
            number = number_of(value) if isinstance(value, str) else value
            return None if number is None else (number > self.number) - (number < self.number)
        if self.moment is not None:
            at = moment_of(value) if isinstance(value, str) else None
            return None if at is None else (at.first > self.moment.last) - (at.first < self.moment.first)
        text = text_of(value)
        return (text > self.text) - (text < self.text)

    def equals(self, value: Scalar) -> bool:
        """Whether a value is equal."""
        return self.text == "null" if value is None else self.order(value) == 0


def test_of(clause: Clause) -> Test:
    """Return the test of one JSON value that a clause states; for `!=`, the test of equality. Raises InvalidFilter."""
    if clause.operator in (":", "=", "!="):
        return any_of([_equality(clause, value) for value in clause.values])
    if clause.operator == "~":
        parts = [value.text.casefold() for value in clause.values]
        return lambda found: any(part in text_of(found).casefold() for part in parts)
    text = single_value(clause)
    if not clause.values[0].quoted and ".." in text:
        raise InvalidFilter(
            f"The clause {clause.key}{clause.operator}{text[:60]} compares with a range, at character {clause.at}.",
            f"Write {clause.key}:{text[:60]}, or put quotes around the text.",
            at=clause.at,
        )
    return _comparison(clause.operator, Operand(text, clause.values[0].quoted))


def single_value(clause: Clause) -> str:
    """Return the only value of a clause. Raises InvalidFilter if it has several."""
    if len(clause.values) > 1:
        raise InvalidFilter(
            f"The clause {clause.key}{clause.operator} has a list of values, at character {clause.at}.",
            "Give one value; lists are compared by :, = and != only.",
            at=clause.at,
        )
    return clause.values[0].text


def any_of(tests: Sequence[Test]) -> Test:
    """Return the test that is true if any of these is."""
    if len(tests) == 1:
        return tests[0]
    return lambda found: any(test(found) for test in tests)


def range_of(clause: Clause, value: Value) -> tuple[str, str] | None:
    """Return the ends of a value `a..b`; None if it is no range. Raises InvalidFilter if it has one end only."""
    low, dots, high = value.text.partition("..")
    if not dots or value.quoted:
        return None
    if not low or not high:
        instead = f"{clause.key}>={low}" if low else f"{clause.key}<={high}"
        raise InvalidFilter(
            f"The range {clause.key}:{value.text[:60]} has one end only, at character {value.at}.",
            f"Write {instead[:80]}, or put quotes around the text.",
            at=value.at,
        )
    return low, high


def prefix_of(clause: Clause, value: Value) -> str | None:
    """Return what stands before the `*` of a value; None if it has none. Raises InvalidFilter if it is not the end."""
    if value.quoted or "*" not in value.text:
        return None
    if value.text.index("*") != len(value.text) - 1:
        raise InvalidFilter(
            f"The value {value.text[:60]} of {clause.key} has a * before its end, at character {value.at}.",
            "A * stands for any end of a text; put quotes around a text that contains one.",
            at=value.at,
        )
    return value.text[:-1]


def _equality(clause: Clause, value: Value) -> Test:
    if (ends := range_of(clause, value)) is not None:
        low, high = _comparison(">=", Operand(ends[0])), _comparison("<=", Operand(ends[1]))
        return lambda found: low(found) and high(found)
    if (prefix := prefix_of(clause, value)) is not None:
        return lambda found: found is not None and text_of(found).startswith(prefix)
    operand = Operand(value.text, value.quoted)
    if value.quoted:
        return lambda found: found is not None and text_of(found) == value.text
    return operand.equals


def _comparison(operator: str, operand: Operand) -> Test:
    accepted = {"<": (-1,), "<=": (-1, 0), ">": (1,), ">=": (0, 1)}[operator]
    return lambda found: operand.order(found) in accepted


def is_any(test: Test, found: Iterable[Any], *, negated: bool) -> bool:
    """Whether any value passes a test; `negated`: whether there are values, and none passes."""
    if not negated:
        return any(map(test, found))
    values = list(found)
    return bool(values) and not any(map(test, values))
