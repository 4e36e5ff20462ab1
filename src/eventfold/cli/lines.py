"""Room: one event as one line of JSON, the same from every engine, and back.

    {"position":7,"id":"…","type":"…","tags":["…"],"data":{…},"metadata":{…},"time":"…Z"}

and besides, only where they say something, `occurred` (the writer gave one) and `version` (it is not 1).
Payloads and metadata stand in the line as the bytes that were written; only line breaks are taken out. A payload
that is not JSON stands there as `{"$bytes": base64, "$codec": …, "$key": …}`.
Knows: the envelope. Does not know: terminals, stores, user classes.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any
from uuid import UUID

import msgspec

from eventfold.core.envelope import NewEvent, Stored, check_name, check_new, from_micros, new_id, to_micros
from eventfold.errors import InvalidEvent

KEYS = ("position", "id", "type", "tags", "data", "metadata", "time")
MARK = b'{"$bytes"'
NOTHING = msgspec.Raw(b"{}")


class Line(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An event in JSON: the keys in this order, the last two only where they say something."""

    position: int
    id: str
    type: str
    tags: list[str]
    data: msgspec.Raw
    metadata: msgspec.Raw
    time: str
    occurred: str | None = None
    version: int = 1


class Opaque(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A payload that is not JSON, inside a line."""

    bytes: str = msgspec.field(name="$bytes")
    codec: str = msgspec.field(name="$codec")
    key: str | None = msgspec.field(name="$key", default=None)


Aware = Annotated[datetime, msgspec.Meta(tz=True)]


class Given(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A line on its way in: only `type` is needed; `position` and `time` are given anew, so they are ignored."""

    type: str
    data: msgspec.Raw = NOTHING
    tags: list[str] = []
    id: UUID | None = None
    metadata: msgspec.Raw = NOTHING
    occurred: Aware | None = None
    version: int = 1
    position: msgspec.Raw = NOTHING
    time: msgspec.Raw = NOTHING


_given = msgspec.json.Decoder(Given)
_encode = msgspec.json.Encoder().encode


def line_of(stored: Stored) -> bytes:
    """An event as one line of JSON, without the line break."""
    return _encode(line(stored))


def line(stored: Stored) -> Line:
    """An event in the shape of a line."""
    return Line(
        position=stored.position,
        id=id_text(stored.id),
        type=stored.type,
        tags=list(stored.tag_set),
        data=data_of(stored),
        metadata=_flat(stored.metadata) if stored.metadata else NOTHING,
        time=time_text(stored.time),
        occurred=None if stored.occurred is None else time_text(stored.occurred),
        version=stored.version,
    )


def data_of(stored: Stored) -> msgspec.Raw:
    """The payload as it stands in a line."""
    data = stored.data
    if stored.codec == "json" and stored.key is None and is_json(data) and not data.startswith(MARK):
        return _flat(data)
    return msgspec.Raw(_encode(Opaque(base64.b64encode(data).decode(), stored.codec, stored.key)))


def is_json(data: bytes) -> bool:
    """Whether these bytes are one JSON value."""
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def id_text(identity: bytes) -> str:
    """16 bytes as people write a UUID."""
    h = identity.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


@lru_cache(maxsize=1024)  # the events of one append share their time
def time_text(micros: int) -> str:
    """µs since 1970 as text of one length, in UTC: 2026-11-23T10:15:00.000000Z."""
    return from_micros(micros).isoformat(timespec="microseconds")[:-6] + "Z"


def moment_text(moment: datetime) -> str:
    """An aware datetime in the same form."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def event_of(text: bytes | str) -> NewEvent:
    """The event that a line describes, checked, ready to be appended. Raises InvalidEvent."""
    try:
        given = _given.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEvent(
            f"This is no event: {_reason(error)}.",
            'Write one JSON object, as `eventfold read --json` does: {"type": "…", "tags": […], "data": {…}}.',
        ) from error
    return new_event(
        given.type,
        bytes(given.data),
        tags=given.tags,
        identity=given.id,
        occurred=given.occurred,
        metadata=bytes(given.metadata),
        version=given.version,
    )


def new_event(
    kind: str,
    data: bytes,
    *,
    tags: list[str],
    identity: UUID | None = None,
    occurred: datetime | None = None,
    metadata: bytes = b"{}",
    version: int = 1,
) -> NewEvent:
    """An encoded event whose class need not be known here; its payload is kept as it is. Raises InvalidEvent."""
    check_name("event type", kind)
    if not 1 <= version < 2**31:
        raise InvalidEvent(f"The event {kind} has version {version}.", "Versions are counted from 1.", type=kind)
    payload, codec, key = _payload(kind, data)
    return check_new(
        NewEvent(
            new_id() if identity is None else identity.bytes,
            kind,
            version,
            payload,
            tuple(sorted({check_name("tag", tag) for tag in tags})),
            None if occurred is None else to_micros(occurred),
            _metadata(kind, metadata),
            codec,
            key,
        )
    )


def _payload(kind: str, data: bytes) -> tuple[bytes, str, str | None]:
    if data.startswith(MARK):
        try:
            opaque = msgspec.json.decode(data, type=Opaque)
            return base64.b64decode(opaque.bytes, validate=True), opaque.codec, opaque.key
        except (msgspec.DecodeError, binascii.Error) as error:
            raise InvalidEvent(
                f"The payload of this {kind} begins with $bytes and is not one: {_reason(error)}.",
                'Write {"$bytes": base64, "$codec": "…"}, or plain JSON.',
                type=kind,
            ) from error
    if not is_json(data):
        raise InvalidEvent(
            f"The data of this {kind} is no JSON: {data[:60].decode(errors='replace')!r}.",
            """Write one JSON value, for example '{"amount": "80"}'.""",
            type=kind,
        )
    return data, "json", None


def _metadata(kind: str, metadata: bytes) -> bytes | None:
    try:
        values: dict[str, Any] = msgspec.json.decode(metadata, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEvent(
            f"The metadata of this {kind} is no JSON object: {_reason(error)}.",
            'Write an object, for example {"actor": "teller-7"}.',
            type=kind,
        ) from error
    return metadata if values else None


def _flat(text: bytes) -> msgspec.Raw:
    """JSON without line breaks; inside strings they are escaped already."""
    return msgspec.Raw(msgspec.json.format(text, indent=-1) if b"\n" in text or b"\r" in text else text)


def _reason(error: Exception) -> str:
    text = str(error).rstrip(".")
    return text[:1].lower() + text[1:]
