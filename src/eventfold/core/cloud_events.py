"""Events as CloudEvents 1.0, and CloudEvents as events to append.

    id               the event's id; in: UUIDv5 of source and id, which only together are unique
    source           of the store; in: kept in the metadata with the id (`ce-source`, `ce-id`), and both written again;
                     a UUID from the source of a store (`/stores/NAME`) is that event's own id and stays
    subject          the first tag; in: the tag `subject:…`, unless it is one of `tags`
    time             `occurred`, or the time of recording
    datacontenttype  application/json, or that of the codec; other data is in `data_base64`
    dataschema       …/schemas/TYPE/VERSION, from which the version is read
    position, recordedtime, tags (JSON), actor, correlationid, causationid, traceparent, tracestate: extensions

Other extensions become metadata of their names, and metadata of such names becomes extensions.
Knows: the envelope, the attributes of CloudEvents. Does not know: HTTP, stores.
"""

from __future__ import annotations

import base64
import re
from datetime import datetime
from typing import Any, cast
from urllib.parse import quote, unquote
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec

from eventfold.core.envelope import NewEvent, StoredEvent
from eventfold.core.event_json import AwareDatetime, build_event, format_id, format_time, is_json, opaque_payload
from eventfold.errors import InvalidEvent

JSON_TYPE, BYTES_TYPE = "application/json", "application/octet-stream"
NAME = re.compile(r"[a-z0-9]{1,100}", re.ASCII)
SCHEMA = re.compile(r"/schemas/([^/]+)/([1-9]\d{0,8})\Z", re.ASCII)
# Extensions and the metadata that they stand for; others have the same name in both.
METADATA = {"correlationid": "correlation_id", "causationid": "causation_id"}
EXTENSIONS = {name: extension for extension, name in METADATA.items()}
OWN = frozenset("position recordedtime tags datakey".split())  # extensions that are no metadata
CORE = frozenset("specversion id source type subject time datacontenttype dataschema data data_base64".split())
SOURCE, ID, SCHEMA_KEY = "ce-source", "ce-id", "ce-dataschema"  # metadata that keeps what a sender said
MOST_INTEGER = 2**31  # an Integer of CloudEvents has 32 bits


def attributes_of(stored: StoredEvent, source: str, schemas: str) -> dict[str, Any]:
    """Return an event's attributes, without its data. `source`: the store's; `schemas`: the address of its schemas."""
    metadata = cast("dict[str, Any]", msgspec.json.decode(stored.metadata)) if stored.metadata else {}
    tags = stored.tag_set
    found: dict[str, Any] = {
        "specversion": "1.0",
        "id": metadata.pop(ID, None) or format_id(stored.id),
        "source": metadata.pop(SOURCE, None) or source,
        "type": stored.type,
        "time": format_time(stored.time if stored.occurred is None else stored.occurred),
        "datacontenttype": content_type_of(stored.codec),
        "dataschema": metadata.pop(SCHEMA_KEY, None) or f"{schemas}/{quote(stored.type, safe='')}/{stored.version}",
        "position": stored.position if stored.position < MOST_INTEGER else str(stored.position),
        "recordedtime": format_time(stored.time),
    }
    if tags:
        found |= {"subject": tags[0], "tags": msgspec.json.encode(tags).decode()}
    if stored.key is not None:
        found["datakey"] = stored.key
    for name, value in metadata.items():
        extension = EXTENSIONS.get(name, name)
        if NAME.fullmatch(extension) and extension not in found and extension not in CORE and is_scalar(value):
            found[extension] = value
    return found


def content_type_of(codec: str) -> str:
    """Return the media type of payloads of a codec."""
    return JSON_TYPE if codec == "json" else codec if "/" in codec else f"application/x-{codec}"


def codec_of_content(media_type: str) -> str:
    """Return the codec of a media type."""
    plain = media_type.partition(";")[0].strip().lower()
    if plain in ("", JSON_TYPE) or plain.endswith("+json"):
        return "json"
    return plain.removeprefix("application/x-") if plain.startswith("application/x-") else plain


def is_scalar(value: Any) -> bool:
    """Whether a value can be an attribute: text, a truth value, or an integer of 32 bits."""
    return isinstance(value, str | bool) or (isinstance(value, int) and -MOST_INTEGER <= value < MOST_INTEGER)


def to_cloud_event(stored: StoredEvent, source: str, schemas: str) -> dict[str, Any]:
    """Return an event as a CloudEvent in JSON; its data as it was written, in base64 if it is not JSON."""
    found = attributes_of(stored, source, schemas)
    if stored.codec == "json" and stored.key is None and is_json(stored.data):
        found["data"] = msgspec.Raw(stored.data)
    else:
        found["data_base64"] = base64.b64encode(stored.data).decode()
    return found


def parse_structured(value: dict[str, msgspec.Raw]) -> NewEvent:
    """Return the event of a CloudEvent in JSON, decoded to its members. Raises InvalidEvent."""
    attributes = dict[str, Any]()
    for name, raw in value.items():
        if name not in ("data", "data_base64"):
            attributes[name] = _decoded(raw, name)
    attributes = {name: each for name, each in attributes.items() if each is not None}
    codec = codec_of_content(_text(attributes, "datacontenttype", ""))
    data, encoded = value.get("data"), _unless_null(value.get("data_base64"))
    if encoded is not None:
        data = _unless_null(data)  # some senders write both members, one of them as null
    if data is not None and encoded is not None:
        raise _invalid("has both data and data_base64")
    if encoded is not None:
        try:
            payload = base64.b64decode(msgspec.json.decode(encoded, type=str), validate=True)
        except ValueError as error:  # also for text that is not ASCII
            raise _invalid("has data_base64 that is not base64") from error
    elif data is None:
        payload = b"{}" if codec == "json" else b""
    elif codec == "json":
        payload = bytes(data)
    else:  # a text, if it is one: otherwise JSON in spite of its type
        text = _decoded(data, "data")
        payload = text.encode() if isinstance(text, str) else bytes(data)
    return parse_attributes(attributes, payload)


def _decoded(raw: msgspec.Raw, name: str) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:  # it is JSON, but 1e400 is no number here
        raise _invalid(f"has an attribute {name[:40]!r} that cannot be read: {error}") from error


def _unless_null(value: msgspec.Raw | None) -> msgspec.Raw | None:
    return None if value is None or bytes(value).strip() == b"null" else value


def parse_attributes(attributes: dict[str, Any], payload: bytes) -> NewEvent:
    """Return the event of a CloudEvent's attributes and its data. Raises InvalidEvent."""
    if attributes.get("specversion") != "1.0":
        raise _invalid(f"has specversion {attributes.get('specversion')!r}", 'Send "specversion": "1.0".')
    for name, value in attributes.items():
        if not NAME.fullmatch(name):
            raise _invalid(f"has an attribute {name[:40]!r}", "Names have lower-case letters and digits only.")
        if not is_scalar(value):
            raise _invalid(f"has an attribute {name[:40]} that is neither text, integer nor boolean")
    source, given_id, type = (_text(attributes, name) for name in ("source", "id", "type"))
    metadata = {
        METADATA.get(name, name): value for name, value in attributes.items() if name not in CORE and name not in OWN
    }
    event_id = _own_id(source, given_id)
    if event_id is None:
        event_id = uuid5(NAMESPACE_URL, f"{source}\n{given_id}")
        metadata = dict(sorted((metadata | {SOURCE: source}).items()))  # the order of a sender may vary
        metadata[ID] = given_id
    version, schema = 1, _text(attributes, "dataschema", "")
    declared = SCHEMA.search(schema)
    if declared is not None and unquote(declared[1]) == type:
        version = int(declared[2])
    elif schema:
        metadata[SCHEMA_KEY] = schema
    codec, key = codec_of_content(_text(attributes, "datacontenttype", "")), attributes.get("datakey")
    is_plain = codec == "json" and key is None
    return build_event(
        type,
        payload if is_plain else opaque_payload(payload, codec, None if key is None else str(key)),
        tags=_tags(attributes),
        event_id=event_id,
        occurred=_occurred(attributes),
        metadata=msgspec.json.encode(metadata),
        version=version,
    )


def _own_id(source: str, text: str) -> UUID | None:
    """The id of an event of a store that is sent back; None for an event of another source."""
    try:
        found = UUID(text) if source.startswith("/stores/") else None
    except ValueError:
        return None
    return found if found is not None and format_id(found.bytes) == text else None


def _tags(attributes: dict[str, Any]) -> list[str]:
    subject = _text(attributes, "subject", "")
    try:
        tags = msgspec.json.decode(_text(attributes, "tags", "[]"), type=list[str])
    except msgspec.DecodeError as error:
        raise _invalid("has tags that are not a JSON list of texts", 'Send "tags": "[\\"account:a-1\\"]".') from error
    return tags if not subject or subject in tags else [*tags, f"subject:{subject}"]


def _occurred(attributes: dict[str, Any]) -> datetime | None:
    text = _text(attributes, "time", "")
    if not text or text == attributes.get("recordedtime"):
        return None
    try:
        return msgspec.convert(text, AwareDatetime)
    except msgspec.ValidationError as error:
        raise _invalid(f"has time {text[:40]!r}", "Write RFC 3339: 2026-11-23T10:15:00Z.") from error


def _text(attributes: dict[str, Any], name: str, default: str | None = None) -> str:
    found = attributes.get(name, default)
    if not isinstance(found, str) or (default is None and not found):
        raise _invalid(
            f"has no {name}" if found is None else f"has {name} {str(found)[:40]!r}", f"Send {name} as text."
        )
    return found


def _invalid(what: str, remedy: str = "Send a CloudEvent as version 1.0 of the specification says.") -> InvalidEvent:
    return InvalidEvent(f"The CloudEvent {what}.", remedy)
