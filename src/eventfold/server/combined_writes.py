"""The head of a response and the first part of its body in one write: one system call and one packet instead of two.

Knows: transports of asyncio. Does not know: HTTP.
"""

from __future__ import annotations

import asyncio
from typing import Any


class CombinedWrites:
    """A transport for one response: the first write waits until the next one, or until the event loop goes on.

    What is written after the connection was closed is dropped: a client that leaves while its requests wait in turn is
    no error of the server.
    """

    __slots__ = ("_first", "_loop", "_scheduled", "_transport", "_waiting")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._first, self._waiting = True, b""
        self._scheduled: asyncio.Handle | None = None

    def write(self, data: bytes) -> None:
        """Write data: the first ones together with the next, all others at once."""
        if self._first:
            self._first, self._waiting = False, data
            self._scheduled = self._loop.call_soon(self.flush)
        elif self._waiting:
            self._waiting += data
            self.flush()
        elif not self._transport.is_closing():
            self._transport.write(data)

    def flush(self) -> None:
        """Write what waits."""
        if self._scheduled is not None:
            self._scheduled.cancel()
            self._scheduled = None
        if self._waiting:
            data, self._waiting = self._waiting, b""
            if not self._transport.is_closing():
                self._transport.write(data)

    def close(self) -> None:
        """Write what waits, and close."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
