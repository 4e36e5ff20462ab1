"""Room: PostgreSQL's binary arrays, packed by hand.

Knows: the wire format of an array. Does not know: what is in them. Payloads go as the bytes they are: nothing is
escaped, parsed or reordered on the way, and it is a third faster than the driver's lists
(docs/explanation/decisions/0013-postgres-append.md).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, ClassVar, cast

from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format

NUL, NOWHERE = "\0", "\1"  # no tag, type or key has a control character
_LENGTHS = [n.to_bytes(4) for n in range(1024)]
_NULL = b"\xff\xff\xff\xff"


class Packed:
    """An array ready for the wire."""

    __slots__ = ("wire",)

    def __init__(self, wire: bytes) -> None:
        self.wire = wire


class Uuids(Packed):
    """uuid[]"""


class Texts(Packed):
    """text[]"""


class Bytes(Packed):
    """bytea[]"""


class Ints(Packed):
    """integer[]"""


class Bigints(Packed):
    """bigint[]"""


class _PackedDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Any) -> Buffer | None:
        return obj.wire


def _header(element: int, count: int, nulls: int = 0) -> bytes:
    return struct.pack(">iiIii", 1, nulls, element, count, 1)


def _variable(element: int, items: Sequence[bytes]) -> bytes:
    count = len(items)
    parts: list[bytes] = [b""] * (2 * count + 1)
    parts[0] = _header(element, count)
    parts[1::2] = [_LENGTHS[size] if (size := len(item)) < 1024 else size.to_bytes(4) for item in items]
    parts[2::2] = items
    return b"".join(parts)


def _nullable(element: int, items: Sequence[bytes | None]) -> bytes:
    wired = [_NULL if item is None else len(item).to_bytes(4) + item for item in items]
    return _header(element, len(items), 1) + b"".join(wired)


_ONE_UUID = _header(2950, 1) + b"\0\0\0\x10"
_ONE_TEXT = _header(25, 1)
_ONE_BLOB = _header(17, 1)


def uuid(item: bytes) -> Uuids:
    """An array of one."""
    return Uuids(_ONE_UUID + item)


def text(item: str) -> Texts:
    """An array of one."""
    wire = item.encode()
    return Texts(_ONE_TEXT + len(wire).to_bytes(4) + wire)


def blob(item: bytes) -> Bytes:
    """An array of one."""
    return Bytes(_ONE_BLOB + len(item).to_bytes(4) + item)


def uuids(items: Sequence[bytes]) -> Uuids:
    """16 bytes each."""
    return Uuids(_variable(2950, items))


def texts(items: Sequence[str]) -> Texts:
    """UTF-8."""
    return Texts(_variable(25, [item.encode() for item in items]))


def sought(items: Sequence[str]) -> Texts:
    """The same for what is asked for: see `without_nul`."""
    return texts([item.replace(NUL, NOWHERE) for item in items] if NUL in "".join(items) else items)


def without_nul(values: Sequence[Any]) -> list[Any]:
    """What is asked for, without U+0000, which is in no text of a store: another character is there that is in none."""
    return [
        value.replace(NUL, NOWHERE)
        if isinstance(value, str)
        else without_nul(cast("list[Any]", value))
        if isinstance(value, list)
        else value
        for value in values
    ]


def blobs(items: Sequence[bytes]) -> Bytes:
    """Verbatim."""
    return Bytes(_variable(17, items))


def ints(items: Sequence[int]) -> Ints:
    """32 bits each."""
    return Ints(_header(23, len(items)) + b"".join([b"\0\0\0\4" + item.to_bytes(4, signed=True) for item in items]))


def bigints(items: Sequence[int]) -> Bigints:
    """64 bits each."""
    return Bigints(
        _header(20, len(items)) + b"".join([b"\0\0\0\x08" + item.to_bytes(8, signed=True) for item in items])
    )


def texts_or_none(items: Sequence[str | None]) -> Texts | None:
    """None where no item says anything."""
    if items.count(None) == len(items):
        return None
    return Texts(_nullable(25, [None if item is None else item.encode() for item in items]))


def blobs_or_none(items: Sequence[bytes | None]) -> Bytes | None:
    """None where no item says anything."""
    return None if items.count(None) == len(items) else Bytes(_nullable(17, items))


def bigints_or_none(items: Sequence[int | None]) -> Bigints | None:
    """None where no item says anything."""
    if items.count(None) == len(items):
        return None
    return Bigints(_nullable(20, [None if item is None else item.to_bytes(8, signed=True) for item in items]))


def ints_or_none(items: Sequence[int | None]) -> Ints | None:
    """None where no item says anything."""
    if items.count(None) == len(items):
        return None
    return Ints(_nullable(23, [None if item is None else item.to_bytes(4, signed=True) for item in items]))


class Dumpers:
    """Teaches a connection or cursor our packed arrays."""

    _oids: ClassVar[dict[type[Packed], int]] = {Uuids: 2951, Texts: 1009, Bytes: 1001, Ints: 1007, Bigints: 1016}
    _classes: ClassVar[dict[type[Packed], type[Dumper]]] = {
        kind: type(f"{kind.__name__}Dumper", (_PackedDumper,), {"oid": oid}) for kind, oid in _oids.items()
    }

    @classmethod
    def register(cls, context: AdaptContext) -> None:
        """See the class."""
        for kind, dumper in cls._classes.items():
            context.adapters.register_dumper(kind, dumper)
