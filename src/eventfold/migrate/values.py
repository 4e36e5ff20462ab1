"""Values of columns as JSON and back, exactly: read(write(x)) is x, or the value is refused with the reason.

The JSON of a kind is what msgspec writes for its Python type, so that it stays the same when a typed event is read and
written: decimals are text with their scale, times ISO 8601, bytes base64, NaN and infinities text. `expression` is the
SQL by which a column is selected, in a query or in a trigger's body; what it gives depends on settings of the session,
which connection.py sets. What a kind cannot hold is refused (ValueError with the reason); the kind `text` holds
everything as the database prints it, and on SQLite the kind `any` does.

Knows: kinds, values of drivers. Does not know: tables, mappings.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Context, Decimal, InvalidOperation
from typing import Any, cast

import msgspec

from eventfold.migrate.array_text import format_array, parse_array
from eventfold.migrate.connection import Dialect
from eventfold.migrate.kinds import Kind, kind_of, scale_of
from eventfold.migrate.reflection import Column

Convert = Callable[[Any], Any]
Equal = Callable[[Any, Any], bool]
NOT_FINITE = ("NaN", "Infinity", "-Infinity")
MIN_JSON_INT, MAX_JSON_INT = -(1 << 63), (1 << 64) - 1  # what msgspec reads and writes as a whole number
MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?(\+00|\+00:00|Z)?")
TIME = re.compile(r"(\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?")
EXACT = Context(prec=800)
DJANGO_FORM = "YYYY-MM-DD hh:mm:ss[.ffffff]"
FORM = re.compile(r"YYYY-MM-DD(.)hh:mm:ss(\[\.f+\]|\.f+)?(Z|\+00:00)?")


class Codec(msgspec.Struct, frozen=True, kw_only=True):
    """How the values of one column are read, written and compared. None is NULL in every kind.

    `expression`: SQL with {} for the column. `parameter`: SQL with {} for the mark of a parameter. `read`: a selected
    value, or PostgreSQL's text of it as logical decoding gives it, to JSON; `write`: JSON to a parameter; both are for
    values other than None. `is_equal`: whether two JSON values are the same value of the column; None if `==` says so.
    """

    kind: Kind
    expression: str = "{}"
    parameter: str = "{}"
    read: Convert
    write: Convert
    is_equal: Equal | None = None

    def to_json(self, value: Any) -> Any:
        """Return a selected value as JSON. Raises ValueError with the reason if this kind cannot hold it."""
        return None if value is None else self.read(value)

    def from_json(self, value: Any) -> Any:
        """Return JSON as a parameter of a statement."""
        return None if value is None else self.write(value)

    def equal(self, some: Any, other: Any) -> bool:
        """Whether two JSON values are the same value of this column."""
        if some is None or other is None:
            return some is other
        return some == other if self.is_equal is None else self.is_equal(some, other)


def codec_of(dialect: Dialect, column: Column, kind: Kind | None = None, form: str | None = None) -> Codec:
    """Return the codec of a column.

    `kind`: instead of that of its declared type. `form`: how a SQLite file writes its times, such as
    "YYYY-MM-DD hh:mm:ss[.ffffff]"; brackets are around what is left out when it is zero.
    """
    kind = kind or kind_of(dialect, column)
    match dialect:
        case "sqlite":
            return _sqlite(column, kind, form or DJANGO_FORM)
        case "postgresql":
            return _postgres(column, kind)
        case _:
            return _mysql(dialect, column, kind)


# ---------------------------------------------------------------------------------------- PostgreSQL


def _postgres(column: Column, kind: Kind) -> Codec:
    declared = column.type
    as_text: Any = {"expression": "{}::text", "parameter": f"CAST({{}} AS {declared})"}
    match kind:
        case "integer":
            return Codec(kind=kind, read=_int, write=_same)
        case "boolean":
            return Codec(kind=kind, read=_postgres_bool, write=_same)
        case "float":
            return Codec(kind=kind, read=_float, write=float, is_equal=_same_repr)
        case "bytes":
            return Codec(kind=kind, read=_postgres_bytes, write=base64.b64decode)
        case "json":
            read = json_value if not column.is_nullable else _json_not_null
            return Codec(kind=kind, read=read, is_equal=same_json, write=_json_text, **as_text)
        case "array":
            element = column.element or Column(name=column.name, type="text")
            inner = _postgres(element, kind_of("postgresql", element))
            if inner.kind == "array":  # PostgreSQL has no type of arrays of arrays: they are one type
                inner = _postgres(Column(name=column.name, type="text"), "text")

            def read_array(text: str) -> list[Any]:
                return parse_array(text, inner.read)

            def write_array(values: list[Any]) -> str:
                return format_array(values, lambda each: _element_text(inner, each))

            return Codec(
                kind=kind,
                read=read_array,
                is_equal=_lists_equal(inner) if inner.is_equal else None,
                write=write_array,
                **as_text,
            )
        case "decimal":
            return Codec(kind=kind, read=_postgres_decimal, write=str, is_equal=_same_decimal, **as_text)
        case "text" if declared in ("text", "citext") or declared.startswith("character varying"):
            return Codec(kind=kind, read=_str, write=_same)
        case "text" if declared == "character" or declared.startswith("character("):
            return Codec(kind=kind, read=_without_padding, write=str, **as_text)
        case _:
            reads: dict[str, Convert] = {
                "datetime": _naive,
                "moment": _moment,
                "date": _date,
                "time": _time,
                "uuid": _uuid,
            }
            return Codec(kind=kind, read=reads.get(kind, _str), write=str, **as_text)


def _element_text(inner: Codec, value: Any) -> str:
    written = inner.write(value)
    if isinstance(written, bool):
        return "t" if written else "f"
    return "\\x" + written.hex() if isinstance(written, bytes) else str(written)


def _lists_equal(inner: Codec) -> Equal:
    def equal(some: Any, other: Any) -> bool:
        if isinstance(some, list) and isinstance(other, list):
            left, right = cast("list[Any]", some), cast("list[Any]", other)
            return len(left) == len(right) and all(map(equal, left, right))
        return inner.equal(some, other)

    return equal


def _without_padding(value: Any) -> str:
    """Return a CHAR as a cast to text gives it; the text of a record, or of decoding, has the padding."""
    return _str(value).rstrip(" ")


def _postgres_bool(value: Any) -> bool:
    if value in ("t", "f") or isinstance(value, bool):
        return value in ("t", True)
    raise ValueError("it is no boolean")


def _postgres_bytes(value: Any) -> str:
    if isinstance(value, str):
        if not value.startswith("\\x"):
            raise ValueError("it is not in the format hex")
        value = bytes.fromhex(value[2:])
    return base64.b64encode(value).decode()


def _postgres_decimal(value: Any) -> str:
    return value if isinstance(value, str) else _plain(Decimal(value))


# ---------------------------------------------------------------------------------------- MySQL and MariaDB


def _mysql(dialect: Dialect, column: Column, kind: Kind) -> Codec:
    as_text: Any = {"expression": "CAST({} AS CHAR)"}
    word = re.split(r"[\s(]", column.type.lower(), maxsplit=1)[0]
    match kind:
        case "integer":
            return Codec(
                kind=kind, expression="CAST({} AS UNSIGNED)" if word == "bit" else "{}", read=_int, write=_same
            )
        case "boolean":
            return Codec(kind=kind, read=_bool_of_int, write=int)
        case "float":
            return Codec(kind=kind, expression="CAST({} AS DOUBLE)", read=_float, write=_same, is_equal=_same_repr)
        case "decimal":
            return Codec(kind=kind, read=_mysql_decimal, write=str, is_equal=_same_decimal, **as_text)
        case "bytes":
            return Codec(kind=kind, read=_bytes, write=base64.b64decode)
        case "json":
            read = json_value if not column.is_nullable else _json_not_null
            return Codec(kind=kind, read=read, is_equal=same_json, write=_json_text, **as_text)
        case "datetime":
            return Codec(kind=kind, read=_naive, write=_mysql_time, **as_text)
        case "moment":
            return Codec(kind=kind, read=_moment_in_utc, write=_mysql_time, **as_text)
        case "date":
            return Codec(kind=kind, read=_date, write=str, **as_text)
        case "uuid":
            return Codec(kind=kind, read=_uuid, write=str, **as_text)
        case "text" | "enum" if word in (
            "char",
            "varchar",
            "tinytext",
            "text",
            "mediumtext",
            "longtext",
            "enum",
            "set",
        ):
            return Codec(kind=kind, read=_str, write=_same)
        case _:
            return Codec(kind=kind, read=_str, write=str, **as_text)


def _mysql_decimal(value: Any) -> str:
    return value if isinstance(value, str) else _plain(Decimal(value))


def _mysql_time(text: str) -> str:
    return text.replace("T", " ").removesuffix("Z")


def _moment_in_utc(value: Any) -> str:
    return _naive(value) + "Z"


# ---------------------------------------------------------------------------------------- SQLite


def _sqlite(column: Column, kind: Kind, form: str) -> Codec:
    match kind:
        case "integer":
            return Codec(kind=kind, read=_int_only, write=_same)
        case "boolean":
            return Codec(kind=kind, read=_bool_of_int, write=int)
        case "float":
            return Codec(kind=kind, read=_float_only, write=float, is_equal=_same_repr)
        case "decimal":
            return Codec(kind=kind, read=_sqlite_decimal(scale_of(column.type)), write=str, is_equal=_same_decimal)
        case "bytes":
            return Codec(kind=kind, read=_bytes, write=base64.b64decode)
        case "datetime" | "moment":
            reading, writing = _formed(form)
            return Codec(kind=kind, read=reading, write=writing)
        case "date" | "time":
            return Codec(kind=kind, read=_date if kind == "date" else _sqlite_time, write=_same)
        case "json":
            return Codec(kind=kind, read=_sqlite_json, write=_json_text, is_equal=same_json)
        case "text" | "enum" | "interval" | "uuid":
            return Codec(kind=kind, read=_str, write=_same)
        case _:
            return Codec(kind="any", read=_any, write=_from_any, is_equal=_same_any)


def _sqlite_decimal(scale: int | None) -> Convert:
    quantum = None if scale is None else Decimal(1).scaleb(-scale)

    def read(value: Any) -> str:
        if scale and type(value) is float:
            whole, _, fraction = repr(value).partition(".")
            if fraction.isdigit() and whole[-1].isdigit() and len(fraction) <= scale:
                return f"{whole}.{fraction.ljust(scale, '0')}"
        if isinstance(value, (str, bool, bytes)) or value != value or value in (float("inf"), float("-inf")):
            raise ValueError("it is no number")
        found = Decimal(repr(value))
        scaled = found.to_integral_value() if quantum is None else found.quantize(quantum, context=EXACT)
        return _plain(scaled if scaled == found else found)  # 1.5 of DECIMAL(8,2) is 1.50, and 1.005 stays as it is

    return read


def _sqlite_time(value: Any) -> str:
    found = _time(value)
    if found != value:
        raise ValueError("its fraction has other digits than six")
    return found


def _sqlite_json(value: Any) -> Any:
    found = json_value(_str(value))
    if found is None or _json_text(found) != value:
        raise ValueError("it is no JSON, or JSON in another spelling, which would not be written back the same")
    return found


def _formed(form: str) -> tuple[Convert, Convert]:
    """Return how texts of a form are read and written. What is read is written again, and must be the same text."""
    parts = FORM.fullmatch(form)
    if parts is None:
        raise ValueError(f"{form!r} is no form of times; write one such as {DJANGO_FORM}")
    separator, fraction, suffix = parts[1], parts[2] or "", parts[3] or ""
    digits, may_be_left_out = fraction.count("f"), fraction.startswith("[")

    def write(text: str) -> str:
        body = text.removesuffix("Z")
        written = body[:10] + separator + body[11:19]
        rest = body[20:]
        if digits and (rest or not may_be_left_out):
            written += "." + rest.ljust(6, "0")[:digits]
        return written + suffix

    is_plain = separator in " T" and not suffix and (not digits or may_be_left_out)  # nothing is behind whole seconds

    def read(value: Any) -> str:
        text = _str(value)
        if is_plain and text[10:11] == separator and _is_whole_second(text):
            return f"{text[:10]}T{text[11:]}"
        found = MOMENT.fullmatch(text)
        if found is None:
            raise ValueError(f"it is not in the form {form}")
        result = _iso(found[1], found[2], found[3]) + ("Z" if suffix else "")
        datetime.fromisoformat(result)
        if write(result) != text:
            raise ValueError(f"it is not in the form {form}")
        return result

    return read, write


def _any(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, float):
        found = _float(value)
        return found if isinstance(found, float) else {"float": found}
    return value


def _from_any(value: Any) -> Any:
    if isinstance(value, dict):
        ((name, content),) = cast("dict[str, str]", value).items()
        return base64.b64decode(content) if name == "base64" else float(content)
    return value


def _same_any(some: Any, other: Any) -> bool:
    return type(some) is type(other) and (repr(some) == repr(other) if isinstance(some, float) else some == other)


# ---------------------------------------------------------------------------------------- all


def _same(value: Any) -> Any:
    return value


def _str(value: Any) -> str:
    if type(value) is str:
        return value
    raise ValueError(f"it is {_named(value)}, no text")


def _int(value: Any) -> int:
    return value if type(value) is int else int(value)


def _int_only(value: Any) -> int:
    if type(value) is int:
        return value
    raise ValueError(f"it is {_named(value)}, no whole number")


def _bool_of_int(value: Any) -> bool:
    if value in (0, 1) and not isinstance(value, float):
        return value == 1
    raise ValueError("it is neither 0 nor 1")


def _float(value: Any) -> float | str:
    found = float(value)
    if found != found:
        return "NaN"
    if found in (float("inf"), float("-inf")):
        return "Infinity" if found > 0 else "-Infinity"
    return found


def _float_only(value: Any) -> float | str:
    if type(value) is float:
        return _float(value)
    raise ValueError(f"it is {_named(value)}, no number")


def _bytes(value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    raise ValueError(f"it is {_named(value)}, no bytes")


def _naive(value: Any) -> str:
    text = _str(value)
    if text[10:11] in ("T", " ") and _is_whole_second(text):
        return f"{text[:10]}T{text[11:]}"
    found = MOMENT.fullmatch(text)
    if found is None or found[4]:
        raise ValueError("it is no time of the years 1 to 9999")
    return _valid(_iso(found[1], found[2], found[3]))


def _moment(value: Any) -> str:
    text = _str(value)
    found = MOMENT.fullmatch(text)
    if found is None or not found[4]:
        raise ValueError("it is no moment of the years 1 to 9999")
    return _valid(_iso(found[1], found[2], found[3]) + "Z")


def _is_whole_second(text: str) -> bool:
    """Whether a text is a time of the form YYYY-MM-DD?hh:mm:ss, quickly. Raises ValueError if there is no such time."""
    if len(text) != 19 or text[4] != "-" or text[7] != "-" or text[13] != ":" or text[16] != ":":
        return False
    datetime.fromisoformat(text)
    return True


def _iso(day: str, clock: str, fraction: str | None) -> str:
    """Return a time as msgspec writes it: six digits after the point, or none if they are zero."""
    digits = (fraction or "").ljust(6, "0")
    return f"{day}T{clock}" if digits == "000000" else f"{day}T{clock}.{digits}"


def _valid(text: str) -> str:
    datetime.fromisoformat(text)  # raises ValueError: 0000-00-00, which MySQL may hold, is no date
    return text


def _date(value: Any) -> str:
    text = _str(value)
    if len(text) != 10:
        raise ValueError("it is no date of the years 1 to 9999")
    date.fromisoformat(text)
    return text


def _time(value: Any) -> str:
    found = TIME.fullmatch(_str(value))
    if found is None:
        raise ValueError("it is no time of day")
    digits = (found[2] or "").ljust(6, "0")
    text = found[1] if digits == "000000" else f"{found[1]}.{digits}"
    time.fromisoformat(text)  # raises ValueError: 24:00:00, which PostgreSQL may hold
    return text


def _uuid(value: Any) -> str:
    return value if type(value) is str else str(value)


def _plain(number: Decimal) -> str:
    return format(number, "f") if number.is_finite() else str(number)


def _named(value: Any) -> str:
    return {"str": "text", "int": "a whole number", "float": "a number", "bytes": "bytes"}.get(
        type(value).__name__, type(value).__name__
    )


def _same_repr(some: Any, other: Any) -> bool:
    return repr(some) == repr(other)


def _same_decimal(some: Any, other: Any) -> bool:
    if some == other:
        return True
    try:
        return Decimal(some).as_tuple() == Decimal(other).as_tuple()
    except InvalidOperation:
        return False


def json_value(text: Any) -> Any:
    """Return the value of a JSON text.

    Raises ValueError if it would change: a number of too many digits, a key that is there twice.
    """
    return json.loads(
        text,
        parse_float=_exact_float,
        parse_int=_exact_int,
        parse_constant=_constant,
        object_pairs_hook=_once,
    )


def _json_not_null(text: Any) -> Any:
    found = json_value(text)
    if found is None:
        raise ValueError("JSON's null and NULL are different, and both would be None")
    return found


def _exact_float(text: str) -> float:
    found = float(text)
    if found in (float("inf"), float("-inf")) or Decimal(text) != Decimal(repr(found)):
        raise ValueError(f"the number {text[:40]} in its JSON has more digits than a floating-point number holds")
    return found


def _exact_int(text: str) -> int:
    found = int(text)
    if not MIN_JSON_INT <= found <= MAX_JSON_INT:
        raise ValueError(f"the number {text[:40]} in its JSON has more digits than 64 bits hold")
    return found


def _constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("its JSON has a key twice")
    return found


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def same_json(some: Any, other: Any) -> bool:
    """Whether two JSON values are equal: numbers by value, objects without order; true is not 1."""
    if isinstance(some, bool) or isinstance(other, bool):
        return some is other
    if isinstance(some, dict) and isinstance(other, dict):
        left, right = cast("dict[str, Any]", some), cast("dict[str, Any]", other)
        return left.keys() == right.keys() and all(same_json(value, right[key]) for key, value in left.items())
    if isinstance(some, list) and isinstance(other, list):
        ours, theirs = cast("list[Any]", some), cast("list[Any]", other)
        return len(ours) == len(theirs) and all(map(same_json, ours, theirs))
    return some == other
