"""Checks the car parks: doubts, alerts, silences and hours by SQL; why a person was paged; what other rules find.

Knows: the source, SQL. Does not know: how alerts are decided.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from textwrap import wrap
from typing import NamedTuple
from zoneinfo import ZoneInfo

import eventfold as ef
from eventfold.demo.data import unpack
from eventfold.demo.fields import Checked, connect, main
from eventfold.demo.fields.plot import line_plot
from eventfold.demo.fields.report import WIDTH, table
from examples.fields.carparks.app import (
    ZONE,
    AlertRaised,
    AlertResolved,
    HourOfPark,
    OccupancyReported,
    Rulebook,
    SensorDoubted,
)
from examples.fields.carparks.load import ALL_PARKS, RULE, SILENT, SOURCE, VERSIONS, load

FULL_PERCENT = 99
AHEAD = timedelta(hours=2)  # within which a park has to fill up, so that the alert was right
PLOTTED = "BHMEURBRD02"

# Times are seconds since 1970 by the clock of the city, which had one change within: SQL needs no zone for that.
_READINGS = """
CREATE TABLE readings AS
SELECT DISTINCT SystemCodeNumber AS park, epoch(LastUpdated AT TIME ZONE 'Europe/London')::BIGINT AS t,
       LastUpdated AS local, Occupancy::INTEGER AS cars, Capacity::INTEGER AS capacity,
       100.0 * least(Occupancy, Capacity) / Capacity AS percent
FROM (SELECT * FROM read_csv($file) LIMIT $limit)
"""
_DOUBTS = """
WITH runs AS (
    SELECT *, row_number() OVER (PARTITION BY park ORDER BY t)
              - row_number() OVER (PARTITION BY park, cars, local::DATE ORDER BY t) AS run FROM readings
)
SELECT park, 'negative', count(*)::INTEGER FROM readings WHERE cars < 0 GROUP BY park
UNION ALL SELECT park, 'above capacity', count(*)::INTEGER FROM readings WHERE cars > capacity GROUP BY park
UNION ALL SELECT park, 'stuck', count(*)::INTEGER FROM (
    SELECT park FROM runs GROUP BY park, cars, local::DATE, run HAVING count(*) >= $stuck) GROUP BY park
"""
# A reading raises (1), resolves (0) or says nothing; the last one that said something is the state, and an alert is a
# change of it to 1.
_ALERTS = """
WITH signals AS (
    SELECT park, t, CASE WHEN percent >= raised_at THEN 1 WHEN percent < cleared_below THEN 0 END AS signal
    FROM readings JOIN rules ON t >= since AND t < until WHERE cars >= 0
), states AS (
    SELECT park, t, last_value(signal IGNORE NULLS) OVER (PARTITION BY park ORDER BY t) AS state FROM signals
)
SELECT park, t FROM (SELECT *, lag(state) OVER (PARTITION BY park ORDER BY t) AS before FROM states)
WHERE state = 1 AND coalesce(before, 0) = 0
"""
# The open seconds of each gap between two readings, or to the last reading of all.
_SILENCES = """
WITH gaps AS (
    SELECT park, local AS since, coalesce(
               lead(local) OVER (PARTITION BY park ORDER BY t), (SELECT max(local) FROM readings)) AS until
    FROM {readings}
), days AS (
    SELECT park, since, until, unnest(generate_series(since::DATE, until::DATE, INTERVAL 1 DAY))::DATE AS day FROM gaps
)
SELECT park, since, until FROM (
    SELECT park, since, until, sum(greatest(0, epoch(
               least(until, day + TIME '16:30') - greatest(since, day + TIME '08:00')))) AS open_s
    FROM days GROUP BY park, since, until
) WHERE open_s >= 7200
"""
_HOURS = "SELECT park, (t // 3600) * 3600, count(*)::INTEGER, sum(cars)::INTEGER FROM readings GROUP BY 1, 2"


class Found(NamedTuple):
    """What a rule would have raised, and what it is worth."""

    alerts: int
    right: int
    fillings: int
    foreseen: int
    ahead_minutes: float | None


class Source:
    """The readings in DuckDB, repeats removed."""

    def __init__(self, limit: int | None) -> None:
        self._db = connect()
        with tempfile.TemporaryDirectory() as folder:
            file = unpack(SOURCE, Path(folder))
            self._db.execute(_READINGS, {"file": str(file), "limit": limit if limit is not None else 2**62})
        self._db.execute("CREATE TABLE rules (since BIGINT, until BIGINT, raised_at INTEGER, cleared_below INTEGER)")

    def counts(self) -> dict[str, int]:
        """Readings by park."""
        return dict(self._db.execute("SELECT park, count(*)::INTEGER FROM readings GROUP BY 1").fetchall())

    def doubts(self) -> dict[tuple[str, str], int]:
        """Doubts by park and kind."""
        return {(park, why): number for park, why, number in self._db.execute(_DOUBTS, {"stuck": 6}).fetchall()}

    def alerts(self, rules: list[tuple[int, int, int, int]]) -> list[tuple[str, int]]:
        """The alerts under rules, each with its first and last second (exclusive): park and second."""
        self._db.execute("DELETE FROM rules")
        self._db.executemany("INSERT INTO rules VALUES (?, ?, ?, ?)", rules)
        return sorted(self._db.execute(_ALERTS).fetchall())

    def silences(self) -> dict[str, int]:
        """The silences of each park that the collector did not cause, and those of the collector."""
        whole = self._db.execute(_SILENCES.format(readings="(SELECT DISTINCT 'all' AS park, t, local FROM readings)"))
        down = [(since, until) for _, since, until in whole.fetchall()]
        parks = self._db.execute(_SILENCES.format(readings="readings")).fetchall()
        mine = [park for park, since, _ in parks if not any(a.date() == since.date() for a, _ in down)]
        return {**Counter(mine), **({ALL_PARKS: len(down)} if down else {})}

    def hours(self) -> dict[tuple[str, int], tuple[int, int]]:
        """Readings and cars by park and hour (its first second)."""
        return {(park, hour): (number, cars) for park, hour, number, cars in self._db.execute(_HOURS).fetchall()}


def check(store: ef.Store, limit: int | None = None) -> Checked:
    """Compare with SQL, explain a page, replay other rules."""
    checked, source = Checked(), Source(limit)
    readings = [each.event for each in store.read(ef.Query.of(types=[OccupancyReported]))]
    raised = list(store.read(ef.Query.of(types=[AlertRaised])))
    doubts = [each.event for each in store.read(ef.Query.of(types=[SensorDoubted]))]
    comparison = checked.comparison
    comparison.figures("readings of", Counter(each.park for each in readings), source.counts())
    comparison.figures("doubts of", Counter((each.park, each.why) for each in doubts), source.doubts())
    full = sorted((each.event.park, _second(each.occurred)) for each in raised if each.event.rule == RULE)
    comparison.figure("alerts of fullness", full, source.alerts(_in_force()))
    silent = Counter(each.event.park for each in raised if each.event.rule == SILENT)
    comparison.figures("silences of", silent, source.silences())
    store.project(HourOfPark)
    hours = {
        (row.park, _second(row.hour)): (row.readings, row.cars)
        for page in store.select(HourOfPark).pages()
        for row in page
    }
    comparison.figures("readings and cars of", hours, source.hours())
    for each in opened_twice(store):
        comparison.finding("a second open alert of one park and rule", each)
    found = {
        f"{terms.raised_at} %": what_if(readings, terms.raised_at, terms.cleared_below) for _, terms, _ in VERSIONS
    }
    for _, terms, _ in VERSIONS:
        same = source.alerts([(0, 2**40, terms.raised_at, terms.cleared_below)])
        comparison.figure(
            f"alerts at {terms.raised_at} % since October", found[f"{terms.raised_at} %"].alerts, len(same)
        )
    _report(checked, store, raised, found)
    checked.figures = {
        "readings": len(readings),
        "doubts": Counter(each.why for each in doubts),
        "alerts": len(full),
        "silences": {"collector": silent.pop(ALL_PARKS, 0), "parks": silent.total()},
        "what_if": {name: each._asdict() for name, each in found.items()},
    }
    checked.plot = _plot(readings)
    return checked


def _second(moment: datetime | None) -> int:
    assert moment is not None
    return int(moment.timestamp())


def _in_force() -> list[tuple[int, int, int, int]]:
    """The versions of the rule, each from its moment to the next one's."""
    begins = [_second(since) for since, _, _ in VERSIONS]
    pairs = zip(VERSIONS, [*begins[1:], 2**40], strict=True)
    return [(_second(since), until, terms.raised_at, terms.cleared_below) for (since, terms, _), until in pairs]


def opened_twice(store: ef.Store) -> list[str]:
    """The alerts that were raised while one of the same park and rule was open."""
    found: list[str] = []
    open_now: dict[tuple[str, str], str] = {}
    for each in store.read(ef.Query.of(types=[AlertRaised, AlertResolved])):
        event = each.event
        if isinstance(event, AlertResolved):
            open_now.pop((event.park, event.rule), None)
        elif (event.park, event.rule) in open_now:
            found.append(f"{event.alert} at position {each.position}")
        else:
            open_now[event.park, event.rule] = event.alert
    return found


def what_if(readings: list[OccupancyReported], raised_at: int, cleared_below: int) -> Found:
    """Replay a rule over all readings: its alerts, and for how many the park was full within two hours."""
    parks: dict[str, list[tuple[datetime, float]]] = defaultdict(list)
    for each in readings:
        if each.cars >= 0:
            parks[each.park].append((each.at, min(each.cars, each.capacity) * 100 / each.capacity))
    alerts = right = fillings = foreseen = 0
    ahead: list[float] = []
    for line in parks.values():
        line.sort()
        raised = _rises(line, raised_at, cleared_below)
        filled = _rises(line, FULL_PERCENT, 95)
        alerts, fillings = alerts + len(raised), fillings + len(filled)
        right += sum(
            any(at <= moment <= at + AHEAD and share >= FULL_PERCENT for moment, share in line) for at in raised
        )
        for moment in filled:
            before = [at for at in raised if at <= moment <= at + AHEAD]
            foreseen += bool(before)
            ahead += [(moment - at) / timedelta(minutes=1) for at in before[-1:]]
    return Found(alerts, right, fillings, foreseen, median(ahead) if ahead else None)


def _rises(line: list[tuple[datetime, float]], at_least: float, below: float) -> list[datetime]:
    """The moments at which a share rises to a limit, after it was below another one."""
    found: list[datetime] = []
    is_up = False
    for moment, share in line:
        if not is_up and share >= at_least:
            is_up = True
            found.append(moment)
        elif share < below:
            is_up = False
    return found


def _report(checked: Checked, store: ef.Store, raised: list[ef.Recorded[AlertRaised]], found: dict[str, Found]) -> None:
    full = [each for each in raised if each.event.rule == RULE]
    if full:
        checked.add("Why was a person paged?", why(store, full[0]) + why(store, full[-1]))
    lines = [
        (name, one.alerts, f"{one.right}/{one.alerts}", f"{one.foreseen}/{one.fillings}", one.ahead_minutes)
        for name, one in found.items()
    ]
    head = ("raised at", "alerts since October", "precision", "recall", "minutes ahead")
    checked.add("Each rule over all readings: was the car park full within two hours?", table(head, lines))
    whole = [each.event.reason for each in raised if each.event.park == ALL_PARKS]
    checked.add("The collector was down", [line for each in whole for line in wrap(each, WIDTH)] or ["never"])


def why(store: ef.Store, raised: ef.Recorded[AlertRaised]) -> list[str]:
    """Why an alert was raised: the reading, and the version of the rule that held then."""
    event, at = raised.event, raised.occurred or raised.time
    terms = store.state(Rulebook(event.rule)).at(at)
    local = at.astimezone(ZoneInfo(ZONE))
    changed = f"version {terms.version}: {terms.raised_at} %" if terms else "no rule"
    return [f"{local:%Y-%m-%d %H:%M} {event.park}: {event.reason}", f"                 under {event.rule}, {changed}"]


def _plot(readings: list[OccupancyReported]) -> str:
    mine = sorted((each.at, each.cars * 100 / each.capacity) for each in readings if each.park == PLOTTED)
    first = datetime(2016, 11, 14, tzinfo=UTC)
    week = [
        ((at - first) / timedelta(days=1), share) for at, share in mine if 0 <= (at - first) / timedelta(days=1) < 7
    ]
    days = {float(day): f"{first + timedelta(days=day):%a %d %b}" for day in range(7)}
    return line_plot(
        f"A week of {PLOTTED}: percent of its places that are taken",
        "The share of places taken rises every morning; two lines mark the limits of the two rules, 90 and 97 percent.",
        {"taken": week, "90 %": [(0.0, 90.0), (7.0, 90.0)], "97 %": [(0.0, 97.0), (7.0, 97.0)]},
        unit=" %",
        labels=days,
    )


if __name__ == "__main__":
    sys.exit(main("carparks", load, check))
