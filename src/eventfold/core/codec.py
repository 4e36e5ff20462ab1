"""Codecs: how the events of one class, and metadata, are encoded as JSON and decoded.

Every event is decoded once after it is encoded, so what is appended can be read (P10). Knows: structs, dataclasses,
attrs classes, pydantic models, their fields. Does not know: stored events, positions, other classes.
"""

from __future__ import annotations

import copy
import inspect
import re
import typing
from collections.abc import Callable, Hashable, Mapping, Set
from datetime import datetime
from decimal import Decimal
from functools import partial
from operator import attrgetter, itemgetter
from typing import Any, cast
from uuid import UUID

import msgspec

from eventfold.core.envelope import NewEvent
from eventfold.core.event import declaration_of
from eventfold.core.json_values import (
    MOST_NESTED,
    built_in_value,
    decoder_of,
    encode_sorted,
    fields_of,
    fields_of_class,
    float_as_decimal,
    is_nested_deeper,
    is_same,
    renamed_fields,
    what_changed,
)
from eventfold.core.signals import is_from_handler
from eventfold.core.tags import check_name, tag_fields, tag_values
from eventfold.core.unknown_fields import Decode, Encode, keep_unknown, unknown_field_of
from eventfold.core.upcast import Upcaster, check_no_gap, upcaster_from
from eventfold.errors import InvalidEvent

_json = msgspec.json.Encoder(enc_hook=built_in_value)
encode_lines = _json.encode_lines  # of events whose codec `is_plain`


class Codec(msgspec.Struct):
    """An event class, compiled: its stored name and version, its encoder and decoder, its tag getters."""

    cls: type
    type: str
    version: int
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    tags: tuple[tuple[str, Callable[[Any], Any]], ...]  # prefix and getter of each field, in order of the prefixes
    upcaster: Upcaster | None = None
    decode_lines: Callable[[bytes], list[Any]] | None = None
    decimals: tuple[str, ...] = ()  # fields in which a Decimal may be

    @property
    def is_plain(self) -> bool:
        """Whether nothing but msgspec encodes and decodes it, and a value that is read back equal is the same."""
        return self.encode == _json.encode and self.decode_lines is not None and not self.decimals


def codec_of(cls: type) -> Codec:
    """Compile a class. Raises InvalidEvent if it is not an event class or its annotations cannot be resolved."""
    name = declaration_of(cls)
    check_no_gap(cls)
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
        if hasattr(cls, "model_validate_json"):  # pydantic, recognised by this method, so that it is not imported
            encode, decode = _pydantic_codec(cast(Any, cls))
            decode_lines = None
            decimals = ()  # pydantic itself converts a float to the Decimal of its repr
        else:
            decoder = decoder_of(cls)
            encode: Encode = _json.encode
            decode: Decode = decoder.decode
            decode_lines = decoder.decode_lines
            decimals = tuple(name for name in fields_of_class(cls) if _holds(hints.get(name), (Decimal,)))
            if _holds(cls, (set, frozenset, Set)):
                encode = _encode_ordered
            if any(name[0] == "_" for name in _attrs_fields(cls)):
                encode = _encode_attrs
        if (unknown_field := unknown_field_of(hints)) is not None:
            encode, decode = keep_unknown(cls, unknown_field, encode, decode)
            decode_lines = None
    except (NameError, TypeError) as error:
        raise InvalidEvent(
            f"The fields of {cls.__qualname__} cannot be understood: {error}.",
            "Annotate them with types that msgspec can read, defined where the class's module can see them.",
            type=name.type,
        ) from error
    fields = [(check_name("tag key", key) + ":", attrgetter(field)) for field, key in tag_fields(hints).items()]
    tags = tuple(sorted(fields, key=itemgetter(0)))
    return Codec(cls, name.type, name.version, encode, decode, tags, upcaster_from(cls), decode_lines, decimals)


def _pydantic_codec(model: Any) -> tuple[Encode, Decode]:
    """Return encoder and decoder of a pydantic model: by the names of its fields, without computed fields."""
    if "by_name" in inspect.signature(model.model_validate_json).parameters:  # since pydantic 2.11
        renamed = any(
            each.serialization_alias not in (None, each.alias, each.validation_alias)
            for each in model.model_fields.values()
        )

        def encode(event: Any, /) -> bytes:
            return event.model_dump_json(round_trip=True, by_alias=False if renamed else None).encode()

        return encode, partial(model.model_validate_json, by_alias=True, by_name=True)

    def encode_as_configured(event: Any, /) -> bytes:
        return event.model_dump_json(round_trip=True).encode()

    return encode_as_configured, model.model_validate_json


def _encode_attrs(event: Any, /) -> bytes:
    """Return the JSON of an attrs object that has private fields, which msgspec omits."""
    return _json.encode(
        {name: _ordered(getattr(event, name)) for name in _attrs_fields(cast("type[Any]", type(event)))}
    )


def _attrs_fields(cls: type) -> list[str]:
    return [field.name for field in getattr(cls, "__attrs_attrs__", ())]


def _holds(hint: Any, kinds: tuple[Any, ...], seen: frozenset[Any] = frozenset()) -> bool:
    """Whether a value of this type may hold one of some classes, at any depth."""
    if hint in kinds or typing.get_origin(hint) in kinds:
        return True
    inner: list[Any] = list(typing.get_args(hint))
    if isinstance(hint, type) and hint not in seen and getattr(hint, "__annotations__", None):
        inner += typing.get_type_hints(hint).values()
    return any(_holds(each, kinds, seen | {hint}) for each in inner if isinstance(each, (type, Hashable)))


def _encode_ordered(event: Any, /) -> bytes:
    """Return JSON with sorted sets: Python's order differs between processes, and equal events must be equal bytes."""
    return _json.encode(_ordered(event))


def _ordered(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(map(_ordered, cast("set[Any]", value)), key=_json.encode)
    if isinstance(value, (list, tuple)):
        return [_ordered(each) for each in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {key: _ordered(each) for key, each in cast("dict[Any, Any]", value).items()}
    names = fields_of(value)
    if not names:
        return value
    twin = copy.copy(value)
    for name in names:
        before = getattr(value, name)
        after = _ordered(before)
        if after is not before:
            put = msgspec.structs.force_setattr if isinstance(twin, msgspec.Struct) else object.__setattr__
            put(twin, name, after)
    return twin


def encode_payload(codec: Codec, event: Any) -> bytes:
    """Return an event as JSON, after decoding it once. Raises InvalidEvent if the decoded event is not equal to it."""
    try:
        data = codec.encode(event)
    except MemoryError:
        raise
    except Exception as error:  # a pydantic serializer is user code, and may raise anything
        if is_from_handler(error):
            raise
        raise _unstorable_error(codec, event, error) from error
    if len(data) > 2 * MOST_NESTED and is_nested_deeper(data):
        raise _too_deep_error(codec, event)
    try:
        back = codec.decode(data)
    except MemoryError:
        raise
    except Exception as error:  # a check of the class is user code, and may raise anything
        if is_from_handler(error):
            raise
        raise _unreadable_error(codec, event, data, error) from error
    for name in codec.decimals:
        if found := float_as_decimal(getattr(event, name), getattr(back, name), name):
            raise InvalidEvent(
                f"A {codec.type} has a float where its class declares a Decimal: field {found}.",
                "Create the Decimal from text or integers, Decimal('0.1'): a float is not exactly the number it shows.",
                type=codec.type,
                field=found.split(" ")[0],
            )
    try:
        is_equal = event == back
    except ArithmeticError:  # a signalling NaN refuses to be compared
        is_equal = False
    if not is_equal and not is_same(event, back):  # times may be the same without being equal
        raise InvalidEvent(
            f"A {codec.type} would be read from the log with another value: {what_changed(event, back)}.",
            "Give each field exactly the type its class declares (no NaN, no list for a tuple).",
            type=codec.type,
        )
    return data


def tags_of(codec: Codec, event: Any, more: tuple[str, ...]) -> tuple[str, ...]:
    """Return the tags of an event, sorted: those of its fields, and `more`. Raises InvalidEvent."""
    if isinstance(more, str):
        raise InvalidEvent(f"The tags {more!r} are one text.", "Give a tuple of tags, even for one tag: (tag,).")
    found: list[str] = []
    for prefix, get in codec.tags:
        value = get(event)
        # A short printable text after a valid key is valid; only other texts need the full check, which is slower.
        if type(value) is str:
            tag = prefix + value
            found.append(tag if len(tag) <= 60 and tag.isprintable() else check_name("tag", tag))
        else:
            found += [check_name("tag", prefix + text) for text in tag_values(value)]
    if more:
        found += [check_name("tag", tag) for tag in more]
    if len(found) < 2 or (len(found) == 2 and found[0] < found[1]):
        return tuple(found)
    return tuple(sorted(set(found)))


def _unstorable_error(codec: Codec, event: Any, error: Exception) -> InvalidEvent:
    if isinstance(error, RecursionError):
        return _too_deep_error(codec, event)
    field = _unencodable_field(event)
    return InvalidEvent(
        f"A {codec.type} cannot be stored: {f'field {field}: ' if field else ''}{describe_error(error)}.",
        "Use values that have a JSON form: convert those of other libraries (a NumPy scalar by value.item()).",
        type=codec.type,
        field=field,
    )


def _too_deep_error(codec: Codec, event: Any) -> InvalidEvent:
    field = _unencodable_field(event)
    return InvalidEvent(
        f"A {codec.type} cannot be stored: {f'field {field}' if field else 'it'} is nested deeper than {MOST_NESTED} "
        "levels, or contains itself.",
        "Store it flat (a list of nodes that name their parents), or as one text.",
        type=codec.type,
        field=field,
        limit=MOST_NESTED,
    )


def _unencodable_field(event: Any) -> str:
    """Return the first field whose value has no JSON form, or is nested too deep; "" if no single field is at fault."""
    for name in fields_of(event):
        try:
            if is_nested_deeper(_json.encode(getattr(event, name)), MOST_NESTED - 1):
                return name
        except Exception:  # noqa: BLE001 (this is the field)
            return name
    return ""


def _unreadable_error(codec: Codec, event: Any, data: bytes, error: Exception) -> InvalidEvent:
    if isinstance(error, ValueError) and error.__cause__ is None:  # msgspec's and pydantic's validation errors
        what = f"has a value of the wrong type: {error}{_named_in_class(codec.cls, error)}"
        remedy = "Give each field the type its class declares."
    else:
        field = _refusing_field(codec.cls, data, error)
        in_field = f"field {field}: " if field else ""
        what = f"is refused by its own class when it is read: {in_field}{describe_error(error)}"
        remedy = "Give it values that the class also accepts when it is read."
    return InvalidEvent(
        f"A {codec.type} {what}.", remedy, type=codec.type, field=field_in(error), event=repr(event)[:500]
    )


def _named_in_class(cls: type, error: Exception) -> str:
    """Return which field of the class an error means, if it names it as it is stored and the class does otherwise."""
    found = field_in(error)
    for name, stored in renamed_fields(cls).items():
        if found == stored or found.startswith((f"{stored}.", f"{stored}[")):
            return f" (stored as {stored}, {name} in the class)"
    return ""


def _refusing_field(cls: Any, data: bytes, error: Exception) -> str:
    """Return the field of a pydantic model whose validator raises an error of this class; "" if no single one does."""
    for name in getattr(cls, "model_fields", ()):
        try:
            cls.__pydantic_validator__.validate_assignment(cls.model_construct(), name, msgspec.json.decode(data)[name])
        except Exception as found:  # noqa: BLE001 (raised by user code; it is compared)
            if type(found) is type(error):
                return name
    return ""


def describe_error(error: Exception) -> str:
    """Return an error's text, with the name of its class unless it is a validation error."""
    return str(error) if isinstance(error, (ValueError, TypeError)) else f"{type(error).__name__}: {error}"


def field_in(error: Exception) -> str:
    """Return the field that a validation error names, as `outer.inner`; "" if it concerns the whole event."""
    if hasattr(error, "errors") and hasattr(error, "error_count"):  # pydantic's
        return ".".join(str(part) for part in cast(Any, error).errors()[0]["loc"])
    parts = (
        re.search(r"at `\$\.?([^`]*)`", str(error)),
        re.search(r"(?:required|unknown) field `([^`]*)`", str(error)),
    )
    return ".".join(part[1] for part in parts if part and part[1])


def encode_metadata(metadata: Mapping[str, Any]) -> bytes | None:
    """Return metadata as a JSON object with sorted keys, or None if there is none. Raises InvalidEvent."""
    kept = {key: _plain(value) for key, value in metadata.items() if value is not None}
    if not kept:
        return None
    try:
        return encode_sorted(kept)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidEvent(f"Metadata cannot be stored: {error}.", "Use values that have a JSON form.") from error


def with_metadata(event: NewEvent, metadata: bytes | None) -> NewEvent:
    """Return an encoded event with the context's metadata added; its own values take precedence."""
    if metadata is None:
        return event
    merged = encode_metadata(metadata_in(metadata) | metadata_in(event.metadata))
    return msgspec.structs.replace(event, metadata=merged)


def metadata_in(metadata: bytes | None) -> dict[str, Any]:
    """Return encoded metadata as a dict."""
    return cast("dict[str, Any]", msgspec.json.decode(metadata)) if metadata else {}


def _plain(value: Any) -> Any:
    if isinstance(value, (UUID, datetime)):
        return str(value) if isinstance(value, UUID) else value.isoformat()
    return value
