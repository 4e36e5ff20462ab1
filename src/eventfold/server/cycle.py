"""The head of a usual response, made with two searches instead of two for each header.

Knows: uvicorn's cycle of a request and its response. Does not know: connections, routes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE, RequestResponseCycle


class Cycle(RequestResponseCycle):
    """A request and its response. What is not usual (chunks, HEAD, the end of a connection) uvicorn does."""

    async def send(self, message: Any) -> None:
        """Send a message of the application."""
        if not self.response_started and message["type"] == "http.response.start":
            is_usual = self.keep_alive and not (self.disconnected or self.access_log or self.flow.write_paused)
            if is_usual and self._write_head(message["status"], [*self.default_headers, *message.get("headers", ())]):
                return
        await super().send(message)

    def _write_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> bool:
        """Write the head if it is a usual one; return whether it was."""
        head = head_of(status, headers)
        if head is None:
            return False
        self.response_started, self.waiting_for_100_continue = True, False
        self.chunked_encoding, self.expected_content_length = False, int(dict(headers)[b"content-length"])
        self.transport.write(head + b"\r\n")
        return True


def head_of(status: int, headers: list[tuple[bytes, bytes]]) -> bytes | None:
    """Return the head of a response without the empty line at its end; None unless it is a usual one with a length."""
    facts = dict(headers)
    if len(facts) < len(headers) or not _are_usual(tuple(facts)) or HEADER_VALUE_RE.search(b"".join(facts.values())):
        return None
    return b"".join((STATUS_LINE[status], *[b"%b: %b\r\n" % each for each in headers]))


@lru_cache(maxsize=256)  # handlers choose names: no request adds one
def _are_usual(names: tuple[bytes, ...]) -> bool:
    """Whether these names are valid, with a length, without chunks and without the end of the connection."""
    all_names = b"".join(names)
    return (
        b"content-length" in names
        and b"transfer-encoding" not in names
        and b"connection" not in names
        and all_names.islower()
        and HEADER_RE.search(all_names) is None
    )
