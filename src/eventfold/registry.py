"""Room: type names <-> classes, objects <-> bytes. The only room that sees bytes AND classes.

Knows: codecs, the known classes. Does not know: positions as anything but a number to name in an error,
engines, order of steps. What it encodes it has decoded again once: what is appended can be read (P10).
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from operator import attrgetter
from typing import Any, cast
from uuid import UUID

import msgspec

from eventfold.errors import InvalidEvent, UndecodableEvent, UnknownEventType
from eventfold.event import (
    Draft,
    Event,
    RawEvent,
    classes_named,
    declared,
    generation,
    known_names,
    names_of,
    tag_fields,
    tag_values,
)
from eventfold.record import NewEvent, Stored, check_name, check_new, new_id, to_micros

_json = msgspec.json.Encoder()


class Codec(msgspec.Struct):
    """One class, ready: its stored name and version, its encoder and decoder, its tag getters."""

    cls: type
    type: str
    version: int
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    tags: tuple[tuple[str, Callable[[Any], Any]], ...]


def codec_of(cls: type) -> Codec:
    """Compile a class. Raises InvalidEvent if it is no event class or its annotations cannot be resolved."""
    name = declared(cls)
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
        if hasattr(cls, "model_validate_json"):  # pydantic, recognised by what it can do, not imported
            model = cast(Any, cls)

            def encode(event: Any, /) -> bytes:
                return event.model_dump_json().encode()

            decode: Callable[[bytes], Any] = model.model_validate_json
        else:
            encode, decode = _json.encode, msgspec.json.Decoder(cls).decode
    except (NameError, TypeError) as error:
        raise InvalidEvent(
            f"The fields of {cls.__qualname__} cannot be understood: {error}.",
            "Annotate them with types that msgspec can read, defined where the class's module can see them.",
            type=name.type,
        ) from error
    fields = tuple((f"{key}:", attrgetter(field)) for field, key in tag_fields(hints).items())
    return Codec(cls, name.type, name.version, encode, decode, fields)


class Registry:
    """Encodes and decodes events for one store. Classes are found by their stored names as they are declared."""

    def __init__(self) -> None:
        self._codecs: dict[type, Codec] = {}
        self._readers: dict[str, Codec] = {}
        self._generation = -1

    def codec(self, cls: type) -> Codec:
        """The compiled codec of an event class."""
        codec = self._codecs.get(cls)
        if codec is None:
            codec = self._codecs[cls] = codec_of(cls)
        return codec

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
            given = cast("dict[str, Any]", msgspec.json.decode(metadata)) if metadata else {}
            metadata = encode_metadata(given | draft.metadata)
        occurred = None if draft.occurred is None else to_micros(draft.occurred)
        identity = new_id() if draft.id is None else draft.id.bytes
        return check_new(NewEvent(identity, codec.type, codec.version, data, tags, occurred, metadata))

    def _payload(self, codec: Codec, event: Any) -> bytes:
        try:
            data = codec.encode(event)
        except (TypeError, ValueError, OverflowError, UnicodeEncodeError) as error:
            raise InvalidEvent(
                f"A {codec.type} cannot be stored: {error}.", "Use values that have a JSON form.", type=codec.type
            ) from error
        try:
            back = codec.decode(data)
        except ValueError as error:  # msgspec's and pydantic's validation errors
            raise InvalidEvent(
                f"A {codec.type} has a value of the wrong type: {error}.",
                "Give each field the type its class declares.",
                type=codec.type,
                event=repr(event)[:500],
            ) from error
        if back != event:
            raise InvalidEvent(
                f"A {codec.type} would come back from the log changed: {_changed(event, back)}.",
                "Give each field exactly the type its class declares (no NaN, no list for a tuple).",
                type=codec.type,
            )
        return data

    def _tags(self, codec: Codec, event: Any, more: tuple[str, ...]) -> tuple[str, ...]:
        found: list[str] = list(more)
        for prefix, get in codec.tags:
            value = get(event)
            if type(value) is str:
                found.append(prefix + value)
            else:
                found.extend(prefix + text for text in tag_values(value))
        for tag in found:
            # A short printable text is fine as it is; everything else is looked at in full.
            if len(tag) > 60 or not tag.isprintable() or tag[:1] in ("", "$"):
                check_name("tag", tag)
        if len(found) < 2:
            return tuple(found)
        return tuple(sorted(set(found)))

    def reader(self, name: str) -> Codec | None:
        """The codec that reads events of a stored name, or None if no class is known.

        Raises UnknownEventType if several unrelated classes claim the name.
        """
        if self._generation != generation():
            self._generation = generation()
            self._readers.clear()
        codec = self._readers.get(name)
        if codec is None:
            classes = classes_named(name)
            if not classes:
                return None
            if len(classes) > 1:
                places = " and ".join(sorted(f"{c.__module__}.{c.__qualname__}" for c in classes))
                raise UnknownEventType(
                    f"The event type {name!r} is claimed by {places}.",
                    'Give one of them a name of its own: class X(ef.Event, type="…").',
                    type=name,
                )
            codec = self._readers[name] = self.codec(classes[0])
        return codec

    def reader_among(self, classes: Iterable[type], stored: Stored) -> Codec:
        """The codec for a stored event, preferring these classes (and theirs derived) over others of its name."""
        for cls in classes:
            if cls is not Event and stored.type in names_of(cls):
                own = next((c for c in (cls, *_derived(cls)) if stored.type in declared(c).names), cls)
                return self.codec(own)
        codec = self.reader(stored.type)
        if codec is None:
            raise unknown_type(stored)
        return codec

    def decode(self, stored: Stored) -> Any:
        """The typed event. Raises UnknownEventType or UndecodableEvent, which name the position."""
        codec = self._readers.get(stored.type) if self._generation == generation() else None
        if codec is None:
            codec = self.reader(stored.type)
            if codec is None:
                raise unknown_type(stored)
        return self.decode_as(codec, stored)

    def decode_as(self, codec: Codec, stored: Stored) -> Any:
        """The event as this codec's class."""
        if stored.codec != "json":
            raise UndecodableEvent(
                f"Event {stored.position} ({stored.type}) is stored as {stored.codec!r}, which cannot be read here.",
                "Read it raw (raw=True), or install what reads that format.",
                position=stored.position,
                type=stored.type,
                codec=stored.codec,
            )
        try:
            return codec.decode(stored.data)
        except ValueError as error:
            raise UndecodableEvent(
                f"Event {stored.position} no longer fits {codec.cls.__qualname__} ({stored.type}): {error}.",
                "Change the class so that it reads old events (a default for a new field), or read it raw (raw=True).",
                position=stored.position,
                type=stored.type,
                field=str(error).rpartition("`$")[2].rstrip("`").lstrip("."),
            ) from error


def _derived(cls: type) -> Iterator[type]:
    for each in cls.__subclasses__():
        yield each
        yield from _derived(each)


def raw(stored: Stored) -> RawEvent:
    """The event without its class."""
    return RawEvent(stored.type, stored.version, stored.codec, stored.data)


def unknown_type(stored: Stored) -> UnknownEventType:
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
        return msgspec.json.encode(kept, order="sorted")
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidEvent(f"Metadata cannot be stored: {error}.", "Use values that have a JSON form.") from error


def _plain(value: Any) -> Any:
    if isinstance(value, (UUID, datetime)):
        return str(value) if isinstance(value, UUID) else value.isoformat()
    return value


def _changed(event: Any, back: Any) -> str:
    for name in getattr(event, "__struct_fields__", None) or getattr(event, "__dataclass_fields__", {}):
        before, after = getattr(event, name), getattr(back, name)
        if before != after:
            return f"field {name} is {before!r} and would be {after!r}"
    return f"{event!r} would be {back!r}"
