"""kill -9 of writers, runners, followers, operators and copies, several at once, at random moments; and of the server.

Knows: which clients, when they end. Does not know: what must hold afterwards.
"""

from __future__ import annotations

import time
from pathlib import Path

from soak import children, clients
from soak.check import Allowed, check, check_copies
from soak.clients import Place
from soak.rounds import Round
from tests.support.servers.postgres import PostgresServer

WAVES = 5
LONG = 600.0  # seconds a client would work if it were not killed


def crowd(turn: Round, place: Place, wave: int, *, copies: bool = True, pace: float = 0.0) -> list[int]:
    """Start one of each kind of client, and a second writer. `pace`: longest pause (s) of a thread between appends."""
    seed, folder = f"{turn.seed}/{wave}", turn.folder
    dice = turn.dice
    started = [
        children.fork(
            folder, clients.write, place, f"a{wave}", f"{seed}a", LONG, dice.choice([1, 3]), pace, name="write"
        ),
        children.fork(folder, clients.write_async, place, f"b{wave}", f"{seed}b", LONG, 8, pace, name="write_async"),
        children.fork(folder, clients.run, place, LONG, 0.5, name="run"),
        children.fork(folder, clients.operate, place, f"o{wave}", f"{seed}o", LONG, name="operate"),
    ]
    names = [("named-0", True), ("cursor-0", False)]
    name, named = names[wave % 2]
    started.append(_follower(folder, place, name, f"{seed}f", named=named))
    if copies:
        backups = wave % 2 == 0 and place.url.endswith(".db")
        started.append(children.fork(folder, _copy, place, f"c{wave}", backups, name="copy"))
    return started


def _follower(folder: Path, place: Place, name: str, seed: str, *, named: bool) -> int:
    def work() -> None:
        clients.follow(place, name, seed, LONG, named=named)

    return children.fork(folder, work, name="follow")


def _copy(place: Place, name: str, backups: bool) -> None:
    clients.copy(place, name, LONG, backups=backups)


def _wave(turn: Round, place: Place, wave: int) -> None:
    before = clients.acknowledged(turn.folder)
    started = crowd(turn, place, wave)
    if wave and turn.dice.random() < 0.2:
        time.sleep(turn.dice.uniform(0.0, 0.2))  # while they start
    else:
        await_work(turn, before + turn.dice.randrange(5, 120), 15.0)
    turn.dice.shuffle(started)
    if turn.dice.random() < 0.5:  # one by one, while the others go on
        killed = 0
        for pid in started:
            killed += children.kill([pid])
            time.sleep(turn.dice.uniform(0.0, 0.05))
    else:
        killed = children.kill(started)
    turn.count("kills", killed)
    if killed < len(started):
        turn.findings.add(f"{len(started) - killed} of the clients ended by themselves, before they were killed")


def await_work(turn: Round, appends: int, seconds: float = 4.0) -> None:
    """Wait until so many appends were acknowledged, or the time is over, and a moment longer."""
    ends = time.monotonic() + seconds
    while clients.acknowledged(turn.folder) < appends and time.monotonic() < ends:
        time.sleep(0.02)
    time.sleep(turn.dice.uniform(0.0, 0.02))


def await_progress(turn: Round) -> None:
    """Wait until some more appends were acknowledged; a problem of the round if that takes too long."""
    before = clients.acknowledged(turn.folder)
    await_work(turn, before + turn.dice.randrange(5, 60), 25.0)
    if clients.acknowledged(turn.folder) == before:
        turn.findings.add("no client gets anything acknowledged any more")


def sqlite(turn: Round) -> None:
    """Kill waves of clients on one file; then check everything."""
    place = Place(str(turn.folder / "store.db"), turn.folder, f"sqlite:{turn.folder / 'rows.db'}")
    for wave in range(WAVES):
        _wave(turn, place, wave)
    turn.count("events", len(check(place, turn.findings)))
    check_copies(place, turn.findings)


def postgres(turn: Round) -> None:
    """Do the same on PostgreSQL, with the other read model in a SQLite file."""
    other = f"sqlite:{turn.folder / 'rows.db'}" if turn.index % 2 else ""
    place = Place(turn.schema(), turn.folder, other)
    for wave in range(WAVES):
        _wave(turn, place, wave)
    turn.count("events", len(check(place, turn.findings)))
    check_copies(place, turn.findings)


def server(turn: Round) -> None:
    """Send kill -9 to a PostgreSQL server and all of its processes repeatedly, while clients live on."""
    own = PostgresServer(within=str(turn.folder), max_connections="80").start()
    try:
        place = Place(own.url(), turn.folder, "", {"patience": 20.0})
        started = crowd(turn, place, 0, copies=False, pace=0.05)
        for _ in range(6):
            await_progress(turn)
            own.kill()
            turn.count("kills")
            turn.count("server kills")
            time.sleep(turn.dice.uniform(0.0, 0.1))
            own.start()
        await_progress(turn)
        turn.count("kills", children.kill(started))
        turn.count("events", len(check(place, turn.findings, Allowed())))
    finally:
        own.remove()
