"""The catalogue of events over HTTP: registered types with the code that uses them, and types without a class.

Knows: the registered modules, the types of the log. Does not know: how the code is found.
"""

from __future__ import annotations

import msgspec
from starlette.responses import Response

from eventfold.concurrency import in_thread
from eventfold.ports.messages import TypeCount
from eventfold.schema.entries import CatalogueEntry
from eventfold.server.call import Call, json_response
from eventfold.server.content import compressed
from eventfold.server.route import Route
from eventfold.server.scopes import Scope
from eventfold.server.visibility import check_whole_store


class Catalogue(msgspec.Struct):
    """Each version of each registered event type; and the types in the log that no registered class reads."""

    events: list[CatalogueEntry]
    unregistered: list[TypeCount]


async def catalogue(call: Call) -> Response:
    """Answer with the catalogue."""
    check_whole_store(call.caller)
    registered = call.server.registered
    found = await in_thread(lambda: registered.catalogue)
    known = {name for each in found for name in (each.type, *each.aliases)}
    others = [each for each in await call.store.types() if each.type not in known and not each.type.startswith("$")]
    return await compressed(call.request, json_response(Catalogue(found, others)))


ROUTES = (
    Route(
        method="GET",
        path="/catalogue",
        handler=catalogue,
        scope=Scope.READ,
        summary="The registered event types: fields, tags, versions, and the code that makes and takes them",
        response=Catalogue,
    ),
)
