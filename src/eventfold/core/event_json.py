"""One event as one line of JSON, the same from every engine, and such a line as an event to append.

    {"position":7,"id":"…","type":"…","tags":["…"],"data":{…},"metadata":{…},"time":"…Z"}

`occurred` and `version` are added only where the writer gave a time, or the version is not 1. Payloads and metadata
stand in the line as the bytes that were written, without line breaks. A payload that is not JSON becomes
`{"$bytes": base64, "$codec": …, "$key": …}`.
Knows: the envelope. Does not know: where a line comes from, stores, user classes.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any
from uuid import UUID

import msgspec

from eventfold.core.envelope import (
    NewEvent,
    StoredEvent,
    check_new,
    from_micros,
    new_id,
    to_micros,
)
from eventfold.core.tags import check_name
from eventfold.errors import InvalidEvent

KEYS = ("position", "id", "type", "tags", "data", "metadata", "time")
OPAQUE_PREFIX = b'{"$bytes"'
EMPTY_OBJECT = msgspec.Raw(b"{}")


class EventLine(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An event in JSON, with the keys in this order; the last two only if they differ from their defaults."""

    position: int
    id: str
    type: str
    tags: list[str]
    data: msgspec.Raw
    metadata: msgspec.Raw
    time: str
    occurred: str | None = None
    version: int = 1


class OpaquePayload(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A payload that is not JSON, within a line."""

    bytes: str = msgspec.field(name="$bytes")
    codec: str = msgspec.field(name="$codec")
    key: str | None = msgspec.field(name="$key", default=None)


AwareDatetime = Annotated[datetime, msgspec.Meta(tz=True)]


class InputLine(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A line of input: only `type` is required; `position` and `time` are ignored, because the store assigns them."""

    type: str
    data: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)  # empty: {}; a default of Raw has no JSON Schema
    tags: list[str] = []
    id: UUID | None = None
    metadata: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    occurred: AwareDatetime | None = None
    version: int = 1
    position: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    time: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


_input_decoder = msgspec.json.Decoder(InputLine)
_encode = msgspec.json.Encoder().encode


def encode_line(stored: StoredEvent) -> bytes:
    """An event as one line of JSON, without the line break."""
    return _encode(to_line(stored))


def to_line(stored: StoredEvent) -> EventLine:
    """An event as an EventLine."""
    return EventLine(
        position=stored.position,
        id=format_id(stored.id),
        type=stored.type,
        tags=list(stored.tag_set),
        data=payload_to_json(stored),
        metadata=_without_line_breaks(stored.metadata) if stored.metadata else EMPTY_OBJECT,
        time=format_time(stored.time),
        occurred=None if stored.occurred is None else format_time(stored.occurred),
        version=stored.version,
    )


def payload_to_json(stored: StoredEvent) -> msgspec.Raw:
    """The payload as it is written in a line."""
    data = stored.data
    if stored.codec == "json" and stored.key is None and is_json(data) and not data.startswith(OPAQUE_PREFIX):
        return _without_line_breaks(data)
    return msgspec.Raw(opaque_payload(data, stored.codec, stored.key))


def is_json(data: bytes) -> bool:
    """Whether these bytes are one JSON value."""
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def format_id(identity: bytes) -> str:
    """16 bytes as the text of a UUID."""
    h = identity.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


@lru_cache(maxsize=1024)  # the events of one append have the same time
def format_time(micros: int) -> str:
    """µs since 1970 as text of a fixed length, in UTC: 2026-11-23T10:15:00.000000Z."""
    return from_micros(micros).isoformat(timespec="microseconds")[:-6] + "Z"


def format_datetime(moment: datetime) -> str:
    """An aware datetime in the same form."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def parse_line(text: bytes | str) -> NewEvent:
    """Parse and check a line; returns an event to append. Raises InvalidEvent."""
    try:
        given = _input_decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEvent(
            f"This line is not an event: {_reason(error)}.",
            'Write one JSON object, as `eventfold read --json` does: {"type": "…", "tags": […], "data": {…}}.',
        ) from error
    return event_of_line(given)


def event_of_line(given: InputLine) -> NewEvent:
    """Check a parsed line; returns an event to append. Raises InvalidEvent."""
    return build_event(
        given.type,
        bytes(given.data) or b"{}",
        tags=given.tags,
        event_id=given.id,
        occurred=given.occurred,
        metadata=bytes(given.metadata) or b"{}",
        version=given.version,
    )


def build_event(
    event_type: str,
    data: bytes,
    *,
    tags: list[str],
    event_id: UUID | None = None,
    occurred: datetime | None = None,
    metadata: bytes = b"{}",
    version: int = 1,
) -> NewEvent:
    """An encoded event whose class need not be importable; its payload is not changed. Raises InvalidEvent."""
    check_name("event type", event_type)
    if not 1 <= version < 2**31:
        raise InvalidEvent(
            f"The event {event_type} has version {version}.", "Give a version of 1 or more.", type=event_type
        )
    payload, codec, key = _parse_payload(event_type, data)
    return check_new(
        NewEvent(
            new_id() if event_id is None else event_id.bytes,
            event_type,
            version,
            payload,
            tuple(sorted({check_name("tag", tag) for tag in tags})),
            None if occurred is None else to_micros(occurred),
            _check_metadata(event_type, metadata),
            codec,
            key,
        )
    )


def _parse_payload(event_type: str, data: bytes) -> tuple[bytes, str, str | None]:
    if data.startswith(OPAQUE_PREFIX):
        try:
            opaque = msgspec.json.decode(data, type=OpaquePayload)
            payload = base64.b64decode(opaque.bytes, validate=True)
        except ValueError as error:  # also for text that is not ASCII
            raise InvalidEvent(
                f"The payload of this {event_type} begins with $bytes and cannot be decoded: {_reason(error)}.",
                'Write {"$bytes": base64, "$codec": "…"}, or plain JSON.',
                type=event_type,
            ) from error
        check_name("codec", opaque.codec)
        if opaque.key is not None:
            check_name("key id", opaque.key)
        return payload, opaque.codec, opaque.key
    if not is_json(data):
        raise InvalidEvent(
            f"The data of this {event_type} is not JSON: {data[:60].decode(errors='replace')!r}.",
            """Write one JSON value, for example '{"amount": "80"}'.""",
            type=event_type,
        )
    return data, "json", None


def opaque_payload(data: bytes, codec: str, key: str | None) -> bytes:
    """A payload that is not JSON, as it is written in a line."""
    return _encode(OpaquePayload(base64.b64encode(data).decode(), codec, key))


def _check_metadata(event_type: str, metadata: bytes) -> bytes | None:
    if metadata == b"{}":
        return None
    try:
        values: dict[str, Any] = msgspec.json.decode(metadata, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEvent(
            f"The metadata of this {event_type} is not a JSON object: {_reason(error)}.",
            'Write an object, for example {"actor": "teller-7"}.',
            type=event_type,
        ) from error
    return metadata if values else None


def _without_line_breaks(text: bytes) -> msgspec.Raw:
    """JSON without line breaks; within strings they are escaped already."""
    return msgspec.Raw(msgspec.json.format(text, indent=-1) if b"\n" in text or b"\r" in text else text)


def _reason(error: Exception) -> str:
    text = str(error).rstrip(".")
    return text[:1].lower() + text[1:]
