"""Checks the disruptions: what each aircraft passed on, and one chain leg by leg, a second time from the source.

    python -m examples.fields.disruptions.check [--store URL] [--limit N]

Knows: the source in SQL, the questions of dispatchers. Does not know: how rows became events. The other way: SQL has
the legs of an aircraft as rows in a window, and computes a way from clocks and offsets of airports, not from zones.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import eventfold as ef
from eventfold.demo.fields import Checked, connect, main, report
from eventfold.demo.fields.plot import bar_plot
from eventfold.demo.flights import FlightArrived, FlightDeparted
from eventfold.demo.flights.checks import overlaps
from eventfold.demo.flights.source import unpack
from examples.fields.disruptions import app
from examples.fields.disruptions.load import load

CANDIDATES = 25  # aircraft among which the longest chain is looked for

_LEGS = """
CREATE TABLE legs AS
WITH first AS (
    SELECT * FROM read_csv($flights, nullstr = 'NA', buffer_size = 1000000, max_line_size = 1000) {first}
), clocks AS (
    SELECT tailnum, printf('%s%d-%s-%04d-%02d-%02d', carrier, flight, origin, year, month, day) AS name, month,
           make_timestamp(year, month, day, hour, minute, 0) AS planned, dep_delay AS delay, arr_delay,
           coalesce(tz, -4) + 5 AS hours, coalesce(dst, 'N') = 'N' AS is_fixed,
           sched_arr_time // 100 * 60 + sched_arr_time % 100 - hour * 60 - minute AS clock
    FROM first LEFT JOIN read_csv($airports, nullstr = 'NA') ON dest = faa WHERE dep_time IS NOT NULL
), ways AS (
    SELECT *, planned >= '2013-03-10 02:00' AND planned < '2013-11-03 02:00' AS is_summer,
           CASE WHEN is_fixed AND is_summer THEN hours - 1 ELSE hours END AS shift,
           ((clock - shift * 60)::INTEGER % 1440 + 1440) % 1440 AS way,
           planned AT TIME ZONE 'America/New_York' AS leaves
    FROM clocks
), moments AS (
    SELECT *, leaves + to_minutes(delay) AS gone, leaves + to_minutes(way + arr_delay) AS landed,
           greatest(0, arr_delay) AS late, leaves + to_minutes(way + arr_delay + 60 + way) AS back
    FROM ways
)
SELECT *, row_number() OVER legs AS number, lag(landed) OVER legs AS before_landed, lag(back) OVER legs AS before_back,
       lag(late) OVER legs AS before_late
FROM moments WINDOW legs AS (PARTITION BY tailnum ORDER BY gone, name)
"""

_FIRST = "ORDER BY year, month, day, hour, minute, carrier, flight, origin LIMIT $limit"

# How many minutes of a delay are explained by `late` minutes of the leg before.
_CARRIED = """
greatest(0, least(delay, greatest(0, date_diff('minute', leaves, {back}))
                       - greatest(0, date_diff('minute', leaves, {back} - to_minutes({late})))))
"""

_PASSED_ON = f"""
SELECT tailnum, count(*), count(*) FILTER (minutes > 0), coalesce(sum(minutes), 0)::BIGINT
FROM (SELECT tailnum, CASE WHEN before_landed < gone THEN {_CARRIED.format(back="before_back", late="before_late")}
                           ELSE 0 END AS minutes FROM legs)
GROUP BY tailnum
"""  # noqa: S608 (parts of this file)

_CHAIN = f"""
WITH RECURSIVE chain AS (
    SELECT number, back, late::BIGINT AS late, 0::BIGINT AS minutes, name FROM legs
    WHERE tailnum = $aircraft AND name = $flight
    UNION ALL
    SELECT number, back, least(minutes, late), minutes, name FROM (
        SELECT legs.number, legs.back, legs.late, legs.name,
               {_CARRIED.format(back="chain.back", late="chain.late")} AS minutes
        FROM chain JOIN legs ON legs.number = chain.number + 1 WHERE tailnum = $aircraft
    ) WHERE minutes > 0
)
SELECT name, minutes FROM chain WHERE minutes > 0 ORDER BY number
"""  # noqa: S608 (parts of this file)


def check(store: ef.Store, limit: int | None = None) -> Checked:
    """Ask every figure twice, look for broken rules, and follow the longest chain."""
    store.project(app.Knock)
    checked, db = Checked(), connect()
    with tempfile.TemporaryDirectory(prefix="eventfold-disruptions-") as folder:
        files = unpack(Path(folder))
        given: dict[str, Any] = {"flights": str(files.flights), "airports": str(files.airports)}
        if limit is not None:
            given["limit"] = limit
        db.execute(_LEGS.format(first="" if limit is None else _FIRST), given)
    rows = store.rows(app.Knock)
    passed_on = {row.aircraft: (row.legs, row.late_because, row.minutes) for row in rows}
    asked = {aircraft: tuple(figures) for aircraft, *figures in db.execute(_PASSED_ON).fetchall()}
    checked.comparison.figures("legs, late legs and minutes passed on, of aircraft", passed_on, asked)
    for breach in breaches(store):
        checked.comparison.finding(breach, True)
    totals = [sum(figures) for figures in zip(*passed_on.values(), strict=True)] or [0, 0, 0]
    names = ("legs", "late because of the leg before", "minutes passed on")
    checked.figures |= dict(zip(names, totals, strict=True))
    checked.add("What late aircraft passed on", report.numbers(dict(zip(names, totals, strict=True))))
    worst = sorted(rows, key=lambda row: (-row.minutes, row.aircraft))
    _chain(checked, store, [row.aircraft for row in worst[:CANDIDATES]], db)
    checked.plot = bar_plot(
        "Minutes passed on, by the number of late legs in a chain",
        f"A bar for each length of a chain, of the {CANDIDATES} aircraft that passed on most in 2013.",
        checked.figures["chains"],
    )
    db.close()
    return checked


def rotation(store: ef.Store, aircraft: str) -> app.Rotation:
    """All legs of an aircraft, from the first day to the last."""
    legs = app.Rotation(aircraft, ())
    for recorded in store.read(ef.Query.of(types=[FlightDeparted, FlightArrived], tags=[f"aircraft:{aircraft}"])):
        legs.evolve(recorded.event)
    return legs


def _chain(checked: Checked, store: ef.Store, candidates: list[str], db: Any) -> None:
    """The chain with most legs among the aircraft that passed on most, and the same chain as known on its way."""
    best: tuple[int, int, str, str] = (0, 0, "", "")
    chains: defaultdict[str, int] = defaultdict(int)
    for aircraft in candidates:
        legs = rotation(store, aircraft)
        for leg in legs.legs:
            found = legs.because_of(leg.flight)
            if found:
                chains[str(len(found))] += sum(each.minutes for each in found)
            best = max(best, (len(found), sum(each.minutes for each in found), aircraft, leg.flight))
    checked.figures["chains"] = dict(sorted(chains.items(), key=lambda item: int(item[0])))
    if not best[0]:
        return
    _, _, aircraft, flight = best
    legs = rotation(store, aircraft)
    found = legs.because_of(flight)
    asked = dict(db.execute(_CHAIN, {"aircraft": aircraft, "flight": flight}).fetchall())
    checked.comparison.figures(f"minutes because of {flight}", {each.flight: each.minutes for each in found}, asked)
    days = tuple(sorted({each.flight[-10:] for each in [*found, *(leg for leg in legs.legs if leg.flight == flight)]}))
    cause = next(leg for leg in legs.legs if leg.flight == flight)
    midway = cause.planned + timedelta(hours=12)
    known = store.state(app.Rotation(aircraft, days), occurred_until=midway).because_of(flight)
    checked.figures["longest"] = {
        "flight": flight,
        "aircraft": aircraft,
        "late": cause.late,
        "legs": len(found),
        "known after 12 h": len(known),
    }
    table = report.table(
        ("leg", "minutes because of it", "delay"), [(each.flight, each.minutes, each.delay) for each in found]
    )
    checked.add(
        f"Late because of {flight} ({aircraft}, {cause.late} minutes late)",
        [*table, f"known twelve hours after its schedule: {len(known)} of {len(found)}"],
    )


def breaches(store: ef.Store) -> list[str]:
    """What breaks the rule of spare aircraft, found by one pass over the assignments."""
    found: list[str] = []
    covered: dict[tuple[str, str], str] = {}
    away: dict[tuple[str, str], dict[str, tuple[Any, Any, str]]] = defaultdict(dict)
    for recorded in store.read(ef.Query.of(types=[app.SpareAssigned, app.SpareReleased])):
        event = recorded.event
        if isinstance(event, app.SpareReleased):
            covered.pop((event.plan, event.flight), None)
            away[event.plan, event.spare].pop(event.flight, None)
            continue
        if (event.plan, event.flight) in covered:
            found.append(f"{event.flight} has two spare aircraft (event {recorded.position})")
        covered[event.plan, event.flight] = event.spare
        away[event.plan, event.spare][event.flight] = (event.since, event.until, event.flight)
    for (_, spare), stays in sorted(away.items()):
        found += [f"{spare} flies {one} and {other} at once" for one, other in overlaps(list(stays.values()))]
    return found


if __name__ == "__main__":
    sys.exit(main("disruptions", load, check))
