"""A match as movement: positions ten times a second, in batches of a second, and no step faster than a person can run.

The rule: a position is refused if the last accepted one, at most a second older, is farther away than 12 m/s allow.
After a second without an accepted position a player enters again, wherever they are seen next. A tick that comes twice
is taken once, and of two clients that move one player only one is believed: both decide over the player's track.

Knows: events, states, decisions, read models. Does not know: where positions come from. Places are metres from the
centre spot, times are ticks of a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from math import hypot
from typing import NamedTuple

import eventfold as ef

TICKS_PER_S = 10
LIMIT_M_S = 12.0
SIGHT_TICKS = 10  # a position this much older than the next one says nothing about its speed


class Position(NamedTuple):
    tick: int
    x: float
    y: float


class SessionStarted(ef.Event):
    session: ef.Tag
    home: int
    away: int
    at: datetime


class PlayerEntered(ef.Event):
    """A player is in view, for the first time or again."""

    session: ef.Tag
    player: ef.Tag
    tick: int


class PlayerLostFromView(ef.Event):
    """A player was not seen for more than a second after this tick."""

    session: ef.Tag
    player: ef.Tag
    tick: int


class PositionsTaken(ef.Event):
    """The accepted positions of a player in one second."""

    session: ef.Tag
    player: ef.Tag
    second: ef.Tag
    positions: list[Position]


class MoveRefused(ef.Event):
    """A position that no person reaches: `speed` in metres a second from the place and tick `since`."""

    session: ef.Tag
    player: ef.Tag
    second: ef.Tag
    position: Position
    since: Position
    speed: float


class ObjectSeen(ef.Event):
    """Positions of the ball or a referee in one second. They are not judged: a ball may fly."""

    session: ef.Tag
    object: ef.Tag
    second: ef.Tag
    positions: list[Position]


class PlayerSubstituted(ef.Event):
    session: ef.Tag
    leaves: ef.Tag
    enters: ef.Tag
    tick: int


class PossessionChanged(ef.Event):
    session: ef.Tag
    side: str
    tick: int


class PeriodEnded(ef.Event):
    session: ef.Tag
    period: int
    tick: int


class Track(ef.State):
    """Where a player was last believed to be."""

    session: ef.Tag
    player: ef.Tag
    last: Position | None = None

    def evolve(self, event: PositionsTaken) -> None:
        self.last = event.positions[-1]


def judge(
    last: Position | None, positions: Iterable[Position], limit: float = LIMIT_M_S
) -> Iterator[tuple[Position, Position | None, float]]:
    """Yield each new position with the accepted one before it (None: the player enters) and the speed between them.

    A position faster than `limit` is not accepted. One that is not later than the last accepted one is left out.
    """
    for position in positions:
        if last is not None and position.tick <= last.tick:
            continue
        if last is None or position.tick - last.tick > SIGHT_TICKS:
            yield position, None, 0.0
            last = position
            continue
        speed = hypot(position.x - last.x, position.y - last.y) * TICKS_PER_S / (position.tick - last.tick)
        yield position, last, speed
        if speed <= limit:
            last = position


def take(track: Track, second: int, positions: list[Position], limit: float = LIMIT_M_S) -> list[ef.Event]:
    """Decide about the positions of one player in one second."""
    session, player, last = track.session, track.player, track.last
    events: list[ef.Event] = []
    accepted: list[Position] = []
    for position, before, speed in judge(last, positions, limit):
        if before is not None and speed > limit:
            events.append(MoveRefused(session, player, str(second), position, before, round(speed, 3)))
            continue
        if before is None:
            if last is not None:
                events.append(PlayerLostFromView(session, player, (accepted[-1] if accepted else last).tick))
            events.append(PlayerEntered(session, player, position.tick))
        accepted.append(position)
    return [*events, PositionsTaken(session, player, str(second), accepted)] if accepted else events


class PlayerRun(ef.Projection):
    """How far a player ran while in view, in metres, the greatest speed of one step, and how much was refused."""

    player: str
    positions: int = 0
    refused: int = 0
    metres: float = 0.0
    fastest: float = 0.0
    tick: int = -SIGHT_TICKS - 1
    x: float = 0.0
    y: float = 0.0

    def evolve(self, event: PositionsTaken | MoveRefused) -> None:
        if isinstance(event, MoveRefused):
            self.refused += 1
            return
        for tick, x, y in event.positions:
            ticks = tick - self.tick
            if ticks <= SIGHT_TICKS:
                step = hypot(x - self.x, y - self.y)
                self.metres += step
                self.fastest = max(self.fastest, step * TICKS_PER_S / ticks)
            self.positions += 1
            self.tick, self.x, self.y = tick, x, y


class Places(ef.State):
    """Where each player and object was in one second, tick by tick: `places[tick][name]`."""

    session: ef.Tag
    second: ef.Tag
    places: dict[int, dict[str, tuple[float, float]]] = {}

    def evolve(self, event: PositionsTaken | ObjectSeen) -> None:
        name = event.player if isinstance(event, PositionsTaken) else event.object
        for tick, x, y in event.positions:
            self.places.setdefault(tick, {})[name] = (x, y)
