"""kill -9 of `eventfold serve` while clients append over HTTP, lose replies and repeat: nothing lost, nothing doubled.

Knows: the JSON of an append over HTTP, processes. Does not know: how the server commits.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import eventfold as ef
from soak.rounds import Round
from tests.server.serving import PATIENCE, Served

CLIENTS = 16
KILLS = 6  # in a round
REPEAT_SECONDS = 0.02  # between two attempts of one append
ACKNOWLEDGED_BETWEEN_KILLS = (20, 200)


@dataclass
class Load:
    """Clients of one server: what they asked for, and what was acknowledged, by the name of each append."""

    port: int
    seed: str
    asked: dict[str, int] = field(default_factory=dict[str, int])  # the number of its events
    acknowledged: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    problems: list[str] = field(default_factory=list[str])
    counts: Counter[str] = field(default_factory=Counter[str])
    ended: bool = False

    async def client(self, number: int) -> None:
        """Append one after the other, each until it is acknowledged; some replies are not waited for."""
        dice, connection = random.Random(f"{self.seed}/{number}"), Connection(self.port)
        count = 0
        while not self.ended:
            count += 1
            name = f"{number}-{count}"
            body, size = append_of(dice, name)
            self.asked[name] = size
            await self._repeat(connection, dice, name, body)
        await connection.close()

    async def _repeat(self, connection: Connection, dice: random.Random, name: str, body: bytes) -> None:
        gives_up = time.monotonic() + 3 * PATIENCE
        while time.monotonic() < gives_up:
            try:
                if dice.random() < 0.05:
                    await connection.send(body)
                    await connection.close()  # the reply is lost
                    self.counts["replies lost"] += 1
                    continue
                status, answer = await connection.ask(body)
            except (OSError, EOFError):
                self.counts["attempts without a reply"] += 1
                await connection.close()
                await asyncio.sleep(REPEAT_SECONDS)
                continue
            if status in (200, 201):
                self.acknowledged[name] = answer
                self.counts["repeated"] += status == 200
                return
            if status != 503:
                self.problems.append(f"append {name} was answered with {status}: {answer}")
                return
            await asyncio.sleep(REPEAT_SECONDS)
        self.problems.append(f"append {name} was not acknowledged in time")


def append_of(dice: random.Random, name: str) -> tuple[bytes, int]:
    """An append that may be repeated, as a request's body, and the number of its events: by ids, or by a key.

    Some have a condition that their own events would break: a repetition must be recognised before it is judged.
    """
    size = dice.choice((1, 1, 1, 2, 5))
    tag = f"append:{name}"
    events: list[dict[str, Any]] = [{"type": "Noted", "data": {"of": name, "n": n}, "tags": [tag]} for n in range(size)]
    asked: dict[str, Any] = {"events": events}
    if dice.random() < 0.5:
        for event in events:
            event["id"] = str(UUID(int=dice.getrandbits(128)))
    else:
        asked["key"] = f"key-{name}"
    if dice.random() < 0.4:
        asked["unless"] = {"items": [{"tags": [tag]}]}
    return json.dumps(asked).encode(), size


class Connection:
    """A connection that is opened when it is needed, for one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, body: bytes) -> asyncio.StreamReader:
        """Send an append."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        head = f"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        await writer.drain()
        return reader

    async def ask(self, body: bytes) -> tuple[int, dict[str, Any]]:
        """Send an append and return the status and the JSON of the response. Raises OSError, EOFError."""
        reader = await self.send(body)
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin1").split("\r\n")
        length = next(int(line.partition(":")[2]) for line in lines if line.lower().startswith("content-length:"))
        return int(lines[0].split()[1]), json.loads(await reader.readexactly(length))

    async def close(self) -> None:
        """Close it without waiting for a reply."""
        if self._streams is not None:
            self._streams[1].close()
            with contextlib.suppress(OSError):
                await self._streams[1].wait_closed()
            self._streams = None


async def kill_under_load(folder: Path, store: str, seed: str, kills: int) -> Load:
    """Run clients against a server that is killed and started again on the same port; they end when all is answered."""
    dice = random.Random(seed)
    words = (store, "--accept-unknown")
    served = await asyncio.to_thread(Served, folder, *words, EVENTFOLD_LOGS__REQUESTS="false")
    load = Load(served.port, seed)
    clients = [asyncio.create_task(load.client(number)) for number in range(CLIENTS)]
    try:
        for _ in range(kills):
            await _progress(load, clients, dice.randrange(*ACKNOWLEDGED_BETWEEN_KILLS))
            await asyncio.to_thread(served.stop, signal.SIGKILL)
            load.counts["kills"] += 1
            served.__exit__()
            served = await asyncio.to_thread(Served, folder, *words, port=load.port, EVENTFOLD_LOGS__REQUESTS="false")
        await _progress(load, clients, 20)
        load.ended = True
        await asyncio.wait_for(asyncio.gather(*clients), 4 * PATIENCE)
        code = await asyncio.to_thread(served.stop)
        if code:
            load.problems.append(f"the server ended with {code} after SIGTERM")
    finally:
        for client in clients:
            client.cancel()
        served.__exit__()
    return load


async def _progress(load: Load, clients: list[asyncio.Task[None]], appends: int) -> None:
    """Wait until so many more appends were acknowledged."""
    goal, gives_up = len(load.acknowledged) + appends, time.monotonic() + PATIENCE
    while len(load.acknowledged) < goal:
        for client in clients:
            if client.done():
                client.result()
        if time.monotonic() > gives_up:
            load.problems.append("no append is acknowledged any more")
            return
        await asyncio.sleep(0.005)


def violations(load: Load, store: str) -> list[str]:
    """What the log has too much or too little of, compared with what was asked and acknowledged."""
    found = list(load.problems)
    positions: dict[str, list[int]] = {}
    ids: Counter[UUID] = Counter()
    with ef.Store(store, create=False) as opened:
        for event in opened.read(raw=True):
            name = json.loads(event.stored.data)["of"]
            positions.setdefault(name, []).append(event.position)
            ids[event.id] += 1
    for name, size in load.asked.items():
        there, receipt = positions.pop(name, []), load.acknowledged.get(name)
        if receipt is None:
            if len(there) not in (0, size):
                found.append(f"append {name} is in the log in part: {there}")
        elif there != list(range(receipt["first"], receipt["last"] + 1)):
            found.append(f"append {name} was acknowledged at {receipt['first']}, and is at {there}")
    found += [f"the log has append {name}, which was not asked for" for name in positions]
    found += [f"the log has the id {id} {count} times" for id, count in ids.items() if count > 1]
    return found


def sqlite(turn: Round) -> None:
    """Kill a server of a file repeatedly; then compare the log with what was acknowledged."""
    _kill(turn, str(turn.folder / "store.db"))


def postgres(turn: Round) -> None:
    """Kill a server of a schema of PostgreSQL repeatedly; then compare the log with what was acknowledged."""
    _kill(turn, turn.schema())


def _kill(turn: Round, store: str) -> None:
    ef.Store(store).close()
    load = asyncio.run(kill_under_load(turn.folder, store, turn.seed, KILLS))
    for name, count in load.counts.items():
        turn.count(name, count)
    turn.count("events", sum(load.asked[name] for name in load.acknowledged))
    for problem in violations(load, store):
        turn.findings.add(problem)
