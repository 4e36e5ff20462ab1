"""PostgreSQL arrays in the binary wire format.

Knows: the format. Does not know: what the items mean. Payloads are sent as the bytes they are: nothing is escaped,
parsed or reordered, and it is a third faster than the driver's lists
(docs/explanation/decisions/0013-postgres-append.md).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, ClassVar, cast

from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format

NUL, NUL_SUBSTITUTE = "\0", "\1"  # no tag, type or key has a control character
_LENGTH_PREFIXES = [n.to_bytes(4) for n in range(1024)]
_NULL_ITEM = b"\xff\xff\xff\xff"


class PackedArray:
    """An array in wire format."""

    __slots__ = ("wire",)

    def __init__(self, wire: bytes) -> None:
        self.wire = wire


class UuidArray(PackedArray):
    """uuid[]"""


class TextArray(PackedArray):
    """text[]"""


class ByteaArray(PackedArray):
    """bytea[]"""


class IntegerArray(PackedArray):
    """integer[]"""


class BigintArray(PackedArray):
    """bigint[]"""


class _PackedArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Any) -> Buffer | None:
        return obj.wire


def _header(element: int, count: int, nulls: int = 0) -> bytes:
    return struct.pack(">iiIii", 1, nulls, element, count, 1)


def _pack_items(element: int, items: Sequence[bytes]) -> bytes:
    count = len(items)
    parts: list[bytes] = [b""] * (2 * count + 1)
    parts[0] = _header(element, count)
    parts[1::2] = [_LENGTH_PREFIXES[size] if (size := len(item)) < 1024 else size.to_bytes(4) for item in items]
    parts[2::2] = items
    return b"".join(parts)


def _pack_nullable_items(element: int, items: Sequence[bytes | None]) -> bytes:
    wired = [_NULL_ITEM if item is None else len(item).to_bytes(4) + item for item in items]
    return _header(element, len(items), 1) + b"".join(wired)


_ONE_UUID_HEADER = _header(2950, 1) + b"\0\0\0\x10"
_ONE_TEXT_HEADER = _header(25, 1)
_ONE_BLOB_HEADER = _header(17, 1)


def pack_uuid(item: bytes) -> UuidArray:
    """An array of one."""
    return UuidArray(_ONE_UUID_HEADER + item)


def pack_text(item: str) -> TextArray:
    """An array of one."""
    wire = item.encode()
    return TextArray(_ONE_TEXT_HEADER + len(wire).to_bytes(4) + wire)


def pack_blob(item: bytes) -> ByteaArray:
    """An array of one."""
    return ByteaArray(_ONE_BLOB_HEADER + len(item).to_bytes(4) + item)


def pack_uuids(items: Sequence[bytes]) -> UuidArray:
    """16 bytes each."""
    return UuidArray(_pack_items(2950, items))


def pack_texts(items: Sequence[str]) -> TextArray:
    """UTF-8."""
    return TextArray(_pack_items(25, [item.encode() for item in items]))


def pack_search_texts(items: Sequence[str]) -> TextArray:
    """UTF-8, for the values of a query: see `replace_nul`."""
    return pack_texts([item.replace(NUL, NUL_SUBSTITUTE) for item in items] if NUL in "".join(items) else items)


def replace_nul(values: Sequence[Any]) -> list[Any]:
    """The values of a query with U+0001 for U+0000, which PostgreSQL refuses. No stored tag, type or key has either."""
    return [
        value.replace(NUL, NUL_SUBSTITUTE)
        if isinstance(value, str)
        else replace_nul(cast("list[Any]", value))
        if isinstance(value, list)
        else value
        for value in values
    ]


def pack_blobs(items: Sequence[bytes]) -> ByteaArray:
    """Verbatim."""
    return ByteaArray(_pack_items(17, items))


def pack_ints(items: Sequence[int]) -> IntegerArray:
    """32 bits each."""
    return IntegerArray(
        _header(23, len(items)) + b"".join([b"\0\0\0\4" + item.to_bytes(4, signed=True) for item in items])
    )


def pack_bigints(items: Sequence[int]) -> BigintArray:
    """64 bits each."""
    return BigintArray(
        _header(20, len(items)) + b"".join([b"\0\0\0\x08" + item.to_bytes(8, signed=True) for item in items])
    )


def pack_optional_texts(items: Sequence[str | None]) -> TextArray | None:
    """None if every item is None."""
    if items.count(None) == len(items):
        return None
    return TextArray(_pack_nullable_items(25, [None if item is None else item.encode() for item in items]))


def pack_optional_blobs(items: Sequence[bytes | None]) -> ByteaArray | None:
    """None if every item is None."""
    return None if items.count(None) == len(items) else ByteaArray(_pack_nullable_items(17, items))


def pack_optional_bigints(items: Sequence[int | None]) -> BigintArray | None:
    """None if every item is None."""
    if items.count(None) == len(items):
        return None
    return BigintArray(
        _pack_nullable_items(20, [None if item is None else item.to_bytes(8, signed=True) for item in items])
    )


def pack_optional_ints(items: Sequence[int | None]) -> IntegerArray | None:
    """None if every item is None."""
    if items.count(None) == len(items):
        return None
    return IntegerArray(
        _pack_nullable_items(23, [None if item is None else item.to_bytes(4, signed=True) for item in items])
    )


class ArrayDumpers:
    """Registers the dumpers of packed arrays with a connection or cursor."""

    _oids: ClassVar[dict[type[PackedArray], int]] = {
        UuidArray: 2951,
        TextArray: 1009,
        ByteaArray: 1001,
        IntegerArray: 1007,
        BigintArray: 1016,
    }
    _classes: ClassVar[dict[type[PackedArray], type[Dumper]]] = {
        kind: type(f"{kind.__name__}Dumper", (_PackedArrayDumper,), {"oid": oid}) for kind, oid in _oids.items()
    }

    @classmethod
    def register(cls, context: AdaptContext) -> None:
        """See the class."""
        for kind, dumper in cls._classes.items():
            context.adapters.register_dumper(kind, dumper)
