"""Log lines of the server: JSON or text, with the ids of the request and its trace; one line for each request.

Knows: logging, routes by their path in the table. Does not know: paths, queries and bodies of requests, which it must
not write: they may contain personal data and secrets.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eventfold.server.settings import LogSettings
from eventfold.server.tracing import trace_ids

REQUEST_ID: ContextVar[str | None] = ContextVar("eventfold_request_id", default=None)
ROUTE = "eventfold.route"  # key in the scope: the route's path in the table, without values

log = logging.getLogger("eventfold.server")
requests = logging.getLogger("eventfold.server.requests")


class Formatter(logging.Formatter):
    """One line for each record: a JSON object, or a text with `key=value` at its end."""

    def __init__(self, format: str) -> None:
        super().__init__()
        self._is_json = format == "json"

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        facts: dict[str, Any] = dict(getattr(record, "fields", {}))
        if request_id := REQUEST_ID.get():
            facts["request_id"] = request_id
        facts |= trace_ids()
        if record.exc_info and record.exc_info[1] is not None:
            facts["error"], facts["at"] = type(record.exc_info[1]).__name__, frames(record.exc_info[1])
        if self._is_json:
            line = {"time": when, "level": record.levelname.lower(), "message": record.getMessage(), **facts}
            return msgspec.json.encode(line, enc_hook=str).decode()
        pairs = "".join(f" {name}={_text(value)}" for name, value in facts.items())
        return f"{when} {record.levelname} {_printable(record.getMessage())}{pairs}"


def frames(error: BaseException) -> list[str]:
    """Where an exception was raised. Its message is left out, since it may quote a payload."""
    found = traceback.extract_tb(error.__traceback__)[-12:]
    return [f"{each.filename.rpartition('/')[2]}:{each.lineno} {each.name}" for each in found]


def _text(value: Any) -> str:
    text = _printable(str(value))
    return f'"{text}"' if " " in text else text


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


# What uvicorn logs for each such request; a client could fill a disk with it. protocol.py counts them instead.
UNBOUNDED = ("Invalid HTTP request received.", "Unsupported upgrade request.", "No supported WebSocket library")


def is_bounded(record: logging.LogRecord) -> bool:
    """Whether no client can cause any number of these records."""
    return not str(record.msg).startswith(UNBOUNDED)


def configure_logs(settings: LogSettings) -> None:
    """Write the log lines of the server, and the warnings of the library and of uvicorn, on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter(settings.format))
    log.handlers, log.propagate = [handler], False
    log.setLevel(settings.level.upper())
    requests.disabled = not settings.requests
    for name in ("eventfold", "uvicorn", "uvicorn.error", "asyncio"):
        other = logging.getLogger(name)
        other.handlers, other.propagate = [handler], False
        other.setLevel(max(logging.WARNING, log.level))
    errors = logging.getLogger("uvicorn.error")
    errors.handlers, errors.propagate, errors.filters = [], True, [is_bounded]


class RequestLog:
    """Middleware: a line for each request with its method, route, status and duration."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, and log the request when its response is complete."""
        if scope["type"] != "http" or not requests.isEnabledFor(logging.INFO):
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            log_request(scope, status, started)


def log_request(scope: Scope, status: int, started: float) -> None:
    """Log a request that has ended: `started` is by `time.perf_counter()`, `status` 0 if nothing was sent."""
    fields = {
        "method": scope["method"],
        "route": scope.get(ROUTE),
        "status": status,
        "ms": round((time.perf_counter() - started) * 1_000, 2),
    }
    requests.info("request", extra={"fields": fields})
