"""Type names <-> classes, objects <-> bytes. The only room that sees bytes AND classes.

Knows: codecs, the known classes. Does not know: positions as anything but a number to name in an error,
engines, order of steps. What it encodes it has decoded again once: what is appended can be read (P10).
"""

from __future__ import annotations

import copy
import inspect
import re
import typing
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from datetime import datetime
from decimal import Decimal
from functools import partial
from operator import attrgetter
from typing import Any, cast
from uuid import UUID

import msgspec

from eventfold.core.decoders import decoder_of
from eventfold.core.envelope import NewEvent, StoredEvent, check_name, check_new, new_id, to_micros
from eventfold.core.event import (
    Draft,
    Event,
    RawEvent,
    classes_named,
    declaration_of,
    declarations_version,
    family_of,
    is_name_conflict,
    is_same_source,
    known_names,
    tag_fields,
    tag_values,
)
from eventfold.core.json_values import (
    MOST_NESTED,
    built_in_value,
    encode_sorted,
    fields_of,
    fields_of_class,
    float_as_decimal,
    is_nested_deeper,
    is_same,
    what_changed,
)
from eventfold.core.signals import is_from_handler
from eventfold.core.unknown_fields import Decode, Encode, keep_unknown, unknown_field_of
from eventfold.core.upcast import Upcaster, apply_upcasters, check_no_gap, current_classes, upcaster_from, version_chain
from eventfold.errors import EventfoldError, InvalidEvent, UndecodableEvent, UnknownEventType

_json = msgspec.json.Encoder(enc_hook=built_in_value)


class Codec(msgspec.Struct):
    """One class, ready: its stored name and version, its encoder and decoder, its tag getters."""

    cls: type
    type: str
    version: int
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    tags: tuple[tuple[str, Callable[[Any], Any]], ...]
    upcaster: Upcaster | None = None
    decode_lines: Callable[[bytes], list[Any]] | None = None
    decimals: tuple[str, ...] = ()  # fields in which a Decimal may be


def codec_of(cls: type) -> Codec:
    """Compile a class. Raises InvalidEvent if it is no event class or its annotations cannot be resolved."""
    name = declaration_of(cls)
    check_no_gap(cls)
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
        if hasattr(cls, "model_validate_json"):  # pydantic, recognised by what it can do, not imported
            encode, decode = _pydantic_codec(cast(Any, cls))
            decode_lines = None
            decimals = ()  # it makes Decimals of floats by itself, of what they show
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
        if (keeper := unknown_field_of(hints)) is not None:
            encode, decode = keep_unknown(cls, keeper, encode, decode)
            decode_lines = None
    except (NameError, TypeError) as error:
        raise InvalidEvent(
            f"The fields of {cls.__qualname__} cannot be understood: {error}.",
            "Annotate them with types that msgspec can read, defined where the class's module can see them.",
            type=name.type,
        ) from error
    fields = tuple((f"{key}:", attrgetter(field)) for field, key in tag_fields(hints).items())
    return Codec(cls, name.type, name.version, encode, decode, fields, upcaster_from(cls), decode_lines, decimals)


def _pydantic_codec(model: Any) -> tuple[Encode, Decode]:
    """How a pydantic model is written and read: under the names of its fields, without what is computed from them."""
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
    """JSON of an attrs class with fields of private names, which msgspec leaves out."""
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
    """JSON with sets in an order of their own: Python's differs between processes, and equal events are equal bytes."""
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


class Registry:
    """Encodes and decodes events for one store. Classes are found by their stored names as they are declared."""

    def __init__(self) -> None:
        self._codecs: dict[type, Codec] = {}
        self._readers: dict[tuple[str, int], Codec] = {}
        self._generation = -1
        self._used: dict[tuple[str, int], type] = {}  # the class that each stored name and version was used with last

    def codec(self, cls: type) -> Codec:
        """The compiled codec of an event class. Raises InvalidEvent where its name is another's here."""
        codec = self._codecs.get(cls)
        if codec is None or codec.upcaster is not upcaster_from(cls):
            self._claim_name(cls, InvalidEvent)
            codec = self._codecs[cls] = codec_of(cls)
        return codec

    def _claim_name(self, cls: type, error: type[EventfoldError]) -> None:
        """Remember that a name is this class's. Raises the error where it is another's, by accident of one name."""
        own = declaration_of(cls)
        key = (own.type, own.version)
        other = self._used.get(key)
        if other is cls:
            return
        if other is not None and is_name_conflict(cls, other):
            raise error(
                f"The event type {own.type!r} is taken twice: by {_source_of(other)}, and by {_source_of(cls)}.",
                'Give one of them a name of its own, class X(ef.Event, type="billing.x"); where both mean the same '
                "events, use one class, or say the name in both.",
                type=own.type,
                version=own.version,
            )
        self._used[key] = cls
        self._readers.pop(key, None)

    def encode(self, event: Any, metadata: bytes | None = None) -> NewEvent:
        """An event or Draft as it will be stored; `metadata` the context's, as a JSON object.

        Raises InvalidEvent on a value that cannot be stored or would not come back equal.
        """
        draft = event if type(event) is Draft else None
        if draft is not None:
            event = draft.event
        codec = self.codec(type(event))  # pyright: ignore[reportUnknownArgumentType]
        data = self._payload(codec, event)
        tags = self._tags(codec, event, draft.tags if draft is not None else ())
        if draft is None:
            return check_new(NewEvent(new_id(), codec.type, codec.version, data, tags, None, metadata))
        if draft.metadata:
            metadata = encode_metadata(_metadata_in(metadata) | draft.metadata)
        occurred = None if draft.occurred is None else to_micros(draft.occurred)
        if draft.id is not None and not isinstance(draft.id, UUID):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidEvent(f"The id {draft.id!r} is no UUID.", "Give a uuid.UUID, or none.", id=repr(draft.id))
        identity = new_id() if draft.id is None else draft.id.bytes
        return check_new(NewEvent(identity, codec.type, codec.version, data, tags, occurred, metadata))

    def _payload(self, codec: Codec, event: Any) -> bytes:
        try:
            data = codec.encode(event)
        except MemoryError:
            raise
        except Exception as error:  # a pydantic serializer is the user's, and may raise anything
            if is_from_handler(error):
                raise
            raise _unstorable_error(codec, event, error) from error
        if is_nested_deeper(data):
            raise _too_deep_error(codec, event)
        try:
            back = codec.decode(data)
        except MemoryError:
            raise
        except Exception as error:  # a check of the class may raise anything
            if is_from_handler(error):
                raise
            raise _unreadable_error(codec, event, data, error) from error
        for name in codec.decimals:
            if found := float_as_decimal(getattr(event, name), getattr(back, name), name):
                raise InvalidEvent(
                    f"A {codec.type} has a float where its class declares a Decimal: field {found}.",
                    "Give a Decimal made of text or of integers: Decimal('0.1'); a float is not the number it shows.",
                    type=codec.type,
                    field=found.split(" ")[0],
                )
        if not is_same(event, back):
            raise InvalidEvent(
                f"A {codec.type} would come back from the log changed: {what_changed(event, back)}.",
                "Give each field exactly the type its class declares (no NaN, no list for a tuple).",
                type=codec.type,
            )
        return data

    def _tags(self, codec: Codec, event: Any, more: tuple[str, ...]) -> tuple[str, ...]:
        if isinstance(more, str):
            raise InvalidEvent(f"The tags {more!r} are one text.", "Give a tuple of tags, even of one: (tag,).")
        found: list[str] = list(more)
        for prefix, get in codec.tags:
            value = get(event)
            if type(value) is str:
                found.append(prefix + value)
            else:
                found.extend(prefix + text for text in tag_values(value))
        for tag in found:
            # A short printable text is fine as it is; everything else is looked at in full.
            if type(tag) is not str or len(tag) > 60 or not tag.isprintable() or tag[:1] in ("", "$"):
                check_name("tag", tag)
        if len(found) < 2:
            return tuple(found)
        return tuple(sorted(set(found)))

    def codec_for(self, stored: StoredEvent) -> Codec:
        """The codec that reads a stored event, found by its name and version among all known classes.

        Raises UnknownEventType if no class, or several unrelated ones, claim it; UndecodableEvent on a gap in
        its versions.
        """
        if self._generation != declarations_version():
            self._generation = declarations_version()
            self._readers.clear()
        codec = self._readers.get((stored.type, stored.version))
        if codec is None:
            codec = self._codec_among(self._candidates(stored), stored)
            self._readers[stored.type, stored.version] = codec
        return codec

    def _candidates(self, stored: StoredEvent) -> list[type]:
        """The classes of a stored name; where several have one version, the one that this store was used with."""
        found = classes_named(stored.type)
        used = self._used.get((stored.type, stored.version))
        if used is None:
            return found
        same = [cls for cls in found if declaration_of(cls).version == stored.version]
        twin = next((cls for cls in same if is_same_source(used, cls)), None)
        if used not in same:
            if twin is None:
                return found
            if used.__module__ == twin.__module__:
                used = twin  # written again since
            # else a module that is run and imported, which has its classes twice: those that are used here are meant
        return [used, *(cls for cls in found if cls not in same)]

    def codec_among(self, classes: Iterable[type], stored: StoredEvent) -> Codec:
        """The same, preferring these classes and their families over others of the same stored name."""
        for cls in classes:
            if cls is not Event:
                own = [each for each in family_of(cls) if stored.type in declaration_of(each).names]
                if own:
                    return self._codec_among(own, stored)
        return self.codec_for(stored)

    def _codec_among(self, classes: list[type], stored: StoredEvent) -> Codec:
        if not classes:
            raise unknown_type_error(stored)
        versions: dict[int, list[type]] = {}
        for cls in dict.fromkeys(classes):
            versions.setdefault(declaration_of(cls).version, []).append(cls)
        newest = max(versions)
        found = versions.get(stored.version)
        if found is None:
            if stored.version < newest and any(upcaster_from(cls) for cls in classes):
                raise UndecodableEvent(
                    f"Event {stored.position} ({stored.type}) has version {stored.version}, and no class has.",
                    "Declare the class of that version and an upcaster from it; there are others, so it is a gap.",
                    position=stored.position,
                    type=stored.type,
                    version=stored.version,
                )
            found = versions[newest]  # read weakly: unknown fields are ignored, missing ones take their defaults
        if len(found) > 1:
            places = " and ".join(sorted(map(_source_of, found)))
            raise UnknownEventType(
                f"The event type {stored.type!r} is claimed by {places}.",
                'Give one of them a name of its own: class X(ef.Event, type="…").',
                type=stored.type,
            )
        ends = current_classes(found[0])
        if any(declaration_of(end).type == stored.type and declaration_of(end).version < newest for end in ends):
            raise UndecodableEvent(
                f"The upcasters of {stored.type} end at {' → '.join(version_chain(found[0]))}, "
                f"and version {newest} exists.",
                "Write the upcaster that leads on to it.",
                position=stored.position,
                type=stored.type,
            )
        self._claim_name(found[0], UnknownEventType)
        return self.codec(found[0])

    def decode(self, stored: StoredEvent) -> tuple[Any, ...]:
        """The typed event as today's class; several where an upcaster splits it.

        Raises UnknownEventType or UndecodableEvent, which name the position.
        """
        return self.decode_as(self.codec_for(stored), stored)

    def decode_as(self, codec: Codec, stored: StoredEvent) -> tuple[Any, ...]:
        """The same with a codec found before."""
        if stored.codec != "json":
            raise UndecodableEvent(
                f"Event {stored.position} ({stored.type}) is stored as {stored.codec!r}, which cannot be read here.",
                "Read it raw (raw=True), or install what reads that format.",
                position=stored.position,
                type=stored.type,
                codec=stored.codec,
            )
        try:
            event = codec.decode(stored.data)
        except MemoryError:
            raise
        except Exception as error:  # a check of the class may raise anything
            if is_from_handler(error):
                raise
            raise UndecodableEvent(
                f"Event {stored.position} no longer fits {codec.cls.__qualname__} ({stored.type}): "
                f"{_describe_error(error)}.",
                "Change the class so that it reads old events (a default for a new field), or read it raw (raw=True).",
                position=stored.position,
                type=stored.type,
                field=_field_in(error),
            ) from error
        return (event,) if codec.upcaster is None else _apply_upcaster(codec.upcaster, event, stored)

    def decode_all(self, codec: Codec, events: Sequence[StoredEvent]) -> list[Any] | None:
        """Events of one codec in one go, a third of the work of one by one; None where it takes one by one to tell."""
        if codec.upcaster is not None or codec.decode_lines is None or {event.codec for event in events} != {"json"}:
            return None
        try:
            found = codec.decode_lines(b"\n".join([event.data for event in events]))
        except MemoryError:
            raise
        except Exception as error:
            if is_from_handler(error):
                raise
            return None  # which event is at fault, decode_as says
        return found if len(found) == len(events) else None


def _source_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _unstorable_error(codec: Codec, event: Any, error: Exception) -> InvalidEvent:
    if isinstance(error, RecursionError):
        return _too_deep_error(codec, event)
    field = _unencodable_field(event)
    return InvalidEvent(
        f"A {codec.type} cannot be stored: {f'field {field}: ' if field else ''}{_describe_error(error)}.",
        "Use values that have a JSON form: a built-in one of another library's (value.item() of a NumPy scalar, say).",
        type=codec.type,
        field=field,
    )


def _too_deep_error(codec: Codec, event: Any) -> InvalidEvent:
    field = _unencodable_field(event)
    return InvalidEvent(
        f"A {codec.type} cannot be stored: {f'field {field}' if field else 'it'} is nested deeper than {MOST_NESTED} "
        "levels, or holds itself.",
        "Store it flat (a list of nodes that name their parents), or as one text.",
        type=codec.type,
        field=field,
        limit=MOST_NESTED,
    )


def _unencodable_field(event: Any) -> str:
    """The first field whose value has no JSON form, or one that is too deep; empty where it is not one alone."""
    for name in fields_of(event):
        try:
            if is_nested_deeper(_json.encode(getattr(event, name)), MOST_NESTED - 1):
                return name
        except Exception:  # noqa: BLE001 (found)
            return name
    return ""


def _unreadable_error(codec: Codec, event: Any, data: bytes, error: Exception) -> InvalidEvent:
    if isinstance(error, ValueError) and error.__cause__ is None:  # msgspec's and pydantic's validation errors
        what, now = f"has a value of the wrong type: {error}", "Give each field the type its class declares."
    else:
        field = _refusing_field(codec.cls, data, error)
        in_field = f"field {field}: " if field else ""
        what = f"is refused by its own class when it is read: {in_field}{_describe_error(error)}"
        now = "Give it values that the class accepts also when it is read."
    return InvalidEvent(
        f"A {codec.type} {what}.", now, type=codec.type, field=_field_in(error), event=repr(event)[:500]
    )


def _refusing_field(cls: Any, data: bytes, error: Exception) -> str:
    """The field of a pydantic model whose own validator raises such an error; empty where none alone does."""
    for name in getattr(cls, "model_fields", ()):
        try:
            cls.__pydantic_validator__.validate_assignment(cls.model_construct(), name, msgspec.json.decode(data)[name])
        except Exception as found:  # noqa: BLE001 (the user's; it is compared)
            if type(found) is type(error):
                return name
    return ""


def _describe_error(error: Exception) -> str:
    """An error in words: of another kind than a validation error with the name of its class."""
    return str(error) if isinstance(error, (ValueError, TypeError)) else f"{type(error).__name__}: {error}"


def _field_in(error: Exception) -> str:
    """The field that a validation error is about, as `outer.inner`; empty where it is about the whole."""
    if hasattr(error, "errors") and hasattr(error, "error_count"):  # pydantic's
        return ".".join(str(part) for part in cast(Any, error).errors()[0]["loc"])
    parts = (
        re.search(r"at `\$\.?([^`]*)`", str(error)),
        re.search(r"(?:required|unknown) field `([^`]*)`", str(error)),
    )
    return ".".join(part[1] for part in parts if part and part[1])


def _apply_upcaster(step: Upcaster, event: Any, stored: StoredEvent) -> tuple[Any, ...]:
    try:
        return apply_upcasters(event)
    except Exception as error:
        if is_from_handler(error):
            raise
        raise UndecodableEvent(
            f"Event {stored.position} ({stored.type} v{stored.version}) could not be upcast by {step.name}: {error!r}.",
            "Mend the upcaster; it must take every event of its version.",
            position=stored.position,
            type=stored.type,
            version=stored.version,
        ) from error


def raw_event(stored: StoredEvent) -> RawEvent:
    """The event without its class."""
    return RawEvent(stored.type, stored.version, stored.codec, stored.data)


def unknown_type_error(stored: StoredEvent) -> UnknownEventType:
    """The error for an event whose class this process does not know, with near matches."""
    import difflib

    near = difflib.get_close_matches(stored.type, known_names(), 3)
    hint = f" (known and near: {', '.join(near)})" if near else ""
    return UnknownEventType(
        f"Event {stored.position} is a {stored.type!r}, and no class of that name is known here{hint}.",
        "Import the module that declares it, give the class that reads it an alias, or read it raw (raw=True).",
        position=stored.position,
        type=stored.type,
    )


def encode_metadata(metadata: Mapping[str, Any]) -> bytes | None:
    """Metadata as a JSON object with sorted keys, or None when there is none."""
    kept = {key: _plain(value) for key, value in metadata.items() if value is not None}
    if not kept:
        return None
    try:
        return encode_sorted(kept)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidEvent(f"Metadata cannot be stored: {error}.", "Use values that have a JSON form.") from error


def with_metadata(event: NewEvent, metadata: bytes | None) -> NewEvent:
    """An encoded event with the context's metadata, of which its own is what counts. Unchanged where there is none."""
    if metadata is None:
        return event
    merged = encode_metadata(_metadata_in(metadata) | _metadata_in(event.metadata))
    return msgspec.structs.replace(event, metadata=merged)


def _metadata_in(metadata: bytes | None) -> dict[str, Any]:
    return cast("dict[str, Any]", msgspec.json.decode(metadata)) if metadata else {}


def _plain(value: Any) -> Any:
    if isinstance(value, (UUID, datetime)):
        return str(value) if isinstance(value, UUID) else value.isoformat()
    return value
