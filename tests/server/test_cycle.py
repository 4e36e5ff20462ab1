"""The head of a response: as uvicorn writes it, and with its guard against values that would begin another header."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from eventfold.server.cycle import Cycle


class Written:
    """A transport, and a connection that is ready: what is written is kept."""

    write_paused = False

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        """Keep data."""
        self.data += data

    def close(self) -> None:
        """Keep that it was closed."""
        self.data += b"<closed>"


def respond(kind: type[RequestResponseCycle], headers: list[tuple[bytes, bytes]], **changed: Any) -> bytes:
    """Return what is written for a response of two bytes with these headers."""

    async def main() -> bytes:
        written = Written()
        named: dict[str, Any] = {
            "scope": {"type": "http", "method": "GET", "http_version": "1.1"},
            "transport": written,
            "flow": written,
            "default_headers": [(b"date", b"now")],
            "message_event": asyncio.Event(),
            "on_response": lambda: None,
            "keep_alive": True,
            "access_log": False,
            "expect_100_continue": False,
        }
        cycle = kind(logger=cast("Any", None), access_logger=cast("Any", None), **(named | changed))
        await cycle.send({"type": "http.response.start", "status": 201, "headers": headers})
        await cycle.send({"type": "http.response.body", "body": b"{}"})
        return written.data

    return asyncio.run(main())


LENGTH = (b"content-length", b"2")
HEAD: dict[str, Any] = {"scope": {"type": "http", "method": "HEAD", "http_version": "1.1"}}


@pytest.mark.parametrize(
    ("headers", "changed"),
    [
        ([LENGTH, (b"x-a", b"1\t2"), (b"x-b", b"\xe9")], {}),
        ([LENGTH, (b"connection", b"close")], {}),
        ([(b"transfer-encoding", b"chunked")], {}),
        ([], {}),
        ([(b"Content-Length", b"2")], {}),
        ([LENGTH, (b"set-cookie", b"a"), (b"set-cookie", b"b")], {}),
        ([LENGTH], {"keep_alive": False}),
        ([LENGTH], HEAD),
    ],
)
def test_the_same_bytes_are_written_as_by_uvicorn(headers: list[tuple[bytes, bytes]], changed: dict[str, Any]) -> None:
    """Usual heads, and those that are left to it."""
    assert respond(Cycle, headers, **changed) == respond(RequestResponseCycle, headers, **changed)


@pytest.mark.parametrize("header", [(b"x-a", b"1\r\nx-b: 2"), (b"x-a", b"\0"), (b"x a", b"1"), (b"x-a\r\n", b"1")])
def test_a_header_that_would_begin_another_one_is_refused(header: tuple[bytes, bytes]) -> None:
    """Nothing of the response is written then."""
    with pytest.raises(RuntimeError, match="Invalid HTTP header"):
        respond(Cycle, [LENGTH, header])
