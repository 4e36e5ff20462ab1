"""Whether the server runs, and whether it can serve: for load balancers and supervisors.

Knows: the stores of the server. Does not know: why a store is unavailable.
"""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from eventfold.server.call import Call, json_response
from eventfold.server.route import Route


class Health(msgspec.Struct):
    """The server answers."""

    status: str = "ok"


async def healthz(call: Call) -> Response:
    """Answer at once, without asking a store."""
    return json_response(Health())


ROUTES = (
    Route(
        method="GET",
        path="/healthz",
        handler=healthz,
        scope=None,
        summary="Whether the server runs",
        of_store=False,
        response=Health,
    ),
)
