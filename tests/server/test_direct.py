"""Calls whose path names a route pass no layer of Starlette: nothing that a layer does may be missing for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import eventfold as ef
from eventfold.server import application
from eventfold.server.direct import call_directly
from eventfold.server.exchange import DEFAULT_HEADERS
from eventfold.server.pieces import PIECE_BYTES
from eventfold.server.request import IndexedHeaders

RAW = [(b"host", b"a"), (b"x-twice", b"first"), (b"x-twice", b"second"), (b"x-latin", b"\xe9"), (b"x-empty", b"")]


class Fixed:
    """An endpoint with one response."""

    def __init__(self, response: Response) -> None:
        self._response = response

    async def answer(self, request: Request) -> Response:
        """Return it."""
        return self._response


def call(response: Response, sent: list[Message]) -> None:
    """Call an endpoint with this response directly, and note what is sent."""

    async def receive() -> Message:
        await asyncio.Event().wait()  # no more comes from the client
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "asgi": {"spec_version": "2.4"},
        "headers": [(b"x-request-id", b"call-7")],
    }
    asyncio.run(
        call_directly(Fixed(response), scope, receive, send, lambda request, error: PlainTextResponse("failed", 500))
    )


def lines(count: int, error: Exception | None = None) -> StreamingResponse:
    """A stream of so many lines, and then an error if there is one."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b"line\n"
        if error is not None:
            raise error

    return StreamingResponse(chunks())


@pytest.mark.parametrize("name", ["host", "X-Twice", "x-twice", "X-LATIN", "x-empty", "x-none"])
def test_headers_are_found_as_starlette_finds_them(name: str) -> None:
    """In any case of letters, the first of a repeated one, in Latin-1."""
    ours, theirs = IndexedHeaders(RAW), Headers(raw=RAW)
    assert ours.get(name) == theirs.get(name)
    assert ours.get(name, "default") == theirs.get(name, "default")
    assert (name in ours) == (name in theirs)
    assert ours.getlist(name) == theirs.getlist(name)
    if name in theirs:
        assert ours[name] == theirs[name]
    else:
        with pytest.raises(KeyError):
            _ = ours[name]


@pytest.mark.parametrize("response", [Response(b"x"), lines(3), Response(b"x" * (3 * PIECE_BYTES + 1))])
def test_every_kind_of_response_has_the_id_and_the_headers(response: Response) -> None:
    """A body in one piece, a stream, and a body that is sent in pieces."""
    sent = list[Message]()
    call(response, sent)
    headers = Headers(raw=sent[0]["headers"])
    assert headers["X-Request-Id"] == "call-7"
    assert {name: headers[name] for name in DEFAULT_HEADERS} == DEFAULT_HEADERS
    assert all(len(message["body"]) <= PIECE_BYTES for message in sent[1:])
    assert [message.get("more_body", False) for message in sent[1:]][-1] is False


def test_a_header_that_a_response_sets_itself_is_not_added() -> None:
    """So a page keeps its own policy."""
    sent = list[Message]()
    call(Response(b"", headers={"Cache-Control": "max-age=60"}), sent)
    assert Headers(raw=sent[0]["headers"]).getlist("Cache-Control") == ["max-age=60"]


def test_what_is_to_be_done_after_a_response_is_done() -> None:
    """Starlette calls it a background task."""
    done = list[str]()

    async def after() -> None:
        done.append("after")

    response = Response(b"x")
    response.background = after  # type: ignore[assignment]
    call(response, [])
    assert done == ["after"]


def test_a_stream_that_fails_before_it_begins_becomes_a_response() -> None:
    """The error is raised too, as Starlette does, so that it is logged."""

    class Failing(Response):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            raise OSError("no file")

    sent = list[Message]()
    with pytest.raises(OSError, match="no file"):
        call(Failing(b""), sent)
    assert sent[0]["status"] == 500
    sent.clear()
    with pytest.raises(ValueError, match="in the middle"):
        call(lines(2, ValueError("in the middle")), sent)
    assert sent[0]["status"] == 200


def test_a_middleware_that_is_added_is_called() -> None:
    """An application that embeds this one may add its own."""

    class Marking:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            async def marked(message: Message) -> None:
                if message["type"] == "http.response.start":
                    message["headers"].append((b"x-marked", b"yes"))
                await send(message)

            await self.app(scope, receive, marked)

    plain, marking = application("memory:"), application("memory:")
    marking.add_middleware(Marking)
    for app, expected in ((plain, None), (marking, "yes")):
        with TestClient(app) as client:
            assert client.get("/healthz").headers.get("x-marked") == expected
    with pytest.raises(RuntimeError):
        plain.add_middleware(Marking)  # it has answered: from then on it could be left out


def test_a_call_is_logged_with_its_route_and_status(caplog: pytest.LogCaptureFixture) -> None:
    """Also one that is refused."""
    caplog.set_level(logging.INFO, "eventfold.server.requests")
    with TestClient(application("memory:")) as client:
        client.get("/healthz")
        client.post("/v1/events", content=b"{")
    fields: list[dict[str, Any]] = [record.fields for record in caplog.records if hasattr(record, "fields")]  # type: ignore[attr-defined]
    assert [(each["route"], each["status"]) for each in fields] == [("/healthz", 200), ("/events", 415)]


def test_an_application_that_was_started_answers_directly() -> None:
    """Its start is a message, too, and comes before the first request."""
    app = application(ef.AsyncStore("memory:"))
    scope: Scope = {"type": "http", "method": "GET", "path": "/healthz", "headers": []}
    with TestClient(app):
        assert app.endpoint_of(scope) is not None
