"""Single facts by what identifies them: an event by position or id, a position by time, a receipt by its key.

Knows: where the engine looks each of them up. Does not know: queries.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from starlette.responses import Response

from eventfold.aio import opened_log
from eventfold.core.envelope import StoredEvent, to_micros
from eventfold.core.event_json import EventLine, to_line
from eventfold.core.query import Query
from eventfold.core.wire import DIGITS, ReceiptJson, from_receipt, to_moment
from eventfold.errors import InvalidInput
from eventfold.log.cursors import LAST_POSITION
from eventfold.ports.messages import Span
from eventfold.server.call import Call, json_response
from eventfold.server.content import compressed, negotiate
from eventfold.server.etags import entity_tag, is_known, not_modified, tag_headers
from eventfold.server.events import cloud
from eventfold.server.refusals import NotFound
from eventfold.server.route import CLOUD_EVENT, JSON, Parameter, Route
from eventfold.server.scopes import Scope
from eventfold.server.visibility import (
    check_visible,
    check_whole_store,
    may_read_payload,
    redact,
    redact_stored,
    request_key,
)

MEDIA = (JSON, CLOUD_EVENT)


class PositionAt(msgspec.Struct):
    """The last position recorded by a time (0 if there is none), and a cursor at it."""

    position: int
    cursor: str


async def by_position(call: Call) -> Response:
    """Answer with the event at a position."""
    text = call.request.path_params["position"]
    if not DIGITS.fullmatch(text) or not 0 < int(text) <= LAST_POSITION:
        raise InvalidInput(f"{text[:40]!r} is no position.", "Positions are counted from 1.", field="position")
    position, log = int(text), await opened_log(call.store)
    page = await log.engine.read(Query(), Span(after=position - 1, until=position))
    return await _answer(call, next((each for each in page.events if each.position == position), None))


async def by_id(call: Call) -> Response:
    """Answer with the event with an id."""
    found = await call.store.event(call.request.path_params["id"], raw=True)
    return await _answer(call, None if found is None else found.stored)


async def _answer(call: Call, found: StoredEvent | None) -> Response:
    stored = check_visible(call.caller, found)
    media, mode = negotiate(call.request, MEDIA), call.request.query_params.get("cloudevents")
    if mode not in (None, "binary"):
        raise InvalidInput(
            f"The parameter cloudevents is {mode[:40]!r}.", "Send binary, or leave it out.", field="cloudevents"
        )
    log = await opened_log(call.store)
    # A CloudEvent names addresses of this server, which depend on how the client calls it.
    address = cloud.schemas_of(call) if mode or media == CLOUD_EVENT else ""
    variant = (media, mode, address, stored.id, may_read_payload(call.caller))
    tag = entity_tag(log.engine, stored.position, *variant)
    if is_known(call.request, tag):
        return not_modified(tag)
    if mode == "binary":
        response = cloud.binary_response(call, redact_stored(call.caller, stored))
    elif media == CLOUD_EVENT:
        response = Response(cloud.encode_event(call, redact_stored(call.caller, stored)), media_type=media)
    else:
        response = json_response(redact(call.caller, to_line(stored)))
    response.headers.update(tag_headers(tag))
    return await compressed(call.request, response)


async def position_at(call: Call) -> Response:
    """Answer with the last position that was recorded by a time."""
    check_whole_store(call.caller)
    text = call.request.query_params.get("time")
    if text is None:
        raise InvalidInput("The parameter time is missing.", "Send ?time=2026-11-23T10:15:00Z.", field="time")
    log = await opened_log(call.store)
    position = await log.engine.position_at(to_micros(to_moment(text, "time", end_of_day=True)))
    return json_response(PositionAt(position, str(await call.store.cursor(position))))


async def receipt(call: Call) -> Response:
    """Answer with the receipt of the append that has a request key."""
    key = request_key(call.caller, call.request.path_params["key"])
    assert key is not None
    found = await call.store.receipt(key)
    if found is None:
        raise NotFound("No append has this request key.", "If an append with it was not confirmed, repeat that append.")
    return json_response(from_receipt(found))


def _path(name: str, summary: str) -> Parameter:
    return Parameter(name=name, type=str, summary=summary, place="path", required=True)


MODE = Parameter(name="cloudevents", type=Literal["binary"], summary="Answer as a CloudEvent in binary mode")
ROUTES = (
    Route(
        method="GET",
        path="/events/{position}",
        handler=by_position,
        scope=Scope.READ,
        summary="The event at a position",
        parameters=(_path("position", "A position, from 1"), MODE),
        response=EventLine,
        media=MEDIA,
        errors=(304, 404, 406),
    ),
    Route(
        method="GET",
        path="/events/by-id/{id}",
        handler=by_id,
        scope=Scope.READ,
        summary="The event with an id",
        parameters=(_path("id", "A UUID"), MODE),
        response=EventLine,
        media=MEDIA,
        errors=(304, 404, 406),
    ),
    Route(
        method="GET",
        path="/positions",
        handler=position_at,
        scope=Scope.READ,
        summary="The last position that was recorded by a time",
        parameters=(Parameter(name="time", type=str, summary="A time, inclusive", required=True),),
        response=PositionAt,
    ),
    Route(
        method="GET",
        path="/receipts/{key:path}",
        handler=receipt,
        scope=Scope.APPEND,
        summary="The receipt of the append that has a request key",
        parameters=(_path("key", "The request key"),),
        response=ReceiptJson,
        errors=(404,),
    ),
)
