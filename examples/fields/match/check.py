"""Checks the match: that every accepted step is possible and every refused one is not, by SQL over the source's JSON.

The rule goes position by position. The SQL does not: it asks whether accepted and refused positions together are those
of the source, whether two accepted ones that follow each other are ever too far apart, and whether the last accepted
one before each refused one is. If all three hold, there is no other result that the rule could have had. The same proof
is made for the same match under 10 m/s, which is computed from the log.

    python -m examples.fields.match.check
    python -m examples.fields.match.check --limit 20000 --store match.db

Knows: the example, SQL. Does not know: how the figures are printed.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import eventfold as ef
from eventfold.demo.data import open_source, unpack
from eventfold.demo.fields import Checked, Comparison, connect, main
from eventfold.demo.fields.plot import svg
from eventfold.demo.fields.report import table
from examples.fields.match.app import (
    LIMIT_M_S,
    SIGHT_TICKS,
    MoveRefused,
    Places,
    PlayerEntered,
    PlayerRun,
    PositionsTaken,
    PossessionChanged,
)
from examples.fields.match.frames import read_frames
from examples.fields.match.load import Lineup, load, read_lineup
from examples.fields.match.replay import judge_again, replay

OTHER_LIMIT_M_S = 10.0
ASKED = 3_000  # the tick of the question about the past: 2:38.90
TRAIL_TICKS = 50

_RAW = """
CREATE TABLE frames AS SELECT frame AS tick, data, possession."group" AS side FROM read_json($path, format = 'array',
    maximum_object_size = 4000000, columns = {
        frame: 'INTEGER', possession: 'STRUCT("group" VARCHAR)',
        data: 'STRUCT(trackable_object INTEGER, x DOUBLE, y DOUBLE)[]'
    })
"""
_SOURCE = """
CREATE TABLE source AS SELECT seen.trackable_object AS player, tick, seen.x AS x, seen.y AS y
FROM (SELECT tick, unnest(data) AS seen FROM frames) WHERE seen.trackable_object IS NOT NULL
"""
_DIFFERENT = """
SELECT count(*) FROM (
    (SELECT player, tick, x, y FROM source WHERE list_contains($players, player)
     EXCEPT ALL SELECT player, tick, x, y FROM judged)
    UNION ALL
    (SELECT player, tick, x, y FROM judged
     EXCEPT ALL SELECT player, tick, x, y FROM source WHERE list_contains($players, player))
)
"""
_STEPS = """
WITH steps AS (
    SELECT *, tick - lag(tick) OVER before AS ticks, sqrt((x - lag(x) OVER before) ** 2 + (y - lag(y) OVER before) ** 2)
              AS metres
    FROM judged WHERE accepted WINDOW before AS (PARTITION BY player ORDER BY tick)
)
"""
_TOO_FAST = f"""
{_STEPS} SELECT player, tick, round(metres * 10 / ticks, 1) FROM steps
WHERE ticks = 0 OR (ticks <= $sight AND metres * 10 / ticks > $limit) ORDER BY tick
"""  # noqa: S608 (a constant)
_POSSIBLE = """
SELECT refused.player, refused.tick FROM (SELECT * FROM judged WHERE NOT accepted) AS refused
ASOF LEFT JOIN (SELECT * FROM judged WHERE accepted) AS last
  ON last.player = refused.player AND last.tick < refused.tick
WHERE last.tick IS NULL OR refused.tick - last.tick > $sight
   OR sqrt((refused.x - last.x) ** 2 + (refused.y - last.y) ** 2) * 10 / (refused.tick - last.tick) <= $limit
"""
_RUNS = f"""
{_STEPS} SELECT player::VARCHAR, count(*), count(*) FILTER (ticks IS NULL OR ticks > $sight),
       round(coalesce(sum(metres) FILTER (ticks <= $sight), 0), 3) FROM steps GROUP BY player
"""  # noqa: S608 (a constant)
_RAW_STEPS = """
WITH steps AS (
    SELECT tick - lag(tick) OVER before AS ticks, sqrt((x - lag(x) OVER before) ** 2 + (y - lag(y) OVER before) ** 2)
           * 10 AS speed
    FROM source WHERE list_contains($players, player) WINDOW before AS (PARTITION BY player ORDER BY tick)
)
SELECT count(*), count(*) FILTER (speed > $limit), round(max(speed)) FROM steps WHERE ticks = 1
"""
_SIDES = """
WITH held AS (SELECT tick, side, lag(side) OVER (ORDER BY tick) AS before FROM frames WHERE side IS NOT NULL)
SELECT tick, replace(side, ' team', '') FROM held WHERE before IS NULL OR before <> side
"""


class Source:
    """The frames of the match as tables, and beside them what the log says of each position."""

    def __init__(self, limit: int | None, folder: Path) -> None:
        self.db, self._folder = connect(), folder
        path = unpack("match-positions", folder) if limit is None else _first_frames(limit, folder)
        self.db.execute(_RAW, {"path": str(path)})
        self.db.execute(_SOURCE)
        path.unlink()

    def judge(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Fill the table of positions, as they were judged."""
        path = self._folder / "judged.csv"
        with path.open("w", newline="") as opened:
            csv.writer(opened).writerows(rows)
        self.db.execute(
            "CREATE OR REPLACE TABLE judged (player INTEGER, tick INTEGER, x DOUBLE, y DOUBLE, accepted BOOL)"
        )
        self.db.execute(f"COPY judged FROM '{path}' (HEADER false)")

    def rows(self, sql: str, **given: Any) -> list[Any]:
        """Return the rows of a query."""
        return self.db.execute(sql, given).fetchall()


def _first_frames(limit: int, folder: Path) -> Path:
    """Write the frames that a load with this limit reads, as a file of its own."""
    path, seen = folder / "first.json", 0
    frames: list[dict[str, Any]] = []
    with open_source("match-positions") as opened:
        for frame in read_frames(opened):
            if frame["frame"] % 10 == 0 and seen >= limit:
                break
            seen += len(frame["data"])
            frames.append(frame)
    path.write_text(json.dumps(frames))
    return path


def recorded_positions(store: ef.Store) -> Iterator[tuple[Any, ...]]:
    """Yield each position of a player in the log: player, tick, place, and whether it was accepted."""
    for recorded in store.read(ef.Query.of(types=[PositionsTaken, MoveRefused])):
        event = recorded.event
        if isinstance(event, MoveRefused):
            yield event.player, *event.position, False
        else:
            yield from ((event.player, *position, True) for position in event.positions)


def check(store: ef.Store, limit: int | None = None) -> Checked:
    """Prove the rule on every position, compare the figures, and ask the log about the past."""
    store.project(PlayerRun)
    checked, lineup = Checked(), read_lineup()
    with tempfile.TemporaryDirectory(prefix="eventfold-match-") as folder:
        source = Source(limit, Path(folder))
        source.judge(recorded_positions(store))
        _prove(source, lineup, LIMIT_M_S, "", checked.comparison)
        _compare_runs(store, source, lineup, checked)
        asked = min(ASKED, source.rows("SELECT max(tick) FROM source")[0][0])
        _compare_moment(store, source, lineup, asked, checked)
        again = (
            (each.player, *each.position, each.accepted) for each in judge_again(store, lineup.session, OTHER_LIMIT_M_S)
        )
        source.judge(again)
        _prove(source, lineup, OTHER_LIMIT_M_S, f"under {OTHER_LIMIT_M_S:g} m/s ", checked.comparison)
        (refused,) = source.rows("SELECT count(*) FROM judged WHERE NOT accepted")[0]
        source.db.close()
    checked.figures[f"refused under {OTHER_LIMIT_M_S:g} m/s"] = refused
    checked.add("What if", [f"Under {OTHER_LIMIT_M_S:g} m/s {refused:,} positions would have been refused."])
    checked.plot = _plot(store, lineup.session, asked)
    return checked


def _prove(source: Source, lineup: Lineup, limit: float, words: str, compared: Comparison) -> None:
    """Compare the positions with the source, and look for accepted ones too fast and refused ones that are not."""
    players = sorted(lineup.players)
    (different,) = source.rows(_DIFFERENT, players=players)[0]
    compared.figure(f"{words}positions that only the log or only the source has", different, 0)
    for player, tick, speed in source.rows(_TOO_FAST, sight=SIGHT_TICKS, limit=limit):
        compared.finding(f"{words}player {player} at tick {tick} was accepted with {speed} m/s", tick)
    for player, tick in source.rows(_POSSIBLE, sight=SIGHT_TICKS, limit=limit):
        compared.finding(f"{words}player {player} at tick {tick} was refused, and could be there", tick)
    compared.compared += 2


def _compare_runs(store: ef.Store, source: Source, lineup: Lineup, checked: Checked) -> None:
    """Compare positions, entries and metres of each player, the changes of possession, and count raw steps."""
    compared = checked.comparison
    runs = {row.player: row for row in store.rows(PlayerRun)}
    entries: dict[str, int] = {}
    for recorded in store.read(ef.Query.of(types=[PlayerEntered])):
        entries[recorded.event.player] = entries.get(recorded.event.player, 0) + 1
    compared.figures(
        "positions, entries and metres",
        {
            player: (row.positions, entries.get(player, 0), round(row.metres, 3))
            for player, row in runs.items()
            if row.positions
        },
        {row[0]: row[1:] for row in source.rows(_RUNS, sight=SIGHT_TICKS)},
    )
    changes = {each.event.tick: each.event.side for each in store.read(ef.Query.of(types=[PossessionChanged]))}
    compared.figures("possession at tick", changes, dict(source.rows(_SIDES)))
    steps, fast, fastest = source.rows(_RAW_STEPS, players=sorted(lineup.players), limit=LIMIT_M_S)[0]
    checked.figures |= {
        "accepted": sum(row.positions for row in runs.values()),
        "refused": sum(row.refused for row in runs.values()),
        "players refused": sum(row.refused > 0 for row in runs.values()),
        "entries": sum(entries.values()),
        "possession changes": len(changes),
        "raw steps": steps,
        "raw steps too fast": fast,
        "fastest raw step": fastest,
    }
    checked.add("Positions", [f"{name}: {value:,.0f}" for name, value in checked.figures.items()])
    best = sorted(runs.values(), key=lambda row: (-row.metres, row.player))[:8]
    rows = [(row.player, row.metres / 1000, row.fastest, row.positions, row.refused) for row in best]
    checked.add("Who ran farthest, while in view", table(["player", "km", "m/s", "positions", "refused"], rows))


def _compare_moment(store: ef.Store, source: Source, lineup: Lineup, tick: int, checked: Checked) -> None:
    """The question about the past: where was everybody, at one tick?"""
    places = store.state(Places(lineup.session, str(tick // 10))).places.get(tick, {})
    there = """SELECT player::VARCHAR, x, y FROM source WHERE tick = $tick AND player NOT IN
               (SELECT player FROM judged WHERE NOT accepted AND tick = $tick)"""
    found = {player: (x, y) for player, x, y in source.rows(there, tick=tick)}
    checked.comparison.figures(f"the place at tick {tick}", places, found)
    checked.figures[f"objects at tick {tick}"] = len(places)
    rows = [(name, round(x, 2), round(y, 2)) for name, (x, y) in sorted(places.items(), key=lambda each: each[1])]
    checked.add(f"Where everybody was at tick {tick}", table(["object", "x", "y"], rows))


def _plot(store: ef.Store, session: str, tick: int) -> str:
    """The pitch at a tick, and the way of each player and object in the five seconds before."""
    scale, left, top = 6.0, 100.0, 56.0
    trails: dict[str, list[tuple[float, float]]] = {}
    last: dict[str, tuple[float, float]] = {}
    for _, places in replay(store, session, tick - TRAIL_TICKS, tick):
        for name, (x, y) in places.items():
            trails.setdefault(name, []).append((left + (x + 52.5) * scale, top + (34 - y) * scale))
        last = places
    box = f'<rect x="{left}" y="{top}" width="{105 * scale}" height="{68 * scale}" fill="#eef3ec" stroke="#9db39a"/>'
    middle = f'<path d="M{left + 52.5 * scale} {top}v{68 * scale}" stroke="#9db39a" fill="none"/>'
    parts = [box, middle]
    for name, trail in sorted(trails.items()):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in trail)
        parts.append(f'<polyline points="{points}" fill="none" stroke="#1f3a5f" stroke-width="1.5" opacity="0.6"/>')
        if name in last:
            x, y = trail[-1]
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="#b3541e"/>')
    words = "Dots on a pitch, each with the line of the five seconds before."
    return svg(f"Everybody in view at tick {tick}, and the five seconds before", words, parts, height=490)


if __name__ == "__main__":
    sys.exit(main("match", load, check))
