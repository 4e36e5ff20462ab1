"""The head of a usual response, written with two searches instead of two for each header.

Knows: uvicorn's cycle of a request and its response. Does not know: connections, routes.
"""

from __future__ import annotations

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
        facts = dict(headers)
        names = b"".join(facts)
        if (
            len(facts) < len(headers)
            or b"content-length" not in facts
            or b"transfer-encoding" in facts
            or b"connection" in facts
            or not names.islower()
            or HEADER_RE.search(names)
            or HEADER_VALUE_RE.search(b"".join(facts.values()))
        ):
            return False
        self.response_started, self.waiting_for_100_continue = True, False
        self.chunked_encoding, self.expected_content_length = False, int(facts[b"content-length"])
        lines = [b"%b: %b\r\n" % each for each in headers]
        self.transport.write(b"".join((STATUS_LINE[status], *lines, b"\r\n")))
        return True
