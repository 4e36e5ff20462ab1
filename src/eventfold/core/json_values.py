"""Python values as JSON: classes derived from built-in ones, the depth of nested values, numbers that JSON lacks.

Decoders are compiled by one thread at a time: two threads that compile one class at the same moment can crash the
process (msgspec 0.22 publishes its data about a class before they are complete). Once a class is compiled, any number
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
MOST_NESTED = 200  # levels: deeper values cannot be copied within Python's limit of recursion

_ALIKE = bytes.maketrans(b"{}", b"[]")
_OTHERS = bytes(sorted(set(range(256)) - set(b"[]{}")))


def _own(kind: type[Any]) -> type[Any]:
    """Return the class of the standard library, even if a test tool that freezes the clock has replaced it."""
    return next(each for each in kind.__mro__ if each.__module__ == "datetime")


_Datetime, _Date = (_own(datetime), _own(date))


def _make_datetime(kind: Callable[..., Any], at: datetime) -> Any:
    parts = (at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond, at.tzinfo)
    return kind(*parts, fold=at.fold)


def _make_time(kind: Callable[..., Any], at: time) -> Any:
    return kind(at.hour, at.minute, at.second, at.microsecond, at.tzinfo, fold=at.fold)


# Each built-in class, with two functions: a derived class's value to the built-in one, and the reverse. In a tuple,
# since tools that freeze the clock in tests replace attributes of modules.
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
    """Return a value of a class derived from a built-in one as a built-in value. Raises TypeError for other values."""
    for kind, plain, _ in _BUILT_IN:
        if isinstance(value, kind):
            return plain(value)
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    raise TypeError(f"objects of type {name} have no JSON form")


def derived_value(kind: Any, value: Any) -> Any:
    """Return a JSON value as one of `kind`, if that derives from a built-in class. Raises msgspec's ValueErrors."""
    if isinstance(kind, type):
        for built_in, _, make in _BUILT_IN:
            if issubclass(kind, built_in):
                return make(kind, msgspec.convert(value, built_in))
    return value


def to_json_value(value: Any) -> Any:
    """A value as plain JSON data; parts without a JSON form become their repr."""
    try:
        return msgspec.to_builtins(value, enc_hook=_as_data, str_keys=True)
    except (TypeError, ValueError, RecursionError):
        if isinstance(value, Mapping):
            pairs = cast("Mapping[Any, Any]", value).items()
            return {each if isinstance(each, str) else repr(each): to_json_value(item) for each, item in pairs}
        return repr(value)


def _as_data(value: Any) -> Any:
    """Return the fields of an object that names them as a struct does, which the rows of alerts do; else its repr."""
    names: tuple[str, ...] = getattr(value, "__struct_fields__", ())
    return {name: getattr(value, name) for name in names} if names else repr(value)


def is_nested_deeper(data: bytes, most: int = MOST_NESTED) -> bool:
    """Whether arrays and objects in JSON are nested in more than `most` levels."""
    if len(data) <= 2 * most or data.count(b"{") + data.count(b"[") <= most:
        return False
    unescaped = data.replace(b"\\\\", b"").replace(b'\\"', b"")  # so that every quote begins or ends a text
    brackets = b"".join(unescaped.split(b'"')[::2]).translate(_ALIKE, _OTHERS)
    for _ in range(most):  # each iteration removes the innermost level
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return True


def encode_sorted(values: Mapping[str, Any]) -> bytes:
    """Return a JSON object with sorted keys. Raises TypeError, OverflowError or ValueError if it has no JSON form."""
    try:
        data = msgspec.json.encode(values, order="sorted", enc_hook=built_in_value)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MOST_NESTED} levels, or contains itself") from None
    if is_nested_deeper(data):
        raise ValueError(f"it is nested deeper than {MOST_NESTED} levels")
    if b"null" in data and (found := _no_number(msgspec.to_builtins(values, enc_hook=built_in_value), "")):
        raise ValueError(f"{found}, which JSON does not have: use a text, or leave it out")
    return data


def _no_number(value: Any, path: str) -> str:
    """Return the first number that JSON does not have, as `path is nan`; "" if there is none."""
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
    """Whether a decoded value is the same as the original."""
    try:
        return bool(a == b) or _is_alike(a, b)
    except ArithmeticError:  # a signalling NaN refuses to be compared
        return False


def _is_alike(a: Any, b: Any) -> bool:
    """Whether values are the same although `==` is False: times in the hour that a clock change repeats (PEP 495)."""
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
    """Return the names of an object's fields (struct, dataclass, pydantic, attrs)."""
    return fields_of_class(cast("type[Any]", type(value)))


def fields_of_class(cls: type) -> list[str]:
    """Return the names of a class's fields (struct, dataclass, pydantic, attrs)."""
    for kind in ("__struct_fields__", "__dataclass_fields__", "model_fields"):
        names: Iterable[str] | None = getattr(cls, kind, None)
        if names is not None:
            return list(names)
    fields: Iterable[Any] = getattr(cls, "__attrs_attrs__", ())
    return [field.name for field in fields]


def renamed_fields(cls: type) -> dict[str, str]:
    """Return the names in JSON of the fields that have another name in the class (struct, pydantic), by the latter."""
    names = list(zip(fields_of_class(cls), getattr(cls, "__struct_encode_fields__", ()), strict=False))
    for name, field in cast("dict[str, Any]", getattr(cls, "model_fields", {})).items():
        alias = field.validation_alias
        names += [(name, alias)] if isinstance(alias, str) else []
    return {name: stored for name, stored in names if name != stored}


def float_as_decimal(value: Any, back: Any, path: str) -> str:
    """Return the first float that would be read back as a Decimal, as `path is 0.1`; "" if there is none."""
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
    """Return a text on the first field whose decoded value differs."""
    for name in fields_of(event):
        before, after = getattr(event, name), getattr(back, name)
        if not is_same(before, after):
            return f"field {name} is {before!r} and would be {after!r}"
    return f"{event!r} would be {back!r}"


def decoder_of(kind: Any) -> msgspec.json.Decoder[Any]:
    """Return a decoder for any type. Raises what msgspec raises: TypeError, NameError."""
    return _compiling.run(_compile, kind)


def decode(data: bytes | str, cls: type[T]) -> T:
    """Decode a value of a class from JSON. Raises msgspec's ValueErrors."""
    if cls not in _known:
        decoder_of(cls)
        _known.add(cls)
    return msgspec.json.decode(data, type=cls, dec_hook=derived_value)


def _compile(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, dec_hook=derived_value)
