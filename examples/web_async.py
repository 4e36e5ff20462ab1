"""The bank behind HTTP on plain ASGI, for any server: `uvicorn examples.web_async:app`.

Explained in docs/tutorial/async.md. With a framework, the code below the line is not needed; the code above it stays.

    POST /transfers            {"source": "a-1", "target": "a-2", "amount": "50"}, with the headers
                               X-User and Idempotency-Key
    GET  /accounts/a-1         its balance
    GET  /accounts/a-1/events  what happens to it, as server-sent events, from Last-Event-ID on
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from decimal import Decimal
from types import FrameType, SimpleNamespace
from typing import Any

import msgspec

import eventfold as ef
from eventfold.errors import InvalidInput
from examples.bank import Account, InsufficientFunds, transfer

Answer = tuple[int, dict[str, Any]]


class Transfer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The command in the body of a request. Decoding validates it."""

    source: str
    target: str
    amount: Decimal

    def __post_init__(self) -> None:
        if not self.amount.is_finite():
            raise ValueError(f"{self.amount} is not an amount")


class Streams:
    """The open streams of this process. A server that stops waits for them, so they are ended first."""

    def __init__(self) -> None:
        self._ended = False
        self._closes: set[Callable[[], None]] = set()

    @contextmanager
    def held(self, close: Callable[[], None]) -> Generator[None]:
        """Keep `close`, which ends a stream, in the list of open streams within the `with` block."""
        self._closes.add(close)
        try:
            if self._ended:
                close()
            yield
        finally:
            self._closes.discard(close)

    def end(self) -> None:
        """End the open streams, and later ones as soon as they are opened."""
        self._ended = True
        for close in list(self._closes):
            close()

    @contextmanager
    def ended_by_signals(self) -> Generator[None]:
        """Within the `with` block, SIGTERM and Ctrl-C end the streams and then call the handlers of the server."""
        if threading.current_thread() is not threading.main_thread():  # as in a test client
            yield
            return
        loop = asyncio.get_running_loop()
        servers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def heard(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self.end)
            server = servers[signal.Signals(number)]
            if callable(server):
                server(number, frame)
            else:  # a default handler: raise the signal again
                signal.signal(number, server)
                signal.raise_signal(number)

        for number in servers:
            signal.signal(number, heard)
        try:
            yield
        finally:
            for number, server in servers.items():
                signal.signal(number, server)


@asynccontextmanager
async def lifespan(app: Any) -> AsyncGenerator[None, None]:
    """Open and close the store: FastAPI(lifespan=lifespan), the same for Starlette, Litestar(lifespan=[lifespan])."""
    async with ef.AsyncStore(os.environ.get("BANK", "bank.db")) as store:
        app.state.store, app.state.streams = store, Streams()
        with app.state.streams.ended_by_signals():
            yield


async def post_transfer(store: ef.AsyncStore, user: str, key: str, command: Transfer) -> Answer:
    """Move money, once for each key of a user."""
    once = store.using(command_id=f"transfer:{user}:{key}", actor=user)
    try:
        done = await once.decide(transfer, Account(command.source), Account(command.target), amount=command.amount)
    except InsufficientFunds as refused:
        return 422, {"error": str(refused)}
    except InvalidInput as mistaken:
        return 400, {"error": str(mistaken)}
    except ef.EventfoldError as error:  # busy, or the outcome is unknown: the request may be sent again
        return 503, {"error": str(error), "code": error.code}
    return 200, {"positions": list(done.positions), "balance": str(done.state(Account(command.source)).balance)}


async def get_account(store: ef.AsyncStore, account: str) -> Answer:
    """Return the balance of an account."""
    return 200, {"balance": str((await store.state(Account(account))).balance)}


async def changes(
    store: ef.AsyncStore, streams: Streams, account: str, last_event_id: str = ""
) -> AsyncGenerator[str, None]:
    """Yield the events of an account until the server stops. The id of each message is the cursor to resume at."""
    query = ef.Query.of(tags=f"account:{account}")
    async with store.follow(query, after=last_event_id or 0) as follower:
        with streams.held(follower.close):
            async for recorded in follower:
                yield f"id: {follower.cursor}\ndata: {recorded.type} {recorded.event.amount}\n\n"


# ------------------------------------------------------------------ the work of a framework

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class App:
    """A minimal ASGI application: a lifespan and three routes."""

    def __init__(self) -> None:
        self.state = SimpleNamespace()
        self._open: AbstractAsyncContextManager[None] = lifespan(self)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()  # lifespan.startup
        try:
            await self._open.__aenter__()
        except ef.EventfoldError as error:  # its two sentences go to the server's log
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()  # lifespan.shutdown
        await self._open.__aexit__(None, None, None)
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        match [scope["method"], *scope["path"].strip("/").split("/")]:
            case ["POST", "transfers"]:
                await _json(send, *await self._transfer(headers, await _body(receive)))
            case ["GET", "accounts", account]:
                await _json(send, *await get_account(self.state.store, account))
            case ["GET", "accounts", account, "events"]:
                begin = headers.get("last-event-id", "")
                messages = changes(self.state.store, self.state.streams, account, begin)
                await _stream(receive, send, messages)
            case _:
                await _json(send, 404, {"error": "not found"})

    async def _transfer(self, headers: dict[str, str], body: bytes) -> Answer:
        try:
            command = msgspec.json.decode(body, type=Transfer)
            user, key = headers["x-user"], headers["idempotency-key"]
        except (KeyError, ValueError) as error:  # msgspec's errors are ValueErrors
            return 400, {"error": f"invalid transfer: {error}"}
        return await post_transfer(self.state.store, user, key, command)


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


async def _json(send: Send, status: int, answer: dict[str, Any]) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


async def _stream(receive: Receive, send: Send, messages: AsyncIterator[str]) -> None:
    async def forward() -> None:
        async for message in messages:
            await send({"type": "http.response.body", "body": message.encode(), "more_body": True})

    async def left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass  # a further part of the body, which is not used

    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    forwarding, leaving = asyncio.create_task(forward()), asyncio.create_task(left())
    await asyncio.wait((forwarding, leaving), return_when=asyncio.FIRST_COMPLETED)
    ended = forwarding.done() and forwarding.exception() is None
    forwarding.cancel()
    leaving.cancel()
    await asyncio.gather(forwarding, leaving, return_exceptions=True)
    if ended:
        await send({"type": "http.response.body", "body": b""})


app = App()
