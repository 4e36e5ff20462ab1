"""Cursors: the place after a row, as a text that names its query.

A cursor has the read model, the generation, the order, a digest of the filter, and the values by which its row was
sorted. It is not a secret and not signed: a changed one can only name another place. Knows: kinds of columns. Does not
know: targets, how a page is found.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import blake2b
from typing import Any
from uuid import UUID
from zlib import crc32

import msgspec

from eventfold.core.table import ColumnKind
from eventfold.core.unstorable import why_unstorable
from eventfold.core.value_order import canonical
from eventfold.errors import InvalidFilter
from eventfold.selection.conditions import AllOf, AnyOf, Compare, Condition, Missing, OneOf, OrderTerm

ENCODE: Mapping[ColumnKind, Callable[[Any], Any]] = {
    "decimal": str,
    "float": repr,
    "bytes": lambda value: base64.b64encode(value).decode(),
    "moment": lambda value: value.isoformat(),
    "date": lambda value: value.isoformat(),
    "uuid": str,
}
DECODE: Mapping[ColumnKind, Callable[[Any], Any]] = {
    "decimal": Decimal,
    "float": float,
    "bytes": lambda value: base64.b64decode(value, validate=True),
    "moment": datetime.fromisoformat,
    "date": date.fromisoformat,
    "uuid": UUID,
}
PLAIN: Mapping[ColumnKind, type] = {"text": str, "int": int, "bool": bool, "json": str}


class Place(msgspec.Struct, frozen=True, array_like=True):
    """What a cursor says. `values`: those of the order's columns, in forms that JSON has."""

    model: str
    generation: str
    order: str
    filter: str
    values: list[Any]


class CursorScope(msgspec.Struct, frozen=True):
    """The query whose pages a cursor belongs to. `origin`: the id of the store."""

    model: str
    generation: str
    order: tuple[OrderTerm, ...]
    condition: Condition
    origin: str

    def write(self, values: Sequence[Any]) -> str:
        """Return the cursor after a row with these values of the order's columns."""
        shown = [
            value if value is None or term.column.kind not in ENCODE else ENCODE[term.column.kind](value)
            for term, value in zip(self.order, values, strict=True)
        ]
        data = msgspec.json.encode(Place(self.model, self.generation, self._order(), self._digest(), shown))
        return base64.urlsafe_b64encode(crc32(data).to_bytes(4, "big") + data).decode().rstrip("=")

    def read(self, cursor: Any) -> tuple[Any, ...]:
        """Return the values of the order's columns. Raises InvalidFilter for a cursor of another query."""
        place = _parse(cursor)
        if place.model != self.model:
            raise _foreign(f"of the read model {place.model}, and this one is {self.model}")
        if place.generation != self.generation:
            raise _foreign(f"of {place.generation}, and the rows are now of {self.generation}", again=False)
        if place.order != self._order():
            raise _foreign(f"of rows sorted by {place.order}, and these are sorted by {self._order()}")
        if place.filter != self._digest():
            raise _foreign("of rows with another filter, or of another store")
        try:
            return tuple(_decoded(term, value) for term, value in zip(self.order, place.values, strict=True))
        except (ValueError, TypeError, ArithmeticError):
            raise _invalid(cursor) from None

    def _order(self) -> str:
        return ",".join(map(str, self.order))

    def _digest(self) -> str:
        text = f"{self.origin} {_described(self.condition)}"
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=9).hexdigest()


def _decoded(term: OrderTerm, value: Any) -> Any:
    kind = term.column.kind
    if value is None and term.column.nullable:
        return None
    expected = PLAIN.get(kind, str)
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise TypeError
    decoded = DECODE[kind](value) if kind in DECODE else value
    if reason := why_unstorable(term.column, decoded):
        raise ValueError(reason)
    return decoded


def _described(condition: Condition) -> str:
    """Return a condition as text, the same for equal values."""
    match condition:
        case AllOf(parts):
            return f"all({','.join(map(_described, parts))})"
        case AnyOf(parts):
            return f"any({','.join(map(_described, parts))})"
        case Missing(column, negated):
            return f"{column.name!r} {'has' if negated else 'lacks'}"
        case OneOf(column, values, negated):
            return f"{column.name!r} {'out' if negated else 'in'} {sorted(map(_value, values))}"
        case Compare(column, operator, value):
            return f"{column.name!r}{operator}{_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).isoformat()
    return repr(canonical(value))


def _parse(cursor: Any) -> Place:
    if not isinstance(cursor, str):
        raise _invalid(cursor)
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        if crc32(data[4:]).to_bytes(4, "big") != data[:4]:
            raise _invalid(cursor)
        return msgspec.json.decode(data[4:], type=Place)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        raise _invalid(cursor) from None


def _invalid(cursor: Any) -> InvalidFilter:
    shown = f"{cursor!r}"
    return InvalidFilter(
        f"after={shown if len(shown) < 60 else shown[:60] + '…'} is not a cursor of rows.",
        "Give the .next of an earlier page, unchanged; or omit after= for the first page.",
    )


def _foreign(which: str, again: bool = True) -> InvalidFilter:
    return InvalidFilter(
        f"The cursor is {which}.",
        "Repeat the call that returned the cursor, with after= only added; or start again without after=."
        if again
        else "Start again from the first page, without after=.",
    )
