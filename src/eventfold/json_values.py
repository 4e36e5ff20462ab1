"""Python values as JSON: classes derived from built-in ones, how deep values are nested, numbers that JSON lacks.

Knows: msgspec, built-in types. Does not know: events, classes of events, what is stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import msgspec

MOST_NESTED = 200  # levels: what is deeper cannot be copied within Python's limit of recursion

_ALIKE = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(sorted(set(range(256)) - set(b"[]{}")))


def _own(kind: type[Any]) -> type[Any]:
    """The class of the standard library, also where a test's frozen clock has put another into its place."""
    return next(each for each in kind.__mro__ if each.__module__ == "datetime")


_Datetime, _Date = (_own(datetime), _own(date))


def _make_datetime(kind: Callable[..., Any], at: datetime) -> Any:
    parts = (at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond, at.tzinfo)
    return kind(*parts, fold=at.fold)


def _make_time(kind: Callable[..., Any], at: time) -> Any:
    return kind(at.hour, at.minute, at.second, at.microsecond, at.tzinfo, fold=at.fold)


# Each built-in class, its value of a derived one, and a derived class's value of a built-in one. A tuple, since what
# freezes the clock in tests exchanges the attributes of modules.
_BUILT_IN: tuple[tuple[type[Any], Callable[[Any], Any], Callable[[Any, Any], Any]], ...] = (
    (str, str.__str__, lambda kind, value: kind(value)),
    (int, int.__index__, lambda kind, value: kind(value)),
    (float, float.__float__, lambda kind, value: kind(value)),
    (_Datetime, lambda at, kind=_Datetime: _make_datetime(kind, at), _make_datetime),
    (_Date, lambda day, kind=_Date: kind(day.year, day.month, day.day), lambda kind, d: kind(d.year, d.month, d.day)),
    (Decimal, Decimal, lambda kind, value: kind(value)),
    (UUID, lambda value: UUID(int=value.int), lambda kind, value: kind(int=value.int)),
    (time, lambda at: _make_time(time, at), _make_time),
    (
        timedelta,
        lambda d: timedelta(d.days, d.seconds, d.microseconds),
        lambda k, d: k(d.days, d.seconds, d.microseconds),
    ),
    (bytes, lambda value: bytes(memoryview(value)), lambda kind, value: kind(value)),
)


def built_in_value(value: Any) -> Any:
    """A value of a class derived from a built-in one as the built-in one's. Raises TypeError for any other value."""
    for kind, plain, _ in _BUILT_IN:
        if isinstance(value, kind):
            return plain(value)
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    raise TypeError(f"objects of type {name} have no JSON form")


def derived_value(kind: Any, value: Any) -> Any:
    """A JSON value as one of a class derived from a built-in one; any other as it is. Raises msgspec's ValueErrors."""
    if isinstance(kind, type):
        for built_in, _, make in _BUILT_IN:
            if issubclass(kind, built_in):
                return make(kind, msgspec.convert(value, built_in))
    return value


def is_nested_deeper(data: bytes, most: int = MOST_NESTED) -> bool:
    """Whether JSON has arrays and objects within each other at more than `most` levels."""
    if len(data) <= 2 * most or data.count(b"{") + data.count(b"[") <= most:
        return False
    unescaped = data.replace(b"\\\\", b"").replace(b'\\"', b"")  # so that every quote begins or ends a text
    brackets = b"".join(unescaped.split(b'"')[::2]).translate(_ALIKE, _OTHERS)
    for _ in range(most):  # each round takes the innermost level away
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return True


def encode_sorted(values: Mapping[str, Any]) -> bytes:
    """An object with sorted keys. Raises TypeError, OverflowError, and ValueError, where it has no JSON form."""
    try:
        data = msgspec.json.encode(values, order="sorted", enc_hook=built_in_value)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MOST_NESTED} levels, or holds itself") from None
    if is_nested_deeper(data):
        raise ValueError(f"it is nested deeper than {MOST_NESTED} levels")
    if b"null" in data and (found := _no_number(msgspec.to_builtins(values, enc_hook=built_in_value), "")):
        raise ValueError(f"{found}, which JSON lacks: give a text, or leave it out")
    return data


def _no_number(value: Any, path: str) -> str:
    """The first number that is none, as `path is nan`; empty where there is none."""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{path} is {value}"
    if isinstance(value, dict):
        inner = [(each, f"{path}.{key}" if path else str(key)) for key, each in cast("dict[Any, Any]", value).items()]
    elif isinstance(value, (list, tuple)):
        inner = [(each, f"{path}[{index}]") for index, each in enumerate(cast("list[Any]", value))]
    else:
        return ""
    return next((found for each, where in inner if (found := _no_number(each, where))), "")
