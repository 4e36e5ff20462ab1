"""Routes as data: the router, the OpenAPI document, authorization and the tests are all made from one table.

Knows: what a route is. Does not know: any route (each module of the server has a list `ROUTES`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.responses import Response

from eventfold.server.call import Call
from eventfold.server.scopes import Scope

Handler = Callable[[Call], Awaitable[Response]]
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "QUERY"})
JSON, NDJSON, SSE = "application/json", "application/x-ndjson", "text/event-stream"
CLOUD_EVENT, CLOUD_EVENTS = "application/cloudevents+json", "application/cloudevents-batch+json"


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of a route: its type as a Python type, and one line of description."""

    name: str
    type: Any
    summary: str
    place: str = "query"  # or "path", "header"
    required: bool = False


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A method and a path, who may call it, and what goes in and out.

    `path` is relative to a store (`/events`, served at `/v1/events` for the only store and at
    `/v1/stores/NAME/events`), or to the server if `of_store` is false (`/healthz`). `scope` None: anyone may call it,
    without a credential. `request` and `response` are msgspec types; `media` lists the media types of the response,
    the default first.
    """

    method: str
    path: str
    handler: Handler
    scope: Scope | None
    summary: str
    of_store: bool = True
    parameters: tuple[Parameter, ...] = ()
    request: Any = None
    request_media: tuple[str, ...] = (JSON,)
    response: Any = None
    media: tuple[str, ...] = (JSON,)
    status: int = 200
    errors: tuple[int, ...] = ()  # further statuses than those that every route may return
    writes: bool | None = None  # whether it changes a store or the server; None: as method and scope say
    waits: bool = False  # whether it waits for a commit, and so takes no place among the calls

    @property
    def takes_a_place(self) -> bool:
        """Whether a call of it counts among those that are handled at once: health checks and streams do not."""
        return not self.waits and self.scope is not None and self.scope is not Scope.FOLLOW and SSE not in self.media

    @property
    def is_writing(self) -> bool:
        """Whether it changes something: a server in read-only mode refuses it.

        A route with a reading scope, or a method that only reads, changes nothing unless it says so by `writes`.
        """
        if self.writes is not None:
            return self.writes
        return self.method not in SAFE_METHODS and self.scope not in (None, Scope.READ, Scope.READ_PAYLOAD)
