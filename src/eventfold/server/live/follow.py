"""GET /follow: the events of a store as Server-Sent Events, old ones first, then each as it is appended.

A refusal that is final has a status other than 200, after which an `EventSource` does not connect again: 409 for a
cursor of another store or of lost history, 422 for invalid parameters. A refusal that is temporary is a stream that
ends at once with `bye`, after which it does.
Knows: the parameters. Does not know: how a stream is written.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.responses import Response

from eventfold.aio import opened_log
from eventfold.core.query import Cursor, Query
from eventfold.errors import InvalidQuery, StoreUnavailable
from eventfold.server.access.errors import Forbidden
from eventfold.server.call import Call
from eventfold.server.live import sse
from eventfold.server.live.filters import live_filter
from eventfold.server.live.reader import Reader
from eventfold.server.live.stream import HEADERS, MEDIA, EventStream
from eventfold.server.live.view import View
from eventfold.server.places import without_places
from eventfold.server.route import SSE, Parameter, Route
from eventfold.server.scopes import Scope
from eventfold.server.visible_positions import verified_cursor, visible_cursor

UNAVAILABLE_RETRY_S = 5.0


async def follow(call: Call) -> Response:
    """Verify where the stream is to begin, and answer with it."""
    hub, query = call.server.hub, call.request.query_params
    if hub.is_closing:
        return _temporary("shutdown", "The server is shutting down.", hub.settings.spread_seconds)
    if hub.is_full:
        return _temporary(
            "too-many-streams", "The server has as many streams as it allows.", hub.settings.spread_seconds
        )
    _refuse_unknown(query.keys())
    asked = Query.of(types=query.getlist("types"), tags=query.getlist("tags"))
    try:
        view = View.of(
            call.caller, await live_filter(call.caller, await opened_log(call.store), query.get("filter", ""), asked)
        )
        start = await _start(call, view.query)
    except StoreUnavailable as error:
        return _temporary(error.code, without_places(error).what, UNAVAILABLE_RETRY_S)
    server, request = call.server, call.request

    async def check() -> None:
        if await server.authenticate(request, ROUTES[0]) != call.caller:
            raise Forbidden("The rights of this credential have changed.", "Connect again.", scope=Scope.FOLLOW.value)

    if request.method == "HEAD":  # which Starlette serves by every GET: a stream without a body would never end
        return Response(None, 200, dict(HEADERS), media_type=MEDIA)
    reader = Reader(view, hub.settings.reader_bytes, str(start), check)
    return EventStream(hub, hub.tail(call.store_name, call.store), call.store, reader, start)


async def _start(call: Call, view: Query) -> Cursor:
    """Return the verified cursor after which the stream begins, of the store's present epoch."""
    query, log = call.request.query_params, await opened_log(call.store)
    begin = query.get("from", "now")
    after = call.request.headers.get("last-event-id") or query.get("after")
    if after is None:
        if begin == "now":
            return await visible_cursor(call.caller, log, view)
        return await visible_cursor(call.caller, log, view, _position("from", begin))
    if after.isascii() and after.isdigit():
        return await visible_cursor(call.caller, log, view, _position("after", after))
    return await verified_cursor(call.caller, log, Cursor.parse(after))


def _refuse_unknown(given: Iterable[str]) -> None:
    known = [each.name for each in ROUTES[0].parameters if each.place == "query"]
    for name in given:
        if name not in known:
            raise InvalidQuery(f"This route has no parameter {name[:60]!r}.", f"Its parameters are {', '.join(known)}.")


def _position(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise InvalidQuery(
            f"{name}={text[:60]!r} is no position.",
            "Give from=now, from=0 for the whole log, from= a position, or after= the text of a cursor.",
        )
    return int(text)


def _temporary(code: str, title: str, spread_s: float) -> Response:
    """A stream that ends at once, and after which the client connects again."""
    return Response(
        sse.opening() + sse.bye(code, title, spread_s),
        200,
        dict(HEADERS),
        media_type=MEDIA,
    )


ROUTES = (
    Route(
        method="GET",
        path="/follow",
        handler=follow,
        scope=Scope.FOLLOW,
        summary="Events as they are appended, as Server-Sent Events",
        parameters=(
            Parameter(name="types", type=list[str], summary="Events of any of these types; repeat the parameter"),
            Parameter(name="tags", type=list[str], summary="Events with all of these tags; repeat the parameter"),
            Parameter(name="filter", type=str, summary="A line of the filter language, as `type:Opened account:a-1`"),
            Parameter(name="from", type=str, summary="now (default), 0 for the whole log, or a position, exclusive"),
            Parameter(name="after", type=str, summary="A cursor or a position, exclusive; goes before `from`"),
            Parameter(
                name="Last-Event-ID", type=str, place="header", summary="The cursor to resume after, before all others"
            ),
        ),
        media=(SSE,),
        errors=(409,),
    ),
)
