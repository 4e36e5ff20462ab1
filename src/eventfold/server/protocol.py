"""HTTP/1.1 on one connection, with bounds on its time and its memory that uvicorn does not set.

Knows: uvicorn's protocol, connections, limits. Does not know: routes, callers, what a request means.

A connection is always in one of four states, and each has a bound:
    reading a head      `header_seconds`, `header_bytes`, `header_count`
    reading a body      a rate in bytes a second, after a grace period, while the server itself is ready to read
    writing             the client must read within `stall_seconds`
    between requests    `idle_seconds` (by uvicorn)
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from asyncio import TimerHandle
from typing import Any, cast

import msgspec
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from eventfold.server.combined_writes import CombinedWrites
from eventfold.server.cycle import Cycle
from eventfold.server.problems import PROBLEM, Problem
from eventfold.server.settings import LimitSettings
from eventfold.server.short_path import Exchange, ShortPath
from eventfold.server.tls import Certificates

log = logging.getLogger("eventfold.server")

MAX_PIPELINED = 16  # requests that wait on one connection for the response to an earlier one
LINGER_SECONDS = 2.0  # how long the rest of a refused request is read, so that the client can read the refusal
LINGER_BYTES = 8 * 1024 * 1024  # how much of it at most
BODY_CHECK_SECONDS = 1.0
MESSAGE_SECONDS = 1.0  # between two messages about refusals

INVALID = Problem(
    status=400, code="http-invalid", title="The request is not valid HTTP/1.1.", detail="Correct the client."
)
HEAD_TOO_LARGE = Problem(
    status=431,
    code="headers-too-large",
    title="The request line and the headers are larger than the server accepts.",
    detail="Send fewer or shorter headers; put long queries into the body of a QUERY or POST request.",
)
HOST_INVALID = Problem(
    status=400,
    code="host-invalid",
    title="The request does not have exactly one header Host.",
    detail="Send one, as HTTP/1.1 requires.",
)
TOO_SLOW = Problem(
    status=408,
    code="request-too-slow",
    title="The request did not arrive in time.",
    detail="Repeat it; an append with event ids or a key is not written twice.",
)
TOO_MANY_CONNECTIONS = Problem(
    status=503,
    code="too-many-connections",
    title="The server has as many connections as it accepts.",
    detail="Wait for the seconds that Retry-After says, and repeat the request.",
)


class RefusedRequest(Exception):
    """Raised within a callback of the parser, which then stops; the response is the problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.code)
        self.problem = problem


class LimitedConfig(Config):
    """uvicorn's configuration, with our limits."""

    limits: LimitSettings = LimitSettings()
    max_connections: int = LimitSettings().connections
    certificates: Certificates | None = None
    short_path: ShortPath | None = None  # for appends; None: every request takes the usual way

    def load(self) -> None:
        """Load the application, and use our context of TLS."""
        super().load()
        self.ssl = None if self.certificates is None else self.certificates.context


class RefusalLog:
    """Logs refusals, at most one message in a second with the number of them: clients could fill a disk otherwise."""

    def __init__(self) -> None:
        self._next, self._counts = 0.0, dict[str, int]()

    def add(self, code: str) -> None:
        """Count a refusal."""
        self._counts[code] = self._counts.get(code, 0) + 1
        now = time.monotonic()
        if now >= self._next:
            self._next, counts, self._counts = now + MESSAGE_SECONDS, self._counts, {}
            log.warning("Requests were refused before they reached a route.", extra={"fields": counts})


class LimitedProtocol(HttpToolsProtocol):
    """One connection. `_head_open`: the head of a request is incomplete; `_message_open`: the head or the body is."""

    refusals = RefusalLog()

    def __init__(
        self,
        config: LimitedConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.limits, self.max_connections = config.limits, config.max_connections
        self._short_path = config.short_path
        self._head_open = self._message_open = self._refused = False
        self._head_bytes = self._header_count = self._header_size = 0
        self._body_bytes, self._body_credit = 0, 0.0
        self._problem = INVALID
        self._responded_at = -math.inf  # on the short path
        self._timer: TimerHandle | None = None  # of the head, or of the body
        self._stall: TimerHandle | None = None

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._refuse(TOO_MANY_CONNECTIONS)
        else:
            self._start_timer(self.limits.header_seconds, self._end_head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what waits."""
        self._cancel_timer()
        self._cancel_stall()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse data; afterwards set the timer of the state that the connection is in."""
        if self._refused:
            self._body_bytes += len(data)
            if self._body_bytes > LINGER_BYTES:
                self.transport.abort()
            return
        if self._short_path is not None and not self._message_open and self._begin_short(self._short_path, data):
            return
        was_head, was_message = self._head_open, self._message_open
        if self._message_open and not self._head_open:
            self._body_bytes += len(data)
        super().data_received(data)
        if self._refused or self.transport.is_closing():
            return
        if self._head_open:
            if was_head or not was_message:
                self._head_bytes += len(data)
            if self._head_bytes > self.limits.header_bytes:
                self._refuse(HEAD_TOO_LARGE)
            elif self._timer is None:
                self._start_timer(self.limits.header_seconds, self._end_head)
        elif self._message_open:
            if was_head or not was_message or self._timer is None:
                self._body_bytes, self._body_credit = 0, self.limits.body_grace_seconds
                self._start_timer(BODY_CHECK_SECONDS, self._check_body)
        else:
            self._cancel_timer()

    # Appends that are answered here

    def _begin_short(self, short_path: ShortPath, data: bytes) -> bool:
        """Begin to answer a request if it can take the short path. Returns whether it does."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if (cycle is not None and not cycle.response_complete) or self.pipeline or self.flow.write_paused:
            return False
        if self.transport.is_closing() or (exchange := short_path.begin(self, data)) is None:
            return False
        self.cycle = cast("RequestResponseCycle", exchange)
        self._cancel_timer()
        return True

    def respond(self, exchange: Exchange, response: bytes) -> None:
        """Write a response as a whole, unless the client has gone."""
        exchange.response_started = exchange.response_complete = True
        if exchange.disconnected or self.transport.is_closing():
            return
        self.transport.write(response)
        if not exchange.keep_alive:
            self.transport.close()
        if self.pipeline or self._message_open or self.transport.is_closing():
            self.on_response_complete()
            return
        self.server_state.total_requests += 1
        self._responded_at = self.loop.time()
        if self.timeout_keep_alive_task is None:  # else it looks at the time above when it is due
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def give_up(self, exchange: Exchange) -> None:
        """End the connection: there is no response."""
        if not exchange.disconnected:
            self.transport.close()

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        """Begin to read a head."""
        super().on_message_begin()
        self._head_open = self._message_open = True
        self._head_bytes = self._header_count = self._header_size = 0
        if len(self.pipeline) >= MAX_PIPELINED:
            self._raise(INVALID)

    def on_url(self, url: bytes) -> None:
        """Count a part of the address."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header."""
        self._header_count += 1
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Check the head as a whole, then start the request."""
        parser = self.parser
        assert parser is not None
        hosts = sum(name == b"host" for name, _value in self.headers)
        version = parser.get_http_version()
        if version not in ("1.0", "1.1"):
            self._raise(INVALID)
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            self._raise(HOST_INVALID)
        super().on_headers_complete()
        self.cycle.__class__ = Cycle  # its task has not begun; uvicorn has no place to name another class
        self.cycle.transport = cast("asyncio.Transport", CombinedWrites(self.transport, self.loop))
        self._head_open = False
        if parser.should_upgrade():
            self.cycle.keep_alive = False  # what follows on this connection is not parsed

    def on_message_complete(self) -> None:
        """End the body."""
        self._message_open = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """If the response was sent before the whole body came, read no more requests from this connection."""
        if self._message_open and not self._head_open and not self.pipeline and not self.transport.is_closing():
            self.server_state.total_requests += 1
            self._linger()
            return
        super().on_response_complete()
        if self.transport.is_closing():
            self._abort_if_not_read()

    def _count(self, size: int) -> None:
        self._header_size += size
        if self._header_size > self.limits.header_bytes or self._header_count > self.limits.header_count:
            self._raise(HEAD_TOO_LARGE)

    def _raise(self, problem: Problem) -> None:
        self._problem = problem
        raise RefusedRequest(problem)  # the parser wraps it, and data_received calls send_400_response

    # Refusing

    def send_400_response(self, msg: str) -> None:
        """Answer what could not be parsed."""
        self._refuse(self._problem)

    def _refuse(self, problem: Problem) -> None:
        """Answer with a problem and end the connection; if another response has begun, only end it.

        A request that arrived before as a whole is answered, and the connection then ends without the problem: the
        client would take the problem for the answer to that request.
        """
        self.refusals.add(problem.code)
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is not None and cycle.response_complete:
            cycle = None
        if self.pipeline or (cycle is not None and cycle.response_started):
            self._refused = True
            self.transport.abort()
            return
        if cycle is not None and not cycle.more_body:  # it arrived before what is refused, and may be written already
            cycle.keep_alive = False
            self._refused, self._body_bytes = True, 0
            self._cancel_timer()
            self.flow.resume_reading()
            return
        if cycle is not None:  # its body cannot be read to the end
            cycle.disconnected = True
            cycle.message_event.set()
        body = msgspec.json.encode(problem)
        head = [
            STATUS_LINE[problem.status],
            *(name + b": " + value + b"\r\n" for name, value in self.server_state.default_headers),
            f"content-type: {PROBLEM}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n".encode(),
            b"retry-after: 1\r\n" if problem.status == 503 else b"",
            b"\r\n",
        ]
        self.transport.write(b"".join(head) + body)
        self._linger()

    def _linger(self) -> None:
        """End the connection, but read what still comes for a moment: a reset would destroy the response."""
        self._refused, self._body_bytes = True, 0
        self._cancel_timer()
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)
        else:  # TLS
            self.transport.close()
            self._abort_if_not_read()

    # Time

    def _start_timer(self, seconds: float, action: Any) -> None:
        self._cancel_timer()
        self._timer = self.loop.call_later(seconds, action)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_head(self) -> None:
        """The head did not arrive in time."""
        self._timer = None
        if self.transport.is_closing():
            return
        if self._head_open:
            self._refuse(TOO_SLOW)
        else:
            self.transport.close()  # nothing was sent: no response is awaited

    def _check_body(self) -> None:
        """A second has passed: it counts against the client unless the server itself had paused reading."""
        self._timer = None
        if self.transport.is_closing() or not self._message_open:
            return
        earned = self._body_bytes / self.limits.body_bytes_per_second
        spent = 0.0 if self.flow.read_paused else BODY_CHECK_SECONDS
        self._body_bytes = 0
        self._body_credit = min(self._body_credit + earned, self.limits.body_grace_seconds) - spent
        if self._body_credit <= 0:
            self._refuse(TOO_SLOW)
        else:
            self._start_timer(BODY_CHECK_SECONDS, self._check_body)

    def pause_writing(self) -> None:
        """The client does not read as fast as the response is written."""
        super().pause_writing()
        self._cancel_stall()
        self._stall = self.loop.call_later(self.limits.stall_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client read most of what was waiting."""
        self._cancel_stall()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """End a connection between two requests, also if its client reads nothing."""
        self.timeout_keep_alive_task = None
        if self.transport.is_closing():
            return
        cycle = cast("RequestResponseCycle | None", self.cycle)
        is_busy = cycle is not None and not cycle.response_complete
        left = self.timeout_keep_alive if is_busy else self._responded_at + self.timeout_keep_alive - self.loop.time()
        if left > 0:  # there was a request on the short path since the timer was started
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
            return
        super().timeout_keep_alive_handler()
        self._abort_if_not_read()

    def shutdown(self) -> None:
        """End a connection without a request at once, and another one after its response."""
        super().shutdown()
        if self.transport.is_closing():
            self._abort_if_not_read()

    def _abort_if_not_read(self) -> None:
        """A closed connection ends when its last bytes are read; if they are not read in time, without them."""
        if self._stall is None and self.transport.get_write_buffer_size():
            self._stall = self.loop.call_later(self.limits.stall_seconds, self.transport.abort)

    def _cancel_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
