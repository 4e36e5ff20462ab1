"""Cuts of the connection between a store and its server, at every byte of an append: nothing lost, nothing doubled.

Knows: the remote engine, a proxy that cuts. Does not know: what a message looks like.
"""

from __future__ import annotations

from collections import Counter
from uuid import UUID, uuid4

import eventfold as ef
from eventfold.testing.conformance.events import Noted
from soak.rounds import Round
from tests.support.servers.cutting_proxy import CuttingProxy, Direction
from tests.support.servers.http import ServerProcess

DIRECTIONS: tuple[Direction, ...] = ("request", "answer")


def sqlite(turn: Round) -> None:
    """Cut at each byte in each direction, repeat each append, and count what is in the file."""
    path = str(turn.folder / "store.db")
    asked: list[UUID] = []
    with ServerProcess(path) as server, CuttingProxy(server.port) as proxy, ef.Store(proxy.url, patience=60) as store:
        for direction in DIRECTIONS:
            for byte in range(size_of(store, proxy, direction, asked)):
                event = ef.Draft(Noted(turn.seed), id=uuid4())
                assert event.id is not None
                asked.append(event.id)
                proxy.cut(direction, byte)
                try:
                    store.using(attempts=1).append(event)
                except ef.AppendUnconfirmed:
                    turn.count("unconfirmed")
                else:
                    turn.findings.add(f"an append cut at byte {byte} of its {direction} was confirmed")
                proxy.heal()
                repeated = store.append(event).repeated
                if repeated != (direction == "answer"):
                    turn.findings.add(f"cut at byte {byte} of its {direction}, an append was repeated={repeated}")
                turn.count("cuts")
    with ef.Store(path) as direct:
        written = Counter(recorded.id for recorded in direct.read(raw=True))
    turn.count("events", len(written))
    for identity in asked:
        if written[identity] != 1:
            turn.findings.add(f"the event {identity} is in the log {written[identity]} times")
    if len(written) != len(asked):
        turn.findings.add(f"the log has {len(written)} events, and {len(asked)} were appended")


def size_of(store: ef.Store, proxy: CuttingProxy, direction: Direction, asked: list[UUID]) -> int:
    """How many bytes an append of one event has in a direction."""
    event = ef.Draft(Noted("x" * 8), id=uuid4())
    assert event.id is not None
    asked.append(event.id)
    proxy.count()
    store.append(event)
    return proxy.passed[direction]
