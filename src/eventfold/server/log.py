"""Facts about the log as a whole: its head; of a narrowed caller, the last event that it may see.

Knows: the head of a log. Does not know: events.
"""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from eventfold.aio import opened_log
from eventfold.core.query import Query
from eventfold.server.call import Call, json_response
from eventfold.server.route import Route
from eventfold.server.scopes import Scope
from eventfold.server.visibility import visible_query
from eventfold.server.visible_positions import visible_cursor


class LogHead(msgspec.Struct):
    """The position of the last event (0 if there is none), and a cursor after it.

    For a caller that is narrowed to tags or types it is the last event that this caller may see.
    """

    position: int
    cursor: str


async def head(call: Call) -> Response:
    """Answer with the head."""
    query = visible_query(call.caller, Query())
    cursor = await visible_cursor(call.caller, await opened_log(call.store), query)
    return json_response(LogHead(cursor.position, str(cursor)))


ROUTES = (
    Route(
        method="GET",
        path="/head",
        handler=head,
        scope=Scope.READ,
        summary="The position of the last event",
        response=LogHead,
    ),
)
