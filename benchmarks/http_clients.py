"""Clients of a server in processes of their own: appenders, readers, followers, and one that asks for its health.

Knows: enough HTTP/1.1 to send ready requests over kept connections and to read their answers. Does not know: figures.
A client of Python's usual kind takes more of a core than the server does, so that it would be measured instead.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.child import Child
from benchmarks.peers import package
from benchmarks.peers import payload_of as umadb_payload
from benchmarks.traffic import TYPE, Scan, Traffic

DRAWN = 20_000  # events that each client draws


class Connected:
    """One kept connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self._reader, self._writer, self._host = reader, writer, host

    @classmethod
    async def to(cls, url: str) -> Connected:
        """Connect to http://HOST:PORT."""
        host, _, port = url.removeprefix("http://").rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)), f"{host}:{port}")

    def send(self, method: str, path: str, body: bytes = b"", headers: str = "") -> None:
        """Send a request with a body of JSON."""
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\n{headers}"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self._writer.write(head.encode() + b"\r\n" + body)

    async def head(self) -> tuple[int, bytes]:
        """Return the status and the headers of the next answer."""
        text = await self._reader.readuntil(b"\r\n\r\n")
        return int(text[9:12]), text.lower()

    async def answer(self) -> tuple[int, bytes]:
        """Return the status and the body of the next answer."""
        status, headers = await self.head()
        at = headers.index(b"content-length:") + 15
        return status, await self._reader.readexactly(int(headers[at : headers.index(b"\r\n", at)]))

    async def some(self) -> bytes:
        """Return what came of a stream; nothing at its end."""
        return await self._reader.read(262_144)

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


def scan_json(each: Scan, parcel: str | None = None) -> bytes:
    """Return an event as the server reads it: with data and tags."""
    name = parcel or each.parcel
    data = umadb_payload(each).decode()
    return f'{{"type":"{TYPE}","tags":["depot:{each.depot}","parcel:{name}"],"data":{data}}}'.encode()


def start(function: Callable[..., None], *arguments: Any, processes: int = 1) -> list[Child]:
    """Start clients, and wait until they are connected."""
    children = [Child(function, *arguments) for _ in range(processes)]
    for child in children:
        child.answer()
    return children


def turn(children: list[Child], seconds: float) -> float:
    """Let clients work for so many seconds. Returns how much they did per second, together."""
    for child in children:
        child.send(seconds)
    return sum(child.answer()[0] for child in children)


def details(children: list[Child], seconds: float) -> list[Any]:
    """Let clients work for so many seconds. Returns what each one says besides its rate."""
    for child in children:
        child.send(seconds)
    return [child.answer()[1] for child in children]


def end(children: list[Child]) -> None:
    """End clients."""
    for child in children:
        child.send(None)
        child.end()


def _serve_turns(pipe: Connection, work: Callable[[float], Coroutine[Any, Any, tuple[float, Any]]]) -> None:
    """Answer to each number of seconds with the result of `work`, until None comes."""
    pipe.send("ready")
    while (seconds := pipe.recv()) is not None:
        pipe.send(_runner.run(work(seconds)))


_runner: asyncio.Runner


def _begin(pipe: Connection, prepare: Coroutine[Any, Any, Callable[[float], Coroutine[Any, Any, Any]]]) -> None:
    global _runner
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as _runner:
        _serve_turns(pipe, _runner.run(prepare))


def appender(pipe: Connection, url: str, stored: int, connections: int, conditional: bool) -> None:
    """Append one event a request over each connection. With `conditional` each connection owns a parcel."""
    _begin(pipe, _appender(url, stored, connections, conditional))


async def _appender(url: str, stored: int, connections: int, conditional: bool) -> Any:
    traffic, numbers = Traffic(stored, DRAWN), itertools.count()
    connected = [await Connected.to(url) for _ in range(connections)]
    parcels = [f"owner-{id(each)}-{next(numbers)}" for each in connected]
    places = [0] * connections

    async def one(number: int, ends: float) -> int:
        connection, done = connected[number], 0
        while time.perf_counter() < ends:
            if conditional:
                parcel = parcels[number]
                unless = f'{{"items":[{{"types":["{TYPE}"],"tags":["parcel:{parcel}"]}}]}}'
                event = scan_json(traffic.one(), parcel)
                body = b'{"events":[%b],"unless":%b,"after":%d}' % (event, unless.encode(), places[number])
            else:
                body = b'{"events":[%b]}' % scan_json(traffic.one())
            connection.send("POST", "/v1/events", body)
            status, answer = await connection.answer()
            if status != 201:
                raise RuntimeError(f"{status}: {answer[:300]!r}")
            if conditional:
                places[number] = json.loads(answer)["last"]
            done += 1
        return done

    async def work(seconds: float) -> tuple[float, None]:
        began = time.perf_counter()
        done = await asyncio.gather(*(one(number, began + seconds) for number in range(connections)))
        return sum(done) / (time.perf_counter() - began), None

    return work


def paced_appender(pipe: Connection, url: str, stored: int, rate: int) -> None:
    """Append so many events per second, one a request. The data's `weight` is the time of sending in monotonic µs."""
    _begin(pipe, _paced_appender(url, stored, rate))


async def _paced_appender(url: str, stored: int, rate: int) -> Any:
    traffic = Traffic(stored, DRAWN)
    free = [await Connected.to(url) for _ in range(32)]

    async def one(connection: Connected) -> None:
        event = traffic.one()
        sent = time.monotonic_ns() // 1_000
        data = f'{{"parcel":"{event.parcel}","sent":{sent}}}'
        body = f'{{"events":[{{"type":"{TYPE}","tags":["parcel:{event.parcel}"],"data":{data}}}]}}'
        connection.send("POST", "/v1/events", body.encode())
        status, answer = await connection.answer()
        if status != 201:
            raise RuntimeError(f"{status}: {answer[:300]!r}")
        free.append(connection)

    async def work(seconds: float) -> tuple[float, None]:
        began, done, tasks = time.perf_counter(), 0, set[asyncio.Task[None]]()
        while (now := time.perf_counter()) < began + seconds:
            due = int((now - began) * rate)
            while done < due and free:
                task = asyncio.create_task(one(free.pop()))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                done += 1
            await asyncio.sleep(0.002)
        await asyncio.gather(*tasks)
        return done / (time.perf_counter() - began), None

    return work


def reader(pipe: Connection, url: str) -> None:
    """Read the whole log as NDJSON again and again, and count its lines."""
    _begin(pipe, _reader(url))


async def _reader(url: str) -> Any:
    async def work(seconds: float) -> tuple[float, None]:
        began, lines = time.perf_counter(), 0
        while time.perf_counter() < began + seconds:
            connection = await Connected.to(url)
            connection.send("POST", "/v1/events/query", b"{}", "Accept: application/x-ndjson\r\nConnection: close\r\n")
            status, _ = await connection.head()
            if status != 200:
                raise RuntimeError(f"the stream has the status {status}")
            while chunk := await connection.some():
                lines += chunk.count(b"}\n")
            connection.close()
        return lines / (time.perf_counter() - began), None

    return work


def followers(pipe: Connection, url: str, count: int, timed: int) -> None:
    """Follow the log over so many connections, `timed` of which report the milliseconds from sending to delivery."""
    _begin(pipe, _followers(url, count, timed))


async def _followers(url: str, count: int, timed: int) -> Any:
    delivered, delays, streams = 0, list[float](), set[asyncio.Task[None]]()

    async def follow(is_timed: bool) -> None:
        nonlocal delivered
        connection = await Connected.to(url)
        connection.send("GET", "/v1/follow?from=now", headers="Accept: text/event-stream\r\n")
        await connection.head()
        ready.release()
        rest = b""
        while chunk := await connection.some():
            delivered += chunk.count(b"\nevent: event\n")
            if is_timed:
                now, rest = time.monotonic_ns() / 1_000, rest + chunk
                *frames, rest = rest.split(b"\n\n")
                for frame in frames:
                    at = frame.find(b'"sent":')
                    if at > 0:
                        delays.append((now - int(frame[at + 7 : frame.index(b"}", at)])) / 1_000)

    ready = asyncio.Semaphore(0)
    for number in range(count):
        streams.add(asyncio.create_task(follow(number < timed)))
        await ready.acquire()

    async def work(seconds: float) -> tuple[float, list[float]]:
        nonlocal delivered
        delivered = 0
        delays.clear()
        began = time.perf_counter()
        await asyncio.sleep(seconds)
        return delivered / (time.perf_counter() - began), list(delays)

    return work


def health(pipe: Connection, url: str) -> None:
    """Ask for the health of the server every 10 ms; report the milliseconds of each answer."""
    _begin(pipe, _health(url))


async def _health(url: str) -> Any:
    connection = await Connected.to(url)

    async def work(seconds: float) -> tuple[float, list[float]]:
        began, waits = time.perf_counter(), list[float]()
        while (now := time.perf_counter()) < began + seconds:
            connection.send("GET", "/healthz")
            await connection.answer()
            waits.append((time.perf_counter() - now) * 1_000)
            await asyncio.sleep(0.01)
        return len(waits) / seconds, waits

    return work


def scraper(pipe: Connection, url: str, pause: float) -> None:
    """Read /metrics so many times; report the milliseconds of each answer, the bytes of the last, and health."""
    pipe.send("ready")
    with asyncio.Runner() as runner:
        while (count := pipe.recv()) is not None:
            pipe.send(runner.run(_scrape(url, pause, count)))


async def _scrape(url: str, pause: float, count: int) -> tuple[list[float], int, list[float]]:
    connection, waits, body, health = await Connected.to(url), list[float](), b"", list[float]()
    for _ in range(count):
        began = time.perf_counter()
        connection.send("GET", "/healthz")
        await connection.answer()
        health.append((time.perf_counter() - began) * 1_000)
        began = time.perf_counter()
        connection.send("GET", "/metrics")
        status, body = await connection.answer()
        waits.append((time.perf_counter() - began) * 1_000)
        if status != 200:
            raise RuntimeError(f"{status}: {body[:300]!r}")
        await asyncio.sleep(pause)
    connection.close()
    return waits, len(body), health


def umadb_appender(pipe: Connection, url: str, stored: int, threads: int) -> None:
    """Append one event a call from so many threads, by umadb's own client."""
    from concurrent.futures import ThreadPoolExecutor
    from uuid import uuid4

    umadb = package("umadb")
    client, traffic = umadb.Client(url), Traffic(stored, DRAWN)

    def one(ends: float) -> int:
        done = 0
        while time.perf_counter() < ends:
            each = traffic.one()
            tags = [f"parcel:{each.parcel}", f"depot:{each.depot}"]
            client.append([umadb.Event(TYPE, umadb_payload(each), tags, uuid4())])
            done += 1
        return done

    with ThreadPoolExecutor(threads) as pool:
        pipe.send("ready")
        while (seconds := pipe.recv()) is not None:
            began = time.perf_counter()
            done = sum(pool.map(one, [began + seconds] * threads))
            pipe.send((done / (time.perf_counter() - began), None))
