"""Failovers that lose a tail: a PostgreSQL standby that was disconnected is promoted while clients live on.

Knows: two servers that take turns. Does not know: what a client remembers.
"""

from __future__ import annotations

import shutil
import threading
import time

import eventfold as ef
from soak import children, clients
from soak.check import Allowed, check
from soak.clients import Place
from soak.kills import await_work, crowd
from soak.rounds import Round
from tests.support.servers.postgres import PASSWORD, SUPERUSER, PostgresServer
from tests.support.servers.proxy import Proxy

TURNS = 4  # failovers in one round


def postgres(turn: Round) -> None:
    """Disconnect the standby, append, kill the primary, promote the standby; then the other way round."""
    within = str(turn.folder)
    primary = PostgresServer(within=within, max_connections="80", wal_keep_size="64MB").start()
    first, second = primary, None
    try:
        place = Place(primary.url(), turn.folder, "")
        place.open().close()
        second = PostgresServer(standby_of=primary, within=within, max_connections="80")
        hosts = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
        url = f"postgresql://{SUPERUSER}:{PASSWORD}@{hosts}/postgres?target_session_attrs=read-write"
        place = Place(url, turn.folder, f"sqlite:{turn.folder / 'rows.db'}", {"patience": 20.0})
        started = crowd(turn, place, 1, copies=False, pace=0.4)
        standby = second
        for number in range(TURNS):
            if number:
                _become_standby(standby, primary)
            primary, standby = _fail_over(turn, place, primary, standby)
        _await_new_epoch(turn, place)
        children.kill(started)
        with place.open() as store:
            epoch = store.engine.epoch
        turn.count("events", len(check(place, turn.findings, Allowed(epoch=epoch))))
    finally:
        for server in (first, second):
            if server is not None:
                server.kill()
                shutil.rmtree(server.folder, ignore_errors=True)


def _become_standby(server: PostgresServer, primary: PostgresServer) -> None:
    """Start again as a copy of the other server."""
    shutil.rmtree(server.folder / "data")
    server._follow(primary)  # pyright: ignore[reportPrivateUsage] - the address stays the same


def _fail_over(
    turn: Round, place: Place, primary: PostgresServer, standby: PostgresServer
) -> tuple[PostgresServer, PostgresServer]:
    """Fail over once. Returns the new primary and the old one."""
    proxy = Proxy(primary.port)
    standby.settings["primary_conninfo"] = (
        f"host=127.0.0.1 port={proxy.port} user={SUPERUSER} password={PASSWORD} connect_timeout=2"
    )
    standby.start()
    await_work(turn, clients.acknowledged(turn.folder) + turn.dice.randrange(10, 60), 10.0)
    proxy.close()
    await_work(turn, clients.acknowledged(turn.folder) + turn.dice.randrange(0, 60), 10.0)
    before = _epoch(primary)
    primary.kill()
    standby.promote()
    after = _epoch(standby)
    if after <= before:
        turn.findings.add(f"the epoch was {before} before the failover and is {after} after it")
    turn.count("failovers")
    threading.Event().wait(turn.dice.uniform(0.0, 0.05))
    return standby, primary


def _epoch(server: PostgresServer) -> int:
    with ef.Store(server.url()) as store:
        return store.engine.epoch


def _await_new_epoch(turn: Round, place: Place) -> None:
    """Wait until the clients that survived the failover get an acknowledgement again."""
    before, ends = clients.acknowledged(turn.folder), time.monotonic() + 30.0
    while clients.acknowledged(turn.folder) < before + 30 and time.monotonic() < ends:
        time.sleep(0.05)
    if clients.acknowledged(turn.folder) == before:
        turn.findings.add("no client gets anything acknowledged after the failover")
