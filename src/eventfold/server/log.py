"""Facts about the log as a whole: its head.

Knows: the head of a log. Does not know: events.
"""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from eventfold.server.call import Call, json_response
from eventfold.server.route import Route
from eventfold.server.scopes import Scope


class LogHead(msgspec.Struct):
    """The last position of the log (0 if it is empty), and a cursor after it."""

    position: int
    cursor: str


async def head(call: Call) -> Response:
    """Answer with the head."""
    cursor = await call.store.cursor()
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
