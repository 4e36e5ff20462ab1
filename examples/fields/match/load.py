"""Loads a match through the rule of app.py, second by second: what is too fast is recorded as refused.

The source is a Bundesliga match of 2019-11-09, tracked from the broadcast by SkillCorner, in the source archive of the
package `kloppy`. Only the ids of players are read, no names.

- The index of a frame is the clock, ten a second, without a gap; the stated times are not: the second half begins at
  45:00 while the first ended at 45:53, and 61 frames with positions, before and after play, have no time at all.
- Usually 11 to 16 of 22 players are in sight; in play 20,849 frames are empty, in 270 silences (replays, close-ups).
- 9,843 positions have a team and no identity: they are counted as rejected.
- Identities swap: of 447,259 steps of a tenth of a second 1,413 exceed 12 m/s, the fastest has 383.

Nothing is generated. Knows: columns, event classes, the rule. Does not know: read models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import eventfold as ef
from eventfold.demo.data import open_source
from eventfold.demo.fields import LoadCount, id_from, write
from examples.fields.match.app import (
    TICKS_PER_S,
    ObjectSeen,
    PeriodEnded,
    PlayerSubstituted,
    Position,
    PositionsTaken,
    PossessionChanged,
    SessionStarted,
    Track,
    take,
)
from examples.fields.match.frames import read_frames

FIRST_TICKS = {1: 1_411, 2: 39_979}  # of each period
SECOND_HALF_S = 45 * 60  # its clock begins there

Drafts = Iterator[tuple[ef.Draft[Any], int]]


class Lineup(NamedTuple):
    """The match and who is in it, by ids."""

    session: str
    began: datetime
    home: int
    away: int
    players: frozenset[int]
    others: frozenset[int]
    substitutions: list[tuple[int, str, str]]  # tick, who leaves, who enters


def read_lineup() -> Lineup:
    """Return what the metadata of the match says."""
    with open_source("match") as opened:
        found = json.load(opened)
    leaves = {each["end_time"]: each["trackable_object"] for each in found["players"] if each["end_time"]}
    enters = {each["start_time"]: each["trackable_object"] for each in found["players"] if each["start_time"]}
    return Lineup(
        str(found["id"]),
        datetime.fromisoformat(found["date_time"]).astimezone(UTC),
        found["home_team"]["id"],
        found["away_team"]["id"],
        frozenset(each["trackable_object"] for each in found["players"]),
        frozenset([found["ball"]["trackable_object"], *(each["trackable_object"] for each in found["referees"])]),
        sorted((_tick_at(clock), str(player), str(enters[clock])) for clock, player in leaves.items()),
    )


def _tick_at(clock: str) -> int:
    """The tick of a clock of the match, such as 01:11:33."""
    hours, minutes, seconds = map(int, clock.split(":"))
    passed = hours * 3600 + minutes * 60 + seconds
    if passed < SECOND_HALF_S:
        return FIRST_TICKS[1] + passed * TICKS_PER_S
    return FIRST_TICKS[2] + (passed - SECOND_HALF_S) * TICKS_PER_S


class Loader:
    """Collects the positions of a second, and decides about them when it is over."""

    def __init__(self, lineup: Lineup, count: LoadCount) -> None:
        self.lineup, self.count = lineup, count
        self._tracks: dict[int, Track] = {}
        self._seen: dict[int, list[Position]] = {}
        self._substitutions = list(lineup.substitutions)
        self._side: str | None = None
        self._period: int | None = None

    def drafts(self, limit: int | None = None) -> Drafts:
        """Yield the events of the match by time; with a limit up to the second with so many positions."""
        lineup, tick = self.lineup, -1
        yield self._draft(SessionStarted(lineup.session, lineup.home, lineup.away, lineup.began), 0)
        with open_source("match-positions") as opened:
            for frame in read_frames(opened):
                tick = frame["frame"]
                if tick % TICKS_PER_S == 0:
                    yield from self._end_second(tick // TICKS_PER_S - 1)
                    if limit is not None and self.count.read >= limit:
                        return
                yield from self._frame(tick, frame)
        yield from self._end_second(tick // TICKS_PER_S)

    def _frame(self, tick: int, frame: dict[str, Any]) -> Drafts:
        """Collect the positions of a frame, and yield what else it shows."""
        session = self.lineup.session
        side, period = frame["possession"]["group"], frame["period"]
        if side is not None and side != self._side:
            self._side = side
            yield self._draft(PossessionChanged(session, side.removesuffix(" team"), tick), tick)
        if self._period is not None and period != self._period:
            yield self._draft(PeriodEnded(session, self._period, tick), tick)
        self._period = period
        while self._substitutions and self._substitutions[0][0] <= tick:
            at, leaves, enters = self._substitutions.pop(0)
            yield self._draft(PlayerSubstituted(session, leaves, enters, at), at)
        for seen in frame["data"]:
            self.count.read += 1
            id = seen.get("trackable_object")
            if id in self.lineup.players or id in self.lineup.others:
                self._seen.setdefault(id, []).append(Position(tick, seen["x"], seen["y"]))
            else:
                self.count.reject("have a team and no identity" if id is None else "are of an unknown object")

    def _end_second(self, second: int) -> Drafts:
        """Decide about the positions that were collected in a second."""
        for id, positions in sorted(self._seen.items()):
            if id in self.lineup.others:
                event = ObjectSeen(self.lineup.session, str(id), str(second), positions)
                yield self._draft(event, positions[-1].tick, len(positions))
                continue
            track = self._tracks.setdefault(id, Track(self.lineup.session, str(id)))
            for event in take(track, second, positions):
                if isinstance(event, PositionsTaken):
                    yield self._draft(event, event.positions[-1].tick, len(event.positions))
                    track.evolve(event)
                elif (refused := getattr(event, "position", None)) is not None:
                    yield self._draft(event, refused.tick, 1)
                else:
                    yield self._draft(event, getattr(event, "tick"))  # noqa: B009 (both other classes have one)
        self._seen.clear()

    def _draft(self, event: Any, tick: int, rows: int = 0) -> tuple[ef.Draft[Any], int]:
        occurred = self.lineup.began + timedelta(seconds=(tick - FIRST_TICKS[1]) / TICKS_PER_S)
        about = getattr(event, "player", getattr(event, "object", ""))
        id = id_from(occurred, "match", self.lineup.session, type(event).__name__, about, tick)
        return ef.Draft(event, id=id, occurred=occurred), rows


def load(store: ef.Store, limit: int | None = None) -> LoadCount:
    """Append the match; `limit`: only so many positions, up to the end of a second."""
    count = LoadCount()
    write(store, Loader(read_lineup(), count).drafts(limit), count)
    return count
