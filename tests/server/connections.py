"""The protocol of `eventfold serve`: without a socket, with a transport that keeps what is written; and for `serving`.

Knows: uvicorn's protocol, transports. Does not know: routes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from eventfold.server.asgi import Application
from eventfold.server.known_heads import KnownHeads
from eventfold.server.protocol import LimitedConfig, LimitedProtocol
from eventfold.server.reopening import Reopening
from eventfold.server.serve import SignalledServer, config_of
from eventfold.server.settings import LimitSettings
from eventfold.server.short_path import ShortPath
from tests.server.serving import PATIENCE

DATE = (b"date", b"Sun, 29 Nov 2026 13:00:00 GMT")


class ServedProtocol(LimitedProtocol):
    """The protocol of `eventfold serve` with its short path, for an application that uvicorn runs.

    `requests` sends a head and its body in two parts, which would take the usual way: here they arrive as one.
    """

    kept = b""

    def data_received(self, data: bytes) -> None:
        """Let data arrive when it contains the body of its head."""
        self.kept += data
        head, end, body = self.kept.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: *(\d{1,5})\r\n", head + b"\r\n", re.IGNORECASE)
        if not end or length is None or len(body) >= int(length[1]):
            data, self.kept = self.kept, b""
            super().data_received(data)

    def __init__(self, config: Any, **rest: Any) -> None:
        if not hasattr(config, "short_path"):
            limits = LimitSettings()
            config.limits, config.max_connections = limits, limits.connections
            heads = KnownHeads(limits.header_bytes, limits.header_count)
            config.short_path = ShortPath(Reopening(lambda: config.app), heads)
        super().__init__(config, **rest)


class Client(asyncio.Transport):
    """The transport of one connection, as the client sees it: `send`, then `answer`."""

    def __init__(self, config: LimitedConfig, server: SignalledServer) -> None:
        super().__init__()
        self.written, self.is_closed = b"", False
        self._changed = asyncio.Event()
        self.protocol = LimitedProtocol(config, server.server_state, {})
        self.protocol.connection_made(self)

    def send(self, data: bytes) -> None:
        """Let data arrive."""
        self.protocol.data_received(data)

    def leave(self) -> None:
        """End the connection, as the client."""
        self.is_closed = True
        self.protocol.connection_lost(None)

    async def answers(self, count: int = 1) -> list[bytes]:
        """Return the next so many responses, or those that came before the connection was closed."""
        found = list[bytes]()
        async with asyncio.timeout(PATIENCE):
            while len(found) < count:
                self._changed.clear()
                head, end, rest = self.written.partition(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or b"0")
                if end and len(rest) >= length:
                    found.append(head + end + rest[:length])
                    self.written = rest[length:]
                elif self.is_closed:
                    break
                else:
                    await self._changed.wait()
        return found

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The addresses."""
        return {"sockname": ("127.0.0.1", 8000), "peername": ("127.0.0.1", 50_000)}.get(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep data."""
        self.written += data
        self._changed.set()

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self.is_closed

    def close(self) -> None:
        """Close it."""
        self.is_closed = True
        self._changed.set()

    abort = close

    def can_write_eof(self) -> bool:
        """As TCP."""
        return True

    def write_eof(self) -> None:
        """End what is written; the tests take the connection for closed."""
        self.close()

    def get_write_buffer_size(self) -> int:
        """Everything was written."""
        return 0

    def pause_reading(self) -> None:
        """Do nothing: a test sends what it wants to."""

    def resume_reading(self) -> None:
        """Do nothing."""


class Connections:
    """A server, and how many of its requests took the short path."""

    def __init__(self, app: Reopening, config: LimitedConfig, server: SignalledServer) -> None:
        self.app, self.config, self.server, self.short = app, config, server, 0
        if config.short_path is not None:
            begin = config.short_path.begin

            def counted(*arguments: Any) -> Any:
                found = begin(*arguments)
                self.short += found is not None
                return found

            config.short_path.begin = counted  # pyright: ignore[reportAttributeAccessIssue]

    def connect(self) -> Client:
        """A new connection."""
        return Client(self.config, self.server)


@asynccontextmanager
async def connections(make: Callable[[], Application], *, short: bool) -> AsyncGenerator[Connections]:
    """Run an application as `eventfold serve` does, with or without the short path."""
    app = Reopening(make)
    config = config_of(app, app.app.server.settings)
    if not short:
        config.short_path = None
    config.load()
    server = SignalledServer(config, app, lambda: None)
    server.server_state.default_headers = [DATE]
    async with app.lifespan():
        yield Connections(app, config, server)
