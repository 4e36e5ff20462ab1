"""Events by query: QUERY /events, POST /events/query and GET /events, as a page of JSON or as a stream.

Knows: how a body or the parameters of a URL become a read. Does not know: how events are encoded (formats.py).
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response, StreamingResponse

from eventfold.aio import opened_log
from eventfold.core.query import Cursor, Query
from eventfold.core.wire import EventsPage, ReadJson, reason, to_bounds, to_query
from eventfold.errors import InvalidInput, InvalidQuery
from eventfold.log.context import Log
from eventfold.log.read import Bounds, Reader
from eventfold.server.access.errors import OutsideScope
from eventfold.server.call import Call
from eventfold.server.content import compressed, compressed_stream, mark_encoded, negotiate, response_encoding
from eventfold.server.etags import VARY, entity_tag, is_known, not_modified, tag_headers
from eventfold.server.events import arrow, cloud
from eventfold.server.events.filtered import (
    Bounded,
    FilteredReader,
    find_page,
    is_repeatable,
    plan_for,
    query_of_plan,
    within,
)
from eventfold.server.events.formats import ARROW, STREAMS, begin, page_response, visible_part
from eventfold.server.events.pages import cursor_after, read_page
from eventfold.server.refusals import NotAcceptable
from eventfold.server.route import CLOUD_EVENTS, JSON, NDJSON, Parameter, Route
from eventfold.server.scopes import Scope
from eventfold.server.visibility import may_read_payload, visible_query
from eventfold.server.visible_positions import last_visible, verified_cursor, visible_cursor

DEFAULT_LIMIT, MAX_LIMIT = 100, 1_000  # of a page of JSON
MEDIA = (JSON, NDJSON, ARROW, CLOUD_EVENTS)
NOT_REPEATABLE = {"cache-control": "no-store", "vary": VARY}
NOT_STORED = {"cache-control": "no-store"}  # a stream that ends with an error would stay in a cache by its entity tag
HEAD_HEADER, NEXT_HEADER = "eventfold-head", "eventfold-next"


class Asked(msgspec.Struct):
    """A read of a caller: the part of the query that it may see, the bounds, and the head that it may know of.

    `filtered`: the plan of the filter, within all of these; None: no filter. `is_repeatable`: see filtered.py.
    """

    query: Query
    bounds: Bounds
    head: int
    filtered: Bounded | None = None
    is_repeatable: bool = True


async def query_events(call: Call) -> Response:
    """Answer a read whose query is in the body."""
    return await answer(call, await call.body(ReadJson))


async def get_events(call: Call) -> Response:
    """Answer a read whose filter and bounds are in the URL."""
    given = dict[str, str]()
    for name, value in call.request.query_params.multi_items():
        if name in given or name not in {each.name for each in PARAMETERS}:
            raise InvalidInput(
                f"The parameter {name[:40]} {'is there twice' if name in given else 'is not known'}.",
                f"Use each of these at most once: {', '.join(each.name for each in PARAMETERS)}; "
                "types and tags belong in filter, such as type:Paid customer:42.",
                field=name[:40],
            )
        given[name] = value
    try:
        read = msgspec.convert(given, ReadJson, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            f"A parameter of the URL is not as expected: {reason(error)}.", "Correct it, or send a body by QUERY."
        ) from error
    return await answer(call, read)


async def answer(call: Call, given: ReadJson) -> Response:
    """Answer a read in the media type that the client prefers."""
    media = _media(call)
    log = await opened_log(call.store)
    asked = await asked_of(call, log, given)
    limit = DEFAULT_LIMIT if given.limit is None else given.limit
    headers = NOT_REPEATABLE
    if asked.is_repeatable:
        address = cloud.schemas_of(call) if media == CLOUD_EVENTS else ""
        variant = (media, address, asked.query, asked.bounds, limit, given.filter, may_read_payload(call.caller))
        tag = entity_tag(log.engine, asked.head, *variant)
        if call.request.method != "POST" and is_known(call.request, tag):
            return not_modified(tag)
        headers = tag_headers(tag)
    headers = headers | {HEAD_HEADER: str(asked.head)}
    if media in STREAMS:
        return await _streamed(call, log, asked, media, headers)
    if limit > MAX_LIMIT:
        raise InvalidQuery(
            f"A page of JSON has at most {MAX_LIMIT:,} events, and limit is {limit:,}.",
            f"Give a smaller limit and continue with `next`, or accept {NDJSON}, which has no limit.",
            limit=limit,
        )
    if asked.filtered is None:
        page = await read_page(log, asked.query, asked.bounds, limit)
    else:
        page = await find_page(log, asked.filtered, limit)
    cursor = None
    if call.caller.is_narrowed and not asked.bounds.backwards:  # it names an event that it sees
        cursor = await visible_cursor(call.caller, log, asked.query, page.next)
        page.next = cursor.position
    elif not asked.bounds.backwards:
        cursor = await cursor_after(call.store, log, page)
    elif call.caller.is_narrowed and not (page.events and page.events[-1].position == page.next):
        # It is where a time of the bounds is in the whole log: the last visible event before it is as good.
        last = await last_visible(log, asked.query, page.next - 1)
        page.next = 1 if last is None else last.position + 1
    if media == CLOUD_EVENTS:
        response = Response(cloud.encode_batch(call, visible_part(call.caller, page.events)), media_type=media)
        headers |= {NEXT_HEADER: str(page.next)} if page.more else {}
    else:
        response = page_response(call.caller, page, asked.head, cursor)
    response.headers.update(headers)
    return await compressed(call.request, response)


def _media(call: Call) -> str:
    if arrow.is_installed():
        return negotiate(call.request, MEDIA)
    try:
        return negotiate(call.request, tuple(each for each in MEDIA if each != ARROW))
    except NotAcceptable as error:
        if negotiate(call.request, MEDIA) != ARROW:
            raise
        raise NotAcceptable(arrow.MISSING, f"{arrow.INSTALL}, or accept {NDJSON}.", **error.fields) from None


async def asked_of(call: Call, log: Log, given: ReadJson) -> Asked:
    """Return a read as this caller may make it, of the log as it is now. Raises InvalidQuery, OutsideScope."""
    query, plan = to_query(given.query), None
    if given.filter is not None and given.filter.strip():
        plan = await plan_for(call.caller, log, given.filter, query)
    try:
        query = visible_query(call.caller, query)
    except OutsideScope:
        if plan is None:
            raise
        query = query_of_plan(plan)  # the filter names a tag of the caller's
    head = (await log.engine.head()).position
    if call.caller.is_narrowed:  # it learns of the events that it sees only
        last = await last_visible(log, query, head)
        head = 0 if last is None else last.position
    bounds: dict[str, Any] = to_bounds(given)
    if call.caller.is_narrowed:
        bounds |= {name: min(bounds[name], head) for name in ("after", "until") if isinstance(bounds[name], int)}
        if isinstance(bounds["after"], Cursor):
            bounds["after"] = await verified_cursor(call.caller, log, bounds["after"])
    before = head + 1 if given.before is None else min(given.before, head + 1)
    asked = Asked(query, msgspec.structs.replace(Bounds(**bounds), before=before), head)
    if plan is not None:
        asked.is_repeatable = is_repeatable(plan)
        asked.filtered = await within(log, plan, asked.bounds)
    return asked


async def _streamed(call: Call, log: Log, asked: Asked, media: str, headers: dict[str, str]) -> Response:
    reader: Reader | FilteredReader = Reader(log, asked.query, asked.bounds)
    if asked.filtered is not None:
        reader = FilteredReader(log, asked.filtered, asked.bounds.limit)
    chunks = await begin(call, reader, media)  # reads the first page: its errors have a status of their own
    encoding = response_encoding(call.request)
    headers = headers | NOT_STORED
    response = StreamingResponse(
        chunks if encoding is None else compressed_stream(chunks, encoding), headers=headers, media_type=media
    )
    if encoding is not None:
        mark_encoded(response, encoding)
    if call.request.method == "HEAD":
        await chunks.aclose()
        without_body = Response(headers=dict(response.headers))
        del without_body.headers["content-length"]  # that of the stream is not known
        return without_body
    return response


def _parameter(name: str, type: Any, summary: str) -> Parameter:
    return Parameter(name=name, type=type, summary=summary)


PARAMETERS = (
    _parameter("filter", str, "A line of the filter language, as `type:Opened account:a-1`"),
    _parameter("after", str, "A position or a cursor, exclusive"),
    _parameter("until", str, "A position (its whole append) or a time, inclusive"),
    _parameter("before", int, "A position, exclusive: where a backwards read continues"),
    _parameter("since", str, "The time of recording of the first event, inclusive"),
    _parameter("occurred_since", str, "A time, inclusive"),
    _parameter("occurred_until", str, "A time, inclusive"),
    _parameter("limit", int, f"At most this many events; a page of JSON has up to {MAX_LIMIT:,}"),
    _parameter("backwards", bool, "Newest first"),
)
_READ: dict[str, Any] = {"scope": Scope.READ, "response": EventsPage, "media": MEDIA, "errors": (304, 406, 409)}
_BODY: dict[str, Any] = _READ | {"handler": query_events, "request": ReadJson}
ROUTES = (
    Route(
        method="GET", path="/events", handler=get_events, summary="Events by a filter", parameters=PARAMETERS, **_READ
    ),
    Route(method="QUERY", path="/events", summary="Events by a query", **_BODY),
    Route(method="POST", path="/events/query", summary="Events by a query, for clients without QUERY", **_BODY),
)
