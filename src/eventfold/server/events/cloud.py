"""CloudEvents over HTTP: POST /cloudevents in structured, batch and binary mode, and events answered as CloudEvents.

A batch is one append: all of it is written, or nothing. A CloudEvent that is sent again is found by its id.
Knows: the modes of the HTTP binding. Does not know: what each attribute becomes (core/cloud_events.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote, unquote_to_bytes

import msgspec
from starlette.responses import Response

from eventfold.core.cloud_events import attributes_of, parse_attributes, parse_structured, to_cloud_event
from eventfold.core.envelope import MAX_EVENTS_PER_APPEND, NewEvent, StoredEvent
from eventfold.core.wire import AppendJson, ReceiptJson, at_index, decode
from eventfold.errors import InvalidEvent, InvalidInput
from eventfold.server.call import Call
from eventfold.server.content import check_media_type, media_type, only_header
from eventfold.server.events.append import KEY_PARAMETER, appended
from eventfold.server.route import CLOUD_EVENT, CLOUD_EVENTS, Route
from eventfold.server.scopes import Scope

PREFIX = "ce-"
PRINTABLE = "!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"  # besides letters and digits: not percent-encoded in a header


class CloudEvent(msgspec.Struct):
    """A CloudEvent 1.0 in JSON. Further attributes of lower-case letters and digits are extensions."""

    specversion: str
    id: Annotated[str, msgspec.Meta(min_length=1)]
    source: Annotated[str, msgspec.Meta(min_length=1)]
    type: Annotated[str, msgspec.Meta(min_length=1)]
    subject: str | None = None
    time: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    data: Any = None
    data_base64: str | None = None


async def receive(call: Call) -> Response:
    """Append the CloudEvents of the body. 201 with the receipt, 200 if they are in the log already."""
    return await appended(call, await received(call), AppendJson(events=[]))


def is_binary(call: Call) -> bool:
    """Whether the request is a CloudEvent in binary mode."""
    return f"{PREFIX}specversion" in call.request.headers


async def received(call: Call) -> list[NewEvent]:
    """Return the events of the request, in any of the three modes. Raises InvalidEvent, UnsupportedMedia."""
    if media_type(call.request) not in (CLOUD_EVENT, CLOUD_EVENTS) and is_binary(call):
        return [_parse_binary(call, await call.raw_body())]
    media = check_media_type(call.request, (CLOUD_EVENT, CLOUD_EVENTS))
    raw = await call.raw_body()
    if media == CLOUD_EVENT:
        return [parse_structured(decode(raw, dict[str, msgspec.Raw]))]
    batch = decode(raw, list[dict[str, msgspec.Raw]])
    if not 1 <= len(batch) <= MAX_EVENTS_PER_APPEND:
        raise InvalidInput(
            f"The batch has {len(batch)} events, and an append takes 1 to {MAX_EVENTS_PER_APPEND:,}.",
            "Send at least one; send more than that in several batches.",
            count=len(batch),
        )
    found = list[NewEvent]()
    for index, each in enumerate(batch):
        try:
            found.append(parse_structured(each))
        except InvalidEvent as error:
            raise at_index(error, index) from None
    return found


def _parse_binary(call: Call, body: bytes) -> NewEvent:
    attributes = dict[str, Any]()
    for name, value in call.request.headers.items():
        if name.startswith(PREFIX):
            only_header(call.request, name)
            attributes[name.removeprefix(PREFIX)] = _unescaped(value)
    content = call.request.headers.get("content-type", "")
    if content:
        attributes["datacontenttype"] = content
    return parse_attributes(attributes, body or (b"{}" if not content else body))


def _unescaped(value: str) -> str:
    """The text of a header: percent-encoded UTF-8, in quotes or not."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1].replace("\\\\", "\0").replace("\\", "").replace("\0", "\\")
    try:
        return unquote_to_bytes(value.encode("latin-1")).decode()
    except UnicodeDecodeError as error:
        raise InvalidEvent(
            "A header of the CloudEvent is not UTF-8 when it is percent-decoded.", "Percent-encode its UTF-8 bytes."
        ) from error


def source_of(call: Call) -> str:
    """Return the source of events of the store."""
    return f"/stores/{quote(call.store_name, safe='')}"


def schemas_of(call: Call) -> str:
    """Return the address of the schemas of the store, absolute."""
    url = call.request.url
    return f"{url.scheme}://{url.netloc}{call.root_path}/v1/stores/{quote(call.store_name, safe='')}/schemas"


def encode_event(call: Call, stored: StoredEvent) -> bytes:
    """Return one event as a CloudEvent in JSON."""
    return msgspec.json.encode(to_cloud_event(stored, source_of(call), schemas_of(call)))


def encode_batch(call: Call, events: Sequence[StoredEvent]) -> bytes:
    """Return events as a batch of CloudEvents in JSON."""
    source, schemas = source_of(call), schemas_of(call)
    return msgspec.json.encode([to_cloud_event(stored, source, schemas) for stored in events])


def binary_response(call: Call, stored: StoredEvent) -> Response:
    """Return one event in binary mode: its attributes as headers, its data as the body."""
    attributes = attributes_of(stored, source_of(call), schemas_of(call))
    media = attributes.pop("datacontenttype")
    headers = {f"{PREFIX}{name}": _escaped(value) for name, value in attributes.items()}
    return Response(stored.data, headers=headers | {"content-type": media})


def _escaped(value: Any) -> str:
    text = ("true" if value else "false") if isinstance(value, bool) else str(value)
    return quote(text, safe=PRINTABLE)


ROUTES = (
    Route(
        method="POST",
        path="/cloudevents",
        handler=receive,
        scope=Scope.APPEND,
        summary="Append one CloudEvent, or a batch of them; in binary mode attributes are headers ce-…",
        parameters=(KEY_PARAMETER,),
        request=CloudEvent | list[CloudEvent],
        request_media=(CLOUD_EVENT, CLOUD_EVENTS),
        response=ReceiptJson,
        status=201,
        errors=(200, 409),
    ),
)
