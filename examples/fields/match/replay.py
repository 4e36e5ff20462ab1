"""A session replayed from the log, at any speed, and judged again under another limit.

Knows: events, the rule. Does not know: where positions came from, how a replay is shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import eventfold as ef
from examples.fields.match.app import TICKS_PER_S, MoveRefused, Places, Position, PositionsTaken, judge

Frame = tuple[int, dict[str, tuple[float, float]]]


def replay(
    store: ef.Store,
    session: str,
    first: int,
    last: int,
    speed: float | None = None,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[Frame]:
    """Yield the places of everybody, tick by tick from `first` to `last` (inclusive), empty where nothing was seen.

    `speed`: 1 for the pace of the match, 2 for twice that, None for as fast as the log is read.
    """
    places: dict[int, dict[str, tuple[float, float]]] = {}
    second = -1
    for tick in range(first, last + 1):
        if tick // TICKS_PER_S != second:
            second = tick // TICKS_PER_S
            places = store.state(Places(session, str(second))).places
        yield tick, places.get(tick, {})
        if speed is not None:
            wait(1 / TICKS_PER_S / speed)


class Judged(NamedTuple):
    """A position under a limit: was it accepted, and did the player enter with it?"""

    player: str
    position: Position
    accepted: bool
    entered: bool


def judge_again(store: ef.Store, session: str, limit: float) -> Iterator[Judged]:
    """Yield every position of the log, accepted or refused then, as the rule judges it under this limit."""
    last: dict[str, Position] = {}
    for player, positions in _raw_seconds(store, session):
        for position, before, speed in judge(last.get(player), positions, limit):
            accepted = before is None or speed <= limit
            if accepted:
                last[player] = position
            yield Judged(player, position, accepted, before is None)


def _raw_seconds(store: ef.Store, session: str) -> Iterator[tuple[str, list[Position]]]:
    """Yield what a player sent in a second, in order of time, whatever became of it."""
    sent: dict[str, list[Position]] = {}
    current = ""
    query = ef.Query.of(types=[PositionsTaken, MoveRefused], tags=f"session:{session}")
    for recorded in store.read(query):
        event = recorded.event
        if event.second != current:
            yield from ((player, sorted(positions)) for player, positions in sent.items())
            sent, current = {}, event.second
        taken = event.positions if isinstance(event, PositionsTaken) else [event.position]
        sent.setdefault(event.player, []).extend(taken)
    yield from ((player, sorted(positions)) for player, positions in sent.items())
