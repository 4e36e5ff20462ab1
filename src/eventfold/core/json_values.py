"""Python values as JSON: classes derived from built-in ones, how deep values are nested, numbers that JSON lacks.

Decoders are compiled by one thread at a time: two threads that compile one class at the same moment may end the process
(msgspec 0.22: what it learns of a class is seen by others before it is complete). Once a class was compiled, any number
of threads may use it.
Knows: msgspec, built-in types. Does not know: events, classes of events, what is stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, TypeVar, cast
from uuid import UUID
from weakref import WeakSet

import msgspec

from eventfold.core.mutex import Mutex

T = TypeVar("T")
_compiling = Mutex()
_known: WeakSet[type] = WeakSet()
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


def is_same(a: Any, b: Any) -> bool:
    """Whether a value came back as it was given."""
    try:
        return bool(a == b) or _is_alike(a, b)
    except ArithmeticError:  # a signalling NaN refuses to be compared
        return False


def _is_alike(a: Any, b: Any) -> bool:
    """The same where Python's `==` says no: a local time in the hour that a change of clocks repeats (PEP 495)."""
    if isinstance(a, datetime) and isinstance(b, datetime):
        return a.utcoffset() == b.utcoffset() and a.replace(tzinfo=None, fold=0) == b.replace(tzinfo=None, fold=0)
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        mine, theirs = cast("list[Any]", a), cast("list[Any]", b)
        return len(mine) == len(theirs) and all(map(is_same, mine, theirs))
    if isinstance(a, dict):
        ours, others = cast("dict[Any, Any]", a), cast("dict[Any, Any]", b)
        return ours.keys() == others.keys() and all(is_same(ours[key], others[key]) for key in ours)
    names = fields_of(a)
    return bool(names) and all(is_same(getattr(a, name), getattr(b, name)) for name in names)


def fields_of(value: Any) -> list[str]:
    """The names of an object's fields, whatever kind of class it is of."""
    return fields_of_class(cast("type[Any]", type(value)))


def fields_of_class(cls: type) -> list[str]:
    """The names of the fields of a class, of whatever kind it is."""
    for kind in ("__struct_fields__", "__dataclass_fields__", "model_fields"):
        names: Iterable[str] | None = getattr(cls, kind, None)
        if names is not None:
            return list(names)
    fields: Iterable[Any] = getattr(cls, "__attrs_attrs__", ())
    return [field.name for field in fields]


def float_as_decimal(value: Any, back: Any, path: str) -> str:
    """The first float that would come back as a Decimal, as `path is 0.1`; empty where there is none."""
    if isinstance(back, Decimal):
        return f"{path} is {value!r}" if isinstance(value, float) else ""
    if isinstance(back, dict) and isinstance(value, dict):
        ours, others = cast("dict[Any, Any]", value), cast("dict[Any, Any]", back)
        pairs = [(each, others.get(key), f"{path}[{key}]") for key, each in ours.items()]
    elif isinstance(back, (list, tuple)) and isinstance(value, (list, tuple)):
        mine, theirs = cast("list[Any]", value), cast("list[Any]", back)
        pairs = [(a, b, f"{path}[{n}]") for n, (a, b) in enumerate(zip(mine, theirs, strict=False))]
    elif isinstance(back, (set, frozenset)) and isinstance(value, (set, frozenset)):
        decimals = [each for each in cast("set[Any]", back) if isinstance(each, Decimal)]
        pairs = [(each, decimals[0], path) for each in cast("set[Any]", value) if decimals]
    else:
        own, other = cast(object, value), cast(object, back)
        names = fields_of(other) if type(own) is type(other) else []
        pairs = [(getattr(own, name), getattr(other, name), f"{path}.{name}") for name in names]
    return next((found for a, b, where in pairs if (found := float_as_decimal(a, b, where))), "")


def what_changed(event: Any, back: Any) -> str:
    """The first field that came back from JSON changed, in words."""
    for name in fields_of(event):
        before, after = getattr(event, name), getattr(back, name)
        if not is_same(before, after):
            return f"field {name} is {before!r} and would be {after!r}"
    return f"{event!r} would be {back!r}"


def decoder_of(kind: Any) -> msgspec.json.Decoder[Any]:
    """A decoder of a class, or of any type. Raises what msgspec raises: TypeError, NameError."""
    return _compiling.run(_compile, kind)


def decode(data: bytes | str, cls: type[T]) -> T:
    """A value of the class from its JSON. Raises msgspec's ValueErrors."""
    if cls not in _known:
        decoder_of(cls)
        _known.add(cls)
    return msgspec.json.decode(data, type=cls, dec_hook=derived_value)


def _compile(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, dec_hook=derived_value)
