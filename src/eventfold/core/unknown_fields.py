"""Stored fields that a class does not have: they are ignored unless one of its fields is for unknown fields.

    class PriceSet(ef.Event):
        item: ef.Tag
        amount: int
        more: ef.UnknownFields = {}   # any other stored field of the event; written again with it

Knows: JSON objects, and which field is for unknown fields. Does not know: which classes there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, get_origin

import msgspec

Encode = Callable[[Any], bytes]
Decode = Callable[[bytes], Any]


class KeepsUnknownFields(msgspec.Struct, frozen=True):
    """The mark of the field for unknown fields."""


UnknownFields = Annotated[dict[str, Any], KeepsUnknownFields()]

_parts = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_plain = msgspec.json.decode


def unknown_field_of(hints: dict[str, Any]) -> str | None:
    """Return the field for unknown fields, from a class's type hints (with extras); None if there is none."""
    for field, hint in hints.items():
        if get_origin(hint) is Annotated and any(isinstance(each, KeepsUnknownFields) for each in hint.__metadata__):
            return field
    return None


def keep_unknown(cls: type, unknown_field: str, encode: Encode, decode: Decode) -> tuple[Encode, Decode]:
    """Return encoder and decoder that read unknown fields into `unknown_field` and write them beside the others."""
    names = _stored_names(cls, unknown_field)
    own = names.pop(unknown_field)
    known = set(names.values())

    def written(event: Any) -> bytes:
        parts = _parts(encode(event))
        more = _parts(parts.pop(own, msgspec.Raw(b"{}")))
        twice = sorted(known & more.keys())
        if twice:
            raise ValueError(f"{unknown_field} contains {', '.join(twice)}, which the class has as a field")
        return msgspec.json.encode(parts | more)

    def read(data: bytes) -> Any:
        event = decode(data)
        more = {
            name: _plain(part) for name, part in _parts(data).items() if name not in known
        }  # including a stored field with the name of `unknown_field`
        if more:
            put = msgspec.structs.force_setattr if isinstance(event, msgspec.Struct) else object.__setattr__
            put(event, unknown_field, more)
        return event

    return written, read


def _stored_names(cls: type, unknown_field: str) -> dict[str, str]:
    """Return the stored names of a class's fields. Raises TypeError if it cannot have a field for unknown fields."""
    import msgspec.inspect  # here: few classes have a field for unknown fields

    fields = getattr(msgspec.inspect.type_info(cls), "fields", None)
    if fields is None:
        raise TypeError('a field of unknown fields is for structs, dataclasses and attrs; pydantic has extra="allow"')
    if any(field.name == unknown_field and field.required for field in fields):
        raise TypeError(
            f"{unknown_field} is for unknown fields and needs a default: {unknown_field}: ef.UnknownFields = {{}}"
        )
    return {field.name: field.encode_name for field in fields}
