"""Stored fields that a class does not know: ignored unless it has a field that keeps them.

    class PriceSet(ef.Event):
        item: ef.Tag
        amount: int
        more: ef.UnknownFields = {}   # whatever else the stored event has, and is written again with it

Knows: JSON objects, and which field keeps. Does not know: which classes there are, what is stored where.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, get_origin

import msgspec

Encode = Callable[[Any], bytes]
Decode = Callable[[bytes], Any]


class KeepsUnknownFields(msgspec.Struct, frozen=True):
    """The mark of the field that keeps what a class does not know."""


UnknownFields = Annotated[dict[str, Any], KeepsUnknownFields()]

_parts = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_plain = msgspec.json.decode


def unknown_field_of(hints: dict[str, Any]) -> str | None:
    """The field that keeps what is unknown, from a class's type hints (with extras)."""
    for field, hint in hints.items():
        if get_origin(hint) is Annotated and any(isinstance(each, KeepsUnknownFields) for each in hint.__metadata__):
            return field
    return None


def keep_unknown(cls: type, keeper: str, encode: Encode, decode: Decode) -> tuple[Encode, Decode]:
    """The same codec, where unknown fields go into the keeper when read, and beside the others when written."""
    names = _stored_names(cls, keeper)
    own = names.pop(keeper)
    known = set(names.values())

    def written(event: Any) -> bytes:
        parts = _parts(encode(event))
        more = _parts(parts.pop(own, msgspec.Raw(b"{}")))
        twice = sorted(known & more.keys())
        if twice:
            raise ValueError(f"{keeper} has {', '.join(twice)}, which the class knows")
        return msgspec.json.encode(parts | more)

    def read(data: bytes) -> Any:
        event = decode(data)
        more = {
            name: _plain(part) for name, part in _parts(data).items() if name not in known
        }  # also one of the keeper's name
        if more:
            put = msgspec.structs.force_setattr if isinstance(event, msgspec.Struct) else object.__setattr__
            put(event, keeper, more)
        return event

    return written, read


def _stored_names(cls: type, keeper: str) -> dict[str, str]:
    """A class's fields, and the names under which they are stored. Raises TypeError where one cannot keep."""
    import msgspec.inspect  # here: few classes keep anything

    fields = getattr(msgspec.inspect.type_info(cls), "fields", None)
    if fields is None:
        raise TypeError('a field of unknown fields is for structs, dataclasses and attrs; pydantic has extra="allow"')
    if any(field.name == keeper and field.required for field in fields):
        raise TypeError(f"{keeper} keeps unknown fields and has no default, which would be {{}}")
    return {field.name: field.encode_name for field in fields}
