"""Appends answered by the connection itself, without a cycle of uvicorn and without messages of ASGI.

What is shorter is the way to the endpoint and back. The endpoint is called as for any other call, so who calls, what
it may do, limits, places, validation and errors are the same code; so are the id and the trace of the request, the
headers of the response and the line in the log. A request is taken only if all of it has arrived, its connection waits
for a request, and its head is a usual one (known_heads.py); every other request takes the usual way.
Knows: applications, what surrounds an endpoint's answer. Does not know: sockets, what an endpoint does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Literal, NamedTuple, Protocol

from starlette.types import Message, Scope
from uvicorn.server import ServerState

from eventfold.server.asgi import Application, Endpoint
from eventfold.server.cycle import head_of
from eventfold.server.direct import is_whole
from eventfold.server.exchange import DEFAULTS, complete, request_id_of
from eventfold.server.known_heads import KnownHead, KnownHeads
from eventfold.server.logs import REQUEST_ID, log_request, requests
from eventfold.server.reopening import Reopening
from eventfold.server.request import IndexedRequest
from eventfold.server.tracing import trace_request

log = logging.getLogger("eventfold.server")


class Exchange:
    """A request that is being answered: what uvicorn's protocol asks of a cycle."""

    __slots__ = ("disconnected", "keep_alive", "response_complete", "response_started", "task")
    more_body = False

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.response_started = self.response_complete = self.disconnected = False
        self.keep_alive = True

    @property
    def message_event(self) -> Exchange:
        """What is set when the request goes on: it has arrived as a whole, so that nothing waits for it."""
        return self

    def set(self) -> None:
        """See message_event."""


class Connection(Protocol):
    """The connection of a request, with what uvicorn's protocol knows about it."""

    tasks: set[asyncio.Task[None]]
    loop: asyncio.AbstractEventLoop
    server: tuple[str, int | None] | None
    client: tuple[str, int] | None
    scheme: Literal["http", "https"] | None
    app_state: dict[str, Any]
    server_state: ServerState

    def respond(self, exchange: Exchange, response: bytes) -> None:
        """Write a response."""
        ...

    def give_up(self, exchange: Exchange) -> None:
        """End the connection: there is no response."""
        ...


class _Route(NamedTuple):
    """Where the requests with one head go: the application and its endpoint; with that, what their scopes have."""

    app: Application
    endpoint: Endpoint | None
    scope: Scope


class ShortPath:
    """The calls of one application that take this way."""

    def __init__(self, app: Reopening, heads: KnownHeads) -> None:
        self._app, self._heads = app, heads
        app.at_replacement(heads.forget)  # else each head would keep its application, with all of its stores

    def begin(self, connection: Connection, data: bytes) -> Exchange | None:
        """Begin to answer a request, in a task of its own. Returns None if it has to take the usual way."""
        found = self._heads.find(data)
        if found is None:
            return None
        known, body = found
        route: _Route | None = known.route
        if route is None or route.app is not self._app.app:
            route = known.route = self._route(known)
        if route.endpoint is None:
            return None
        scope = {
            **route.scope,
            "server": connection.server,
            "client": connection.client,
            "scheme": connection.scheme,
            "state": connection.app_state.copy(),
        }
        self._app.begin_call()
        exchange = Exchange()
        task = connection.loop.create_task(self._answer(route, connection, exchange, scope, known, body))
        exchange.task = task
        connection.tasks.add(task)
        return exchange

    def _route(self, known: KnownHead) -> _Route:
        scope = {**known.scope}
        endpoint = self._app.app.endpoint_of(scope)
        return _Route(self._app.app, endpoint if endpoint is not None and endpoint.is_append else None, scope)

    async def _answer(
        self, route: _Route, connection: Connection, exchange: Exchange, scope: Scope, known: KnownHead, body: bytes
    ) -> None:
        started = time.perf_counter() if requests.isEnabledFor(logging.INFO) else None
        request_id = request_id_of(known.request_ids)
        status, trace = 0, trace_request(scope)
        REQUEST_ID.set(request_id)  # in the context of this task

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        try:
            assert route.endpoint is not None
            response = await route.endpoint.answer(IndexedRequest(scope, receive, _send, known.headers))
            status = response.status_code
            complete(response.raw_headers, DEFAULTS, request_id)
            head = head_of(status, [*connection.server_state.default_headers, *response.raw_headers])
            if head is None or not is_whole(response):
                raise RuntimeError("an append has an unusual response")
            end = b"\r\n" if exchange.keep_alive else b"connection: close\r\n\r\n"
            connection.respond(exchange, b"".join((head, end, response.body)))
        except BaseException as error:
            log.error("A request failed.", exc_info=error)
            connection.give_up(exchange)
            if not isinstance(error, Exception | asyncio.CancelledError):
                raise
        finally:
            if started is not None:
                log_request(scope, status, started)
            if trace is not None:
                trace.leave(scope, status)
            self._app.end_call(route.app)
            if exchange.task is not None:
                connection.tasks.discard(exchange.task)


async def _send(message: Any) -> None:
    raise RuntimeError("an endpoint returns its response")
