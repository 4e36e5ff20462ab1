"""Calls whose path names one route, answered without the layers that Starlette puts around an application.

Each layer is a coroutine, and a function around every message that is sent: together they took as long as an append of
one event. A call that is answered here has the same id, headers, log line and pieces as one that passes the layers.
Knows: what the layers do. Does not know: routes, what a handler does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from eventfold.server.exchange import DEFAULTS, RAW_HEADER, complete, request_id_of
from eventfold.server.logs import REQUEST_ID, log_request, requests
from eventfold.server.pieces import PIECE_BYTES, in_pieces
from eventfold.server.request import IndexedRequest
from eventfold.server.tracing import trace_request


class Endpoint(Protocol):
    """Answers the calls of one route; every error becomes a response."""

    async def answer(self, request: Request) -> Response:
        """Return the response."""
        ...


async def call_directly(
    endpoint: Endpoint,
    scope: Scope,
    receive: Receive,
    send: Send,
    failed: Callable[[Request, Exception], Response],
) -> None:
    """Answer a call. `failed` makes the response if a stream fails before it begins; the error is raised then too."""
    started = time.perf_counter() if requests.isEnabledFor(logging.INFO) else None
    request_id = request_id_of([value.decode("latin-1") for name, value in scope["headers"] if name == RAW_HEADER])
    token, status, trace = REQUEST_ID.set(request_id), 0, trace_request(scope)
    try:
        request = IndexedRequest(scope, receive, send)
        response = await endpoint.answer(request)
        if is_whole(response):
            status = response.status_code
            complete(response.raw_headers, DEFAULTS, request_id)
            await send({"type": "http.response.start", "status": status, "headers": response.raw_headers})
            await send({"type": "http.response.body", "body": response.body})
            return

        async def completed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                complete(message.setdefault("headers", []), DEFAULTS, request_id)
            await send(message)

        sending = in_pieces(completed)
        try:
            await response(scope, receive, sending)
        except Exception as error:
            if not status:
                await failed(request, error)(scope, receive, sending)
            raise
    finally:
        if started is not None:
            log_request(scope, status, started)
        if trace is not None:
            trace.leave(scope, status)
        REQUEST_ID.reset(token)


def is_whole(response: Response) -> bool:
    """Whether a response is a body in one piece, with nothing to do after it."""
    own: Callable[..., Awaitable[None]] = type(response).__call__
    return own is Response.__call__ and response.background is None and len(response.body) <= PIECE_BYTES
