"""A proxy in front of PostgreSQL that cuts connections at random bytes, in either direction.

Knows: bytes. Does not know: what is sent.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from eventfold.errors import StoreUnavailable
from soak import children, clients
from soak.check import check
from soak.clients import Place
from soak.history import History, lines
from soak.kills import await_work
from soak.rounds import Round
from tests.support.servers.postgres import free_port

CHUNK = 4096


def serve(folder: Path, port: int, target: int, seed: str) -> None:
    """Run the proxy: each connection may pass a random number of bytes, then it is cut, at once or a moment later."""
    dice, history = random.Random(seed), History(folder, "proxy")
    listening = socket.create_server(("127.0.0.1", port), backlog=64)
    while True:
        client, _ = listening.accept()
        try:
            server = socket.create_connection(("127.0.0.1", target))
        except OSError:
            client.close()
            continue
        allowed = [dice.choice((dice.randrange(1, 3000), dice.randrange(1, 40_000), 1 << 30)) for _ in range(2)]
        thread = threading.Thread(
            target=_pass, args=(client, server, allowed, dice.random() < 0.3, history, dice.random() < 0.5), daemon=True
        )
        thread.start()


def _pass(
    client: socket.socket, server: socket.socket, allowed: list[int], half: bool, history: History, reset: bool
) -> None:
    """Pass bytes both ways up to a limit. `half`: cut a moment later. `reset`: RST, not FIN."""
    pairs = {client: (server, 0), server: (client, 1)}
    with contextlib.suppress(OSError):
        while True:
            for source in select.select([client, server], [], [])[0]:
                to, way = pairs[source]
                data = source.recv(CHUNK)
                if not data:
                    return _close(client, server, reset=False)
                passed = data[: allowed[way]]
                allowed[way] -= len(data)
                to.sendall(passed)
                if allowed[way] <= 0:
                    history.write("cut", way)
                    if half:
                        time.sleep(0.01)  # the server still answers what was passed, and the answer is lost
                    return _close(client, server, reset=reset)
    return _close(client, server, reset=False)


def _close(*sockets: socket.socket, reset: bool) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            if reset:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.close()


def postgres(turn: Round) -> None:
    """Run writers in both modes, a runner and a follower through the proxy, and check without it."""
    plain, port = turn.schema(), free_port()
    target = int(turn.server.partition("@")[2].partition("/")[0].rpartition(":")[2])
    through = plain.replace(f":{target}/", f":{port}/")
    place = Place(through, turn.folder, "", {"patience": 5.0})
    Place(plain, turn.folder, "").open().close()  # creating the tables takes more bytes than most connections may pass
    proxy = children.fork(turn.folder, serve, turn.folder, port, target, turn.seed, name="proxy")
    seconds = 4.0
    started = [
        children.fork(turn.folder, _write, clients.write, place, "a", f"{turn.seed}a", seconds, name="write"),
        children.fork(
            turn.folder, _write, clients.write_async, place, "b", f"{turn.seed}b", seconds, name="write_async"
        ),
        children.fork(turn.folder, clients.run, place, seconds, name="run"),
        children.fork(turn.folder, _follow, place, turn.seed, seconds, name="follow"),
    ]
    await_work(turn, 300, seconds)
    late = children.wait(started[:2], 40.0)
    if late:
        turn.findings.add(f"writers did not end by themselves: {len(late)} of 2")
    children.kill([*started[2:], proxy])
    turn.count("cuts", sum(words[0] == "cut" for words in lines(turn.folder / "proxy.history")))
    turn.count("events", len(check(Place(plain, turn.folder, ""), turn.findings)))


def _write(work: Callable[[Place, str, str, float], None], place: Place, name: str, seed: str, seconds: float) -> None:
    with contextlib.suppress(StoreUnavailable):  # no connection lasted long enough to open the store
        work(place, name, seed, seconds)


def _follow(place: Place, seed: str, seconds: float) -> None:
    clients.follow(place, "named-0", seed, seconds, named=True)
    os._exit(0)
