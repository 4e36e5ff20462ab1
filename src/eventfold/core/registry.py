"""Maps stored names to event classes, which write and read events. The only module with both bytes and classes.

Knows: codecs, the declared classes. Does not know: engines, the order of steps; positions are only quoted in errors.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

from eventfold.core.batch_encoding import encode_alike
from eventfold.core.codec import (
    Codec,
    codec_of,
    describe_error,
    encode_metadata,
    encode_payload,
    field_in,
    metadata_in,
    tags_of,
)
from eventfold.core.envelope import NewEvent, StoredEvent, check_new, new_id, new_ids, to_micros, unwritten_event
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
)
from eventfold.core.event_rows import Decode, DecodedRows, EventRows
from eventfold.core.signals import is_from_handler
from eventfold.core.upcast import UPCASTER, Upcaster, apply_upcasters, current_classes, upcaster_from, version_chain
from eventfold.errors import EventfoldError, InvalidEvent, UndecodableEvent, UnknownEventType

_NOT_FOUND: Any = object()
MIN_ALIKE = 20  # events of one class that are encoded together: after a wait for the disk fewer cost more than apart
_OWN_MODULES = {  # by the beginning of a stored name: a program that reads all events need not import them itself
    "$alert-message": "eventfold.alerts.delivery.message",
    "$alert-target": "eventfold.alerts.delivery.message",
    "$alert-": "eventfold.alerts.facts",
    "$timer-": "eventfold.processes.timer_events",
}


class Registry:
    """Encodes and decodes events for one store. Classes are found by the stored names that they declare."""

    def __init__(self) -> None:
        self._codecs: dict[type, Codec] = {}
        self._readers: dict[tuple[str, int], Codec] = {}
        self._among: dict[tuple[tuple[type, ...], str, int], Codec] = {}  # found by `codec_among`
        self._other: dict[tuple[tuple[type, ...], type], Codec | None] = {}  # found by `other_codec`
        self._unchanged: dict[type, bool] = {}  # found by `is_read_unchanged`
        self._generation = -1
        self._used: dict[tuple[str, int], type] = {}  # the class that was last used for each stored name and version

    def codec(self, cls: type) -> Codec:
        """Return the codec of an event class. Raises InvalidEvent if another class uses its stored name here."""
        codec = self._codecs.get(cls)
        if codec is None or codec.upcaster is not upcaster_from(cls):
            self._claim_name(cls, InvalidEvent)
            codec = self._codecs[cls] = codec_of(cls)
        return codec

    def _claim_name(self, cls: type, error: type[EventfoldError]) -> None:
        """Record that a class uses its stored name. Raises `error` if an unrelated class has that name by default."""
        own = declaration_of(cls)
        key = (own.type, own.version)
        other = self._used.get(key)
        if other is cls:
            return
        if other is not None and is_name_conflict(cls, other):
            raise error(
                f"Two classes have the event type {own.type!r}: {_source_of(other)} and {_source_of(cls)}.",
                'Give one of them a name of its own, class X(ef.Event, type="billing.x"); if both mean the same '
                "events, use one class, or write the name in both.",
                type=own.type,
                version=own.version,
            )
        self._used[key] = cls
        self._readers.pop(key, None)
        self._among.clear()
        self._other.clear()

    def encode(self, event: Any, metadata: bytes | None = None) -> NewEvent:
        """Return an event or Draft as it will be stored; `metadata` is that of the context, as a JSON object.

        Raises InvalidEvent on a value that cannot be stored or would not be read back equal.
        """
        draft = event if type(event) is Draft else None
        if draft is not None:
            event = draft.event
        cls: type = type(event)  # pyright: ignore[reportUnknownVariableType]
        codec = self._codecs.get(cls)
        if codec is None or codec.upcaster is not cls.__dict__.get(UPCASTER):  # as in `codec`
            codec = self.codec(cls)
        data = encode_payload(codec, event)
        tags = tags_of(codec, event, draft.tags if draft is not None else ())
        if draft is None:
            return check_new(NewEvent(new_id(), codec.type, codec.version, data, tags, None, metadata))
        if draft.metadata:
            metadata = encode_metadata(metadata_in(metadata) | draft.metadata)
        occurred = None if draft.occurred is None else to_micros(draft.occurred)
        if draft.id is not None and not isinstance(draft.id, UUID):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidEvent(f"The id {draft.id!r} is not a UUID.", "Give a uuid.UUID, or None.", id=repr(draft.id))
        identity = new_id() if draft.id is None else draft.id.bytes
        return check_new(NewEvent(identity, codec.type, codec.version, data, tags, occurred, metadata))

    def encode_all(self, events: Sequence[Any], metadata: bytes | None = None) -> list[NewEvent]:
        """Return events or Drafts as they will be stored, each as by `encode`; many of one class in a third less time.

        Raises InvalidEvent; of several events that cannot be stored it names one.
        """
        if len(events) < MIN_ALIKE:
            return [self.encode(event, metadata) for event in events]
        ids, classes = new_ids(len(events)), list(map(type, events))
        if len(set(classes)) == 1:
            alike = self._encode_alike(classes[0], list(events), ids, metadata)
            return alike or [self.encode(event, metadata) for event in events]
        found: dict[int, NewEvent] = {}
        for cls in set(classes):
            places = [place for place, each in enumerate(classes) if each is cls]
            alike = self._encode_alike(cls, [events[each] for each in places], [ids[each] for each in places], metadata)
            found.update(zip(places, alike, strict=False))
        return [found.get(place) or self.encode(event, metadata) for place, event in enumerate(events)]

    def _encode_alike(self, cls: type, events: list[Any], ids: list[bytes], metadata: bytes | None) -> list[NewEvent]:
        """Return events of one class encoded together; none if they must be encoded one by one."""
        if cls is Draft or len(events) < MIN_ALIKE:
            return []
        return encode_alike(self.codec(cls), events, ids, metadata) or []

    def codec_for(self, stored: StoredEvent) -> Codec:
        """Return the codec that reads a stored event, found by its name and version among all loaded classes.

        Raises UnknownEventType if no class, or several unrelated ones, have that name; UndecodableEvent if a version
        between is missing, or if the event has a later version than every class.
        """
        self._forget_outdated()
        codec = self._readers.get((stored.type, stored.version))
        if codec is None:
            codec = self._codec_among(self._candidates(stored), stored)
            self._readers[stored.type, stored.version] = codec
        return codec

    def _forget_outdated(self) -> None:
        """Forget which class reads what, if a class or an upcaster was declared since."""
        if self._generation != declarations_version():
            self._generation = declarations_version()
            self._readers.clear()
            self._among.clear()
            self._other.clear()
            self._unchanged.clear()

    def _candidates(self, stored: StoredEvent) -> list[type]:
        """Return the classes of a stored name; if several have one version, only the one that this store has used."""
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
                used = twin  # defined again since
            # else its module was run and imported, so that each class exists twice: the one used here is preferred
        return [used, *(cls for cls in found if cls not in same)]

    def codec_among(self, classes: Iterable[type], stored: StoredEvent) -> Codec:
        """Return the codec for a stored event, with preference for these classes and the classes related to them."""
        self._forget_outdated()
        key = (tuple(classes), stored.type, stored.version)
        codec = self._among.get(key)
        if codec is None:
            codec = self._find_among(key[0], stored)
            self._among[key] = codec
        return codec

    def is_read_unchanged(self, cls: type) -> bool:
        """Whether every fold reads events of a class as they were written: it alone has its name, and no upcaster."""
        self._forget_outdated()
        found = self._unchanged.get(cls)
        if found is None:
            codec = self.codec(cls)
            found = self._unchanged[cls] = codec.upcaster is None and list(classes_named(codec.type)) == [cls]
        return found

    def other_codec(self, classes: tuple[type, ...], cls: type) -> Codec | None:
        """Return the codec with which a fold over these classes reads events of `cls`; None if it reads them unchanged.

        They are changed if `cls` has an upcaster, or if one of the classes has its stored name. Raises what
        `codec_among` raises. Found once for each class.
        """
        self._forget_outdated()
        found = self._other.get((classes, cls), _NOT_FOUND)
        if found is _NOT_FOUND:
            own = self.codec(cls)
            codec = self.codec_among(classes, unwritten_event(own.type, own.version))
            found = self._other[classes, cls] = None if codec.cls is cls and codec.upcaster is None else codec
        return found

    def _find_among(self, classes: tuple[type, ...], stored: StoredEvent) -> Codec:
        older: list[type] = []  # classes of the name, all of an earlier version than the event
        for cls in classes:
            if cls is not Event:
                own = [each for each in family_of(cls) if stored.type in declaration_of(each).names]
                if any(declaration_of(each).version >= stored.version for each in own):
                    return self._codec_among(own, stored)
                older += own
        return self._codec_among(older, stored) if older else self.codec_for(stored)

    def _codec_among(self, classes: list[type], stored: StoredEvent) -> Codec:
        classes = classes or own_classes(stored.type)
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
                    f"Event {stored.position} ({stored.type}) has version {stored.version}, which no class has.",
                    "Declare the class of that version, and an upcaster from it to the next version.",
                    position=stored.position,
                    type=stored.type,
                    version=stored.version,
                )
            if stored.version > newest:  # its fields may fit, and mean something else
                raise _newer_version_error(stored, versions[newest][0])
            found = versions[newest]  # which ignores unknown fields, and gives missing ones their defaults
        if len(found) > 1:
            places = " and ".join(sorted(map(_source_of, found)))
            raise UnknownEventType(
                f"Several classes have the event type {stored.type!r}: {places}.",
                'Give one of them a name of its own: class X(ef.Event, type="…").',
                type=stored.type,
            )
        ends = current_classes(found[0])
        if any(declaration_of(end).type == stored.type and declaration_of(end).version < newest for end in ends):
            raise UndecodableEvent(
                f"The upcasters of {stored.type} end at {' → '.join(version_chain(found[0]))}, "
                f"and there is a version {newest}.",
                "Write the upcaster to that version.",
                position=stored.position,
                type=stored.type,
            )
        self._claim_name(found[0], UnknownEventType)
        return self.codec(found[0])

    def decode(self, stored: StoredEvent) -> tuple[Any, ...]:
        """Return the event as an object of its newest class; several if an upcaster splits it.

        Raises UnknownEventType or UndecodableEvent, which name the position.
        """
        return self.decode_as(self.codec_for(stored), stored)

    def decode_as(self, codec: Codec, stored: StoredEvent) -> tuple[Any, ...]:
        """Return what `decode` returns, with a codec that was found before."""
        if stored.codec != "json":
            raise UndecodableEvent(
                f"Event {stored.position} ({stored.type}) is stored as {stored.codec!r}, which cannot be read here.",
                "Read it without its class (raw=True), or with a program that knows that format.",
                position=stored.position,
                type=stored.type,
                codec=stored.codec,
            )
        try:
            event = codec.decode(stored.data)
        except MemoryError:
            raise
        except Exception as error:  # a check of the class is user code, and may raise anything
            if is_from_handler(error):
                raise
            raise UndecodableEvent(
                f"Event {stored.position} no longer fits {codec.cls.__qualname__} ({stored.type}): "
                f"{describe_error(error)}.",
                "Change the class so that it reads old events (a default for a new field), or read it raw (raw=True).",
                position=stored.position,
                type=stored.type,
                field=field_in(error),
            ) from error
        return (event,) if codec.upcaster is None else _apply_upcaster(codec.upcaster, event, stored)

    def decode_rows(self, rows: EventRows, codec_of: Callable[[StoredEvent], Codec]) -> list[Any] | None:
        """Decode a page of rows. None if an event must be decoded for itself: to report its error, to upcast it.

        `codec_of` is asked once for each type and version.
        """
        decoded = self.decode_in_turn(rows, codec_of)
        if decoded is None:
            return None
        try:
            return list(decoded.payloads)
        except MemoryError:
            raise
        except Exception as error:
            if is_from_handler(error):
                raise
            return None

    def decode_in_turn(self, rows: EventRows, codec_of: Callable[[StoredEvent], Codec]) -> DecodedRows | None:
        """Return an iterator that decodes a page of rows, each when it is asked for. None as by `decode_rows`.

        Give an error that is raised while it is used to `report_undecodable`.
        """

        def decoder_of(sample: StoredEvent) -> Decode:
            codec = codec_of(sample)
            if codec.upcaster is not None or sample.codec != "json":
                raise _NotPlainError
            return codec.decode

        try:
            return rows.decode(decoder_of)
        except MemoryError:
            raise
        except Exception as error:
            if is_from_handler(error):
                raise
            return None

    def report_undecodable(
        self, error: Exception, decoded: DecodedRows, codec_of: Callable[[StoredEvent], Codec]
    ) -> None:
        """Raise the UndecodableEvent that names the event, if an error was raised because an event was decoded."""
        if not is_from_handler(error) and (latest := decoded.latest) is not None:
            self.decode_as(codec_of(latest), latest)

    def decode_all(self, codec: Codec, events: Sequence[StoredEvent]) -> list[Any] | None:
        """Decode events of one codec together, with a third of the work; None if they must be decoded one by one."""
        if codec.upcaster is not None or codec.decode_lines is None or {event.codec for event in events} != {"json"}:
            return None
        try:
            found = codec.decode_lines(b"\n".join([event.data for event in events]))
        except MemoryError:
            raise
        except Exception as error:
            if is_from_handler(error):
                raise
            return None  # decode_as will report which event is at fault
        return found if len(found) == len(events) else None


class _NotPlainError(Exception):
    """Ends the decoding of a page whose events are not each one object of the stored class."""


def _source_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _newer_version_error(stored: StoredEvent, newest: type) -> UndecodableEvent:
    """Return the error for an event of a later version than `newest`, the latest one that is read here."""
    known = declaration_of(newest)
    loaded = [cls for cls in classes_named(stored.type) if declaration_of(cls).version == stored.version]
    if loaded:
        remedy = f"Declare an upcaster from it to {_source_of(loaded[0])}, and take that class here."
    else:
        is_renamed = stored.type != known.type
        begin = f"Give a renamed class its version (version={stored.version}), or deploy" if is_renamed else "Deploy"
        remedy = f"{begin} the code that declares version {stored.version} here first, or read it raw (raw=True)."
    return UndecodableEvent(
        f"Event {stored.position} ({stored.type}) has version {stored.version}, and the newest version known here is "
        f"{known.version} ({_source_of(newest)}).",
        remedy,
        position=stored.position,
        type=stored.type,
        version=stored.version,
        newest=known.version,
    )


def _apply_upcaster(step: Upcaster, event: Any, stored: StoredEvent) -> tuple[Any, ...]:
    try:
        return apply_upcasters(event)
    except Exception as error:
        if is_from_handler(error):
            raise
        raise UndecodableEvent(
            f"Event {stored.position} ({stored.type} v{stored.version}) could not be upcast by {step.name}: {error!r}.",
            "Fix the upcaster; it must accept every event of its version.",
            position=stored.position,
            type=stored.type,
            version=stored.version,
        ) from error


def raw_event(stored: StoredEvent) -> RawEvent:
    """Return the event without its class."""
    return RawEvent(stored.type, stored.version, stored.codec, stored.data)


def own_classes(name: str) -> list[type]:
    """Return the classes of an event of eventfold itself, whose module is imported only now; none for other names."""
    module = next((module for prefix, module in _OWN_MODULES.items() if name.startswith(prefix)), None)
    if module is None:
        return []
    importlib.import_module(module)
    return list(classes_named(name))


def unknown_type_error(stored: StoredEvent) -> UnknownEventType:
    """Return the error for an event whose class is not loaded in this process, with similar names."""
    import difflib

    near = difflib.get_close_matches(stored.type, known_names(), 3)
    hint = f" (similar names: {', '.join(near)})" if near else ""
    return UnknownEventType(
        f"Event {stored.position} is a {stored.type!r}, and no class for it is loaded in this process{hint}.",
        "Import the module that declares it, give the class that reads it an alias, or read it raw (raw=True).",
        position=stored.position,
        type=stored.type,
    )
