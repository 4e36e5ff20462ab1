"""What every exchange has: a request id, and headers that make browsers careful.

Knows: headers. Does not know: routes, callers, bodies.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from secrets import token_hex

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eventfold.server.logs import REQUEST_ID
from eventfold.server.tracing import trace_request

REQUEST_ID_HEADER = "X-Request-Id"
RAW_HEADER = REQUEST_ID_HEADER.lower().encode()
SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
DEFAULT_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""On every response that does not set them itself; a page sets a policy for what it shows."""
DEFAULTS = tuple((name.lower().encode(), value.encode()) for name, value in DEFAULT_HEADERS.items())
CROSS_ORIGIN_DEFAULTS = tuple(
    (name, b"cross-origin" if name == b"cross-origin-resource-policy" else value) for name, value in DEFAULTS
)
_DEFAULT_NAMES = frozenset(name for name, _ in DEFAULTS)
CORS_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "QUERY")
CORS_REQUEST_HEADERS = (
    "Authorization",
    "Content-Type",
    "If-None-Match",
    "Last-Event-ID",
    "traceparent",
    "tracestate",
    REQUEST_ID_HEADER,
)
CORS_RESPONSE_HEADERS = ("ETag", "Location", "Retry-After", REQUEST_ID_HEADER)


class Exchange:
    """Middleware: gives each request an id, the client's own if it is short and plain, and each response its headers.

    `cross_origin`: pages of other origins may use the responses (those that CORS names).
    """

    def __init__(self, app: ASGIApp, cross_origin: bool = False) -> None:
        self.app = app
        self._headers = CROSS_ORIGIN_DEFAULTS if cross_origin else DEFAULTS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application within the id of the request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = request_id_of([value.decode("latin-1") for name, value in scope["headers"] if name == RAW_HEADER])

        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                complete(message.setdefault("headers", []), self._headers, request_id)
            await send(message)

        token, trace = REQUEST_ID.set(request_id), trace_request(scope)
        try:
            await self.app(scope, receive, sending)
        finally:
            if trace is not None:
                trace.leave(scope, status)
            REQUEST_ID.reset(token)


def complete(given: list[tuple[bytes, bytes]], defaults: Sequence[tuple[bytes, bytes]], request_id: str) -> None:
    """Add to the headers of a response those of `defaults` that it does not set itself, and the id of the request."""
    names = {name for name, _ in given}
    given += defaults if _DEFAULT_NAMES.isdisjoint(names) else [each for each in defaults if each[0] not in names]
    given.append((RAW_HEADER, request_id.encode()))


_process, _numbers = token_hex(10), itertools.count(1)


def request_id_of(given: list[str]) -> str:
    """Return the id that a client gave, if it is one of up to 64 letters, digits and `._:-`; else a new one.

    A new one is that of this process, which is random, and a number: to ask the system for random bytes each time
    would take as long as to find the route.
    """
    return given[0] if len(given) == 1 and SANE_ID.fullmatch(given[0]) else f"{_process}{next(_numbers):012x}"
