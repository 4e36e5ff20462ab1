"""The bank behind HTTP on plain ASGI, for any server: `uvicorn examples.web_async:app`.

Explained in docs/tutorial/async.md. A framework would replace the part below the line; what is above it stays.

    POST /transfers            {"source": "a-1", "target": "a-2", "amount": "50"}, with the headers
                               X-User and Idempotency-Key
    GET  /accounts/a-1         its balance
    GET  /accounts/a-1/events  what happens to it, as server-sent events, from Last-Event-ID on
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec

import eventfold as ef
from eventfold.errors import InvalidInput
from examples.bank import Account, InsufficientFunds, transfer

Answer = tuple[int, dict[str, Any]]


class Transfer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The command, as it comes in: decoding it is the check."""

    source: str
    target: str
    amount: Decimal

    def __post_init__(self) -> None:
        if not self.amount.is_finite():
            raise ValueError(f"{self.amount} is no amount")


@asynccontextmanager
async def lifespan(app: Any) -> AsyncGenerator[None, None]:
    """FastAPI(lifespan=lifespan), Starlette(lifespan=lifespan), Litestar(lifespan=[lifespan])."""
    async with ef.AsyncStore(os.environ.get("BANK", "bank.db")) as store:
        app.state.store = store
        yield


async def post_transfer(store: ef.AsyncStore, user: str, key: str, asked: Transfer) -> Answer:
    """Move money, once for each key of a user."""
    once = store.using(command_id=f"transfer:{user}:{key}", actor=user)
    try:
        done = await once.decide(transfer, Account(asked.source), Account(asked.target), amount=asked.amount)
    except InsufficientFunds as refused:
        return 422, {"error": str(refused)}
    except InvalidInput as mistaken:
        return 400, {"error": str(mistaken)}
    except ef.EventfoldError as error:  # busy, or the answer was lost: the request may be sent again
        return 503, {"error": str(error), "code": error.code}
    return 200, {"positions": list(done.positions), "balance": str(done.state(Account(asked.source)).balance)}


async def get_account(store: ef.AsyncStore, account: str) -> Answer:
    """What is in an account."""
    return 200, {"balance": str((await store.state(Account(account))).balance)}


async def changes(store: ef.AsyncStore, account: str, last_event_id: str = "") -> AsyncIterator[str]:
    """What happens to an account, for ever; the id of each message is where to go on."""
    query = ef.Query.of(tags=f"account:{account}")
    async with store.follow(query, after=last_event_id or 0) as follower:
        async for recorded in follower:
            yield f"id: {follower.cursor}\ndata: {recorded.type} {recorded.event.amount}\n\n"


# ------------------------------------------------------------------ what a framework would do instead

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class App:
    """The least of an ASGI application: a lifespan, three routes."""

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
        except ef.EventfoldError as error:  # two sentences: they belong in the server's log
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
                messages = changes(self.state.store, account, headers.get("last-event-id", ""))
                await _stream(receive, send, messages)
            case _:
                await _json(send, 404, {"error": "nothing is here"})

    async def _transfer(self, headers: dict[str, str], body: bytes) -> Answer:
        try:
            asked = msgspec.json.decode(body, type=Transfer)
            user, key = headers["x-user"], headers["idempotency-key"]
        except (KeyError, ValueError) as error:  # msgspec's errors are ValueErrors
            return 400, {"error": f"this is no transfer: {error}"}
        return await post_transfer(self.state.store, user, key, asked)


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

    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    forwarding = asyncio.create_task(forward())
    while (await receive())["type"] != "http.disconnect":
        pass  # the rest of a body that nobody has asked for
    forwarding.cancel()
    await asyncio.gather(forwarding, return_exceptions=True)


app = App()
