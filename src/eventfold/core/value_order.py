"""Canonical forms of decimals, moments and floats, and texts that sort as these values do.

Decimal("1.0") equals Decimal("1.00"), and noon in UTC equals 14:00 at +02:00, but their texts differ. Knows: Python's
values. Does not know: any database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zlib import crc32

from eventfold.core.table import ColumnKind

# The exponent of a decimal's first digit: two digits where it is small, else one of Python's nineteen.
_SMALL = 40
_BIAS = 2 * 10**18
_COMPLEMENT = str.maketrans("0123456789", "9876543210")


def canonical(value: Any) -> Any:
    """Return one form for all equal values: decimals without trailing zeros, moments in UTC, floats without -0.0."""
    if type(value) is Decimal:
        return _shortest(value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    if type(value) is float:
        return value + 0.0  # -0.0 becomes 0.0
    return value


def key_text(key: tuple[Any, ...]) -> str:
    """Return a key as text, the same for equal keys: it groups parked events, and determines the partition."""
    try:
        return ", ".join([str(canonical(value)) for value in key])
    except OverflowError:  # a moment outside the years 1 to 9999 in UTC: no row has this key
        return ", ".join(map(str, key))


def partition_of(key: tuple[Any, ...], partitions: int) -> int:
    """Return the partition of a key, from 0, the same on every machine."""
    return crc32(key_text(key).encode("utf-8", "surrogatepass")) % partitions


def _shortest(value: Decimal) -> Decimal:
    """Like Decimal.normalize, which rounds to the context's 28 digits."""
    if not value.is_finite():
        return value
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    text = "".join(map(str, digits)).rstrip("0")
    if not text:
        return Decimal(0)
    return Decimal((sign, tuple(map(int, text)), exponent + len(digits) - len(text)))


def decimal_order(value: Decimal) -> str:
    """Return an ASCII text that sorts as the number does, the same for equal numbers. NaN sorts last."""
    if not value.is_finite():
        return "9" if value.is_nan() else "2" if value < 0 else "8"
    mantissa, _, exponent = f"{value:E}".partition("E")  # every digit, the first before the point
    significant = mantissa.lstrip("-").replace(".", "").rstrip("0")
    if not significant:
        return "5"
    first = int(exponent)
    if -_SMALL <= first < _SMALL:
        size = f"5{first + _SMALL:02d}"
    else:
        size = f"{'6' if first > 0 else '4'}{first + _BIAS:019d}"
    if mantissa[0] != "-":
        return f"7{size}{significant}"
    return "3" + (size + significant).translate(_COMPLEMENT) + "~"  # ~ after every digit: -1 comes after -1.5


def moment_order(value: datetime) -> str:
    """Return a text that sorts as the moment does. A datetime without a time zone sorts beside the same time in UTC."""
    if value.tzinfo is None:
        return value.isoformat(timespec="microseconds")
    moment = value if value.tzinfo is UTC else value.astimezone(UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


# By kind of column (see table.ColumnKind): for kinds whose own text does not sort, or does not compare equal, as the
# value does.
ORDER: Mapping[ColumnKind, Callable[[Any], str]] = {"decimal": decimal_order, "moment": moment_order}


def _decimal_text_order(text: str | None) -> str | None:
    return None if text is None else decimal_order(Decimal(text))


def _moment_text_order(text: str | None) -> str | None:
    return None if text is None else moment_order(datetime.fromisoformat(text))


# The same for a column's text, in databases that store these values as text; and the names of the functions in SQL.
TEXT_ORDER: Mapping[ColumnKind, Callable[[str | None], str | None]] = {
    "decimal": _decimal_text_order,
    "moment": _moment_text_order,
}
FUNCTIONS: Mapping[ColumnKind, str] = {"decimal": "eventfold_decimal_order", "moment": "eventfold_moment_order"}
