"""The web applications among the examples, spoken to as a server would, on both modes."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from examples import web_async, web_sync
from examples.bank import Account, MoneyDeposited
from tests.support.servers.postgres import free_port

PATIENCE = 60.0  # seconds
ROOT = Path(__file__).parents[2]
Message = dict[str, Any]


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bank with 100 in account a-1."""
    path = str(tmp_path / "bank.db")
    monkeypatch.setenv("BANK", path)
    with ef.Store(path) as store:
        store.append(MoneyDeposited("a-1", Decimal(100)))
    web_sync.store.cache_clear()
    yield path
    if web_sync.store.cache_info().currsize:
        web_sync.store().close()
    web_sync.store.cache_clear()


def order(amount: object = "30", source: str = "a-1", target: str = "a-2") -> bytes:
    """The body of a transfer."""
    return json.dumps({"source": source, "target": target, "amount": amount}).encode()


class Client:
    """Speaks ASGI to an application, without a server."""

    def __init__(self) -> None:
        self.app = web_async.App()

    async def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
        """One request, and its answer."""
        said: list[Message] = []
        await self.app(self._scope(method, path, headers), _once({"type": "http.request", "body": body}), _into(said))
        return said[0]["status"], json.loads(b"".join(message.get("body", b"") for message in said[1:]))

    async def listen(self, path: str, messages: int, **headers: str) -> list[str]:
        """The first messages of a stream; then the connection is closed."""
        said: asyncio.Queue[Message] = asyncio.Queue()
        gone = asyncio.Event()

        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        answering = asyncio.create_task(self.app(self._scope("GET", path, headers), receive, said.put))
        assert (await said.get())["status"] == 200
        heard = [(await said.get())["body"].decode() for _ in range(messages)]
        gone.set()
        await answering
        return heard

    @staticmethod
    def _scope(method: str, path: str, headers: dict[str, str]) -> Message:
        named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        return {"type": "http", "method": method, "path": path, "headers": named}


def _once(message: Message) -> Callable[[], Awaitable[Message]]:
    async def receive() -> Message:
        return message

    return receive


def _into(said: list[Message]) -> Callable[[Message], Awaitable[None]]:
    async def send(message: Message) -> None:
        said.append(message)

    return send


def with_client(talk: Callable[[Client], Awaitable[Any]]) -> Any:
    """Start the application as a server does, talk to it, end it as a server does."""

    async def main() -> Any:
        client, said = Client(), asyncio.Queue[Message]()
        ending = asyncio.Event()
        turns = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> Message:
            message = next(turns)
            if message["type"] == "lifespan.shutdown":
                await ending.wait()
            return message

        living = asyncio.create_task(client.app({"type": "lifespan"}, receive, said.put))
        assert (await said.get())["type"] == "lifespan.startup.complete"
        try:
            return await asyncio.wait_for(talk(client), PATIENCE)
        finally:
            ending.set()
            await living
            assert (await said.get())["type"] == "lifespan.shutdown.complete"

    return asyncio.run(main())


def test_the_async_bank_transfers_once_for_each_key(bank: str) -> None:
    """Thirty-two requests at once under eight keys: eight transfers of 10, and every answer tells of one."""

    async def talk(client: Client) -> list[tuple[int, Any]]:
        asked = [
            client.request("POST", "/transfers", order("10"), x_user="ada", idempotency_key=f"k-{n % 8}")
            for n in range(32)
        ]
        answers = list(await asyncio.gather(*asked))
        assert await client.request("GET", "/accounts/a-1") == (200, {"balance": "20"})
        return answers

    answers = with_client(talk)
    assert {status for status, _ in answers} == {200}
    assert len({tuple(answer["positions"]) for _, answer in answers}) == 8
    with ef.Store(bank) as store:
        (last,) = store.read(backwards=True, limit=1)
        assert last.metadata.actor == "ada"


BAD = [
    (b"", 400),
    (b"[]", 400),
    (order("much"), 400),
    (order("NaN"), 400),
    (order(), 200),
    (order(30), 200),
    (order("-5"), 422),
    (order("1000"), 422),
    (order(source=""), 422),
    (order(target="x\ny"), 400),
]


@pytest.mark.parametrize(("body", "status"), BAD)
def test_both_banks_answer_bad_requests_alike(bank: str, body: bytes, status: int) -> None:
    """What cannot be understood is 400, what the rule refuses is 422; neither is ever an exception."""
    answer = with_client(lambda c: c.request("POST", "/transfers", body, x_user="ada", idempotency_key="k"))
    assert answer[0] == status, answer
    assert wsgi("POST", "/transfers", body, X_USER="ada", IDEMPOTENCY_KEY="k")[0] == status


def test_a_request_without_a_key_is_refused(bank: str) -> None:
    """A transfer that could not be recognised again is not made."""
    assert with_client(lambda c: c.request("POST", "/transfers", order(), x_user="ada"))[0] == 400
    assert wsgi("POST", "/transfers", order(), X_USER="ada")[0] == 400
    assert with_client(lambda c: c.request("GET", "/elsewhere"))[0] == 404
    assert wsgi("GET", "/elsewhere")[0] == 404


def test_a_stream_goes_on_where_it_stopped(bank: str) -> None:
    """The id of a message is where the next connection begins: nothing twice, nothing left out, live."""

    async def talk(client: Client) -> tuple[str, list[str]]:
        for key in ("k-1", "k-2"):
            await client.request("POST", "/transfers", order("10"), x_user="ada", idempotency_key=key)
        (first,) = await client.listen("/accounts/a-2/events", 1)
        seen = first.splitlines()[0].removeprefix("id: ")
        listening = asyncio.create_task(client.listen("/accounts/a-2/events", 2, last_event_id=seen))
        await client.request("POST", "/transfers", order("7"), x_user="ada", idempotency_key="k-3")
        return first, await listening

    first, rest = with_client(talk)
    assert [message.splitlines()[1] for message in (first, *rest)] == [
        "data: MoneyDeposited 10",
        "data: MoneyDeposited 10",
        "data: MoneyDeposited 7",
    ]


def test_a_stream_ends_when_the_server_is_stopped(bank: str) -> None:
    """By SIGTERM, which the server hears as well; also a stream that is opened afterwards."""
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))

    async def talk(client: Client) -> None:
        said: asyncio.Queue[Message] = asyncio.Queue()
        scope = client._scope("GET", "/accounts/a-1/events", {})  # pyright: ignore[reportPrivateUsage]

        async def receive() -> Message:
            await asyncio.Event().wait()  # the browser stays
            raise AssertionError

        for _ in range(2):
            answering = asyncio.create_task(client.app(scope, receive, said.put))
            assert (await said.get())["status"] == 200
            if not heard:
                assert b"MoneyDeposited" in (await said.get())["body"]
                signal.raise_signal(signal.SIGTERM)
            await answering
            assert said.get_nowait() == {"type": "http.response.body", "body": b""}
            assert said.empty()

    try:
        with_client(talk)
        assert heard == [signal.SIGTERM]
        signal.raise_signal(signal.SIGTERM)
        assert heard == [signal.SIGTERM] * 2, "the server's handler is back"
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_open_stream_does_not_hold_back_a_real_server(bank: str) -> None:
    """uvicorn with a listening browser stops at once on a signal, and the browser receives the end of the stream."""
    pytest.importorskip("uvicorn")
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "examples.web_async:app", "--port", str(port), "--log-level", "error"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, cwd=ROOT, env=environment) as server:
        try:
            with connected(port, server) as browser:
                browser.sendall(b"GET /accounts/a-1/events HTTP/1.1\r\nHost: here\r\n\r\n")
                heard = b""
                while b"data: MoneyDeposited 100" not in heard:
                    heard += browser.recv(4096)
                server.terminate()
                server.wait(PATIENCE)
                assert browser.recv(4096).endswith(b"0\r\n\r\n"), "the end of an answer in chunks"
        finally:
            server.kill()


def connected(port: int, server: subprocess.Popen[bytes]) -> socket.socket:
    """A connection to the server, as soon as it listens."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), PATIENCE)
        time.sleep(0.02)
    raise AssertionError("the server does not listen")


def test_a_server_hears_why_it_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that cannot be opened fails the start-up in two sentences, not with a traceback."""
    monkeypatch.setenv("BANK", str(tmp_path / "missing" / "bank.db"))
    said: list[Message] = []
    asyncio.run(web_async.App()({"type": "lifespan"}, _once({"type": "lifespan.startup"}), _into(said)))
    assert said[0]["type"] == "lifespan.startup.failed"
    assert "create the folder first" in said[0]["message"]


def wsgi(method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
    """One request to the application for threads."""
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "CONTENT_LENGTH": str(len(body))}
    environ |= {f"HTTP_{name}": value for name, value in headers.items()}
    statuses: list[str] = []
    answer = web_sync.app(environ | {"wsgi.input": io.BytesIO(body)}, lambda status, _: statuses.append(status))
    return int(statuses[0].split()[0]), json.loads(b"".join(answer))


def test_the_sync_bank_transfers_once_for_each_key(bank: str) -> None:
    """The same from 32 threads; and the request's context stands in what it wrote."""

    def ask(number: int) -> tuple[int, Any]:
        return wsgi(
            "POST",
            "/transfers",
            order("10"),
            X_USER="ada",
            IDEMPOTENCY_KEY=f"k-{number % 8}",
            X_REQUEST_ID=f"r-{number}",
        )

    with ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(ask, range(32)))
    assert {status for status, _ in answers} == {200}
    assert len({tuple(answer["positions"]) for _, answer in answers}) == 8
    assert wsgi("GET", "/accounts/a-1") == (200, {"balance": "20"})
    (last,) = web_sync.store().read(backwards=True, limit=1)
    assert (last.metadata.actor, (last.metadata.correlation_id or "")[:2]) == ("ada", "r-")
    assert web_sync.store().state(Account("a-2")).balance == 80
