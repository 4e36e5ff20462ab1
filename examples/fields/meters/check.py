"""Checks the meter: days, weeks, silences and bills by SQL; what a bill rested on, then and now; forecasts of seats.

Knows: the source, SQL. Does not know: how a bill is decided.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import eventfold as ef
from eventfold.demo.data import unpack
from eventfold.demo.fields import Checked, connect, main
from eventfold.demo.fields.plot import bar_plot
from eventfold.demo.fields.report import table
from examples.fields.meters.app import (
    CreditIssued,
    DayOfMeter,
    MeterSpokeAgain,
    Month,
    MonthBilled,
    ReadingsTaken,
    Traceability,
)
from examples.fields.meters.fleet_load import AGES, FORECAST_BEFORE_DAYS, HORIZON_DAYS, LAST_LOOK
from examples.fields.meters.load import CALIBRATIONS, METER, RULES, SOURCE, load
from examples.fields.meters.seats import FLEET, Fleet, ReplacementsForecast, came, expected, in_hindsight
from examples.fields.meters.voltage import EVERY_MINUTE, STANDARD, VoltageLimitExceeded, WeekOfVoltage

KWH = 60_000  # watt-minutes
ASKED = "2009-03"

_MINUTES = """
CREATE TABLE minutes AS
SELECT epoch(strptime(Date || ' ' || Time, '%d/%m/%Y %H:%M:%S'))::BIGINT AS t, round(kw * 1000)::INTEGER AS watts,
       round(volts * 100)::INTEGER AS v, one::INTEGER AS one, two::INTEGER AS two, three::INTEGER AS three
FROM read_csv($file, header = false, skip = 1, nullstr = ['?', ''], columns = {
    'Date': 'VARCHAR', 'Time': 'VARCHAR', 'kw': 'DOUBLE', 'reactive': 'DOUBLE', 'volts': 'DOUBLE', 'ampere': 'DOUBLE',
    'one': 'DOUBLE', 'two': 'DOUBLE', 'three': 'DOUBLE'})
"""
_DAYS = """
SELECT t // 86400, count(watts)::INTEGER, sum(watts)::BIGINT, sum(one)::INTEGER, sum(two)::INTEGER, sum(three)::INTEGER
FROM minutes WHERE watts IS NOT NULL GROUP BY 1
"""
# The Monday of a day: 1970-01-05 was one.
_WEEKS = """
WITH means AS (
    SELECT t // 600 AS slot, avg(v) AS mean, count(*) FILTER (v > 25300 OR v < 20700) AS minutes
    FROM minutes WHERE v IS NOT NULL GROUP BY 1
)
SELECT (slot // 144 - 4) // 7 * 7 + 4, count(*)::INTEGER, count(*) FILTER (mean > 25300 OR mean < 20700)::INTEGER,
       count(*) FILTER (mean > 25300 OR mean < 19550)::INTEGER, sum(minutes)::INTEGER FROM means GROUP BY 1
"""
_SILENCES = """
SELECT min(t), count(*)::INTEGER, max(t) FROM (
    SELECT t, t - 60 * row_number() OVER (ORDER BY t) AS run FROM minutes WHERE v IS NULL
) GROUP BY run
"""
# An hour counts for the month of its beginning; it is billed if a certificate covers that moment.
_BILLS = """
WITH hours AS (SELECT t // 3600 * 3600 AS hour, sum(watts) AS energy FROM minutes GROUP BY 1),
covered AS (
    SELECT hour, energy, EXISTS (FROM certificates WHERE hour >= since AND hour < until) AS is_covered,
           hour >= $doubt AND hour < $good AS is_doubtful FROM hours
)
SELECT strftime(make_timestamp(hour * 1000000), '%Y-%m'), coalesce(sum(energy) FILTER (is_covered), 0)::BIGINT,
       coalesce(sum(energy) FILTER (NOT is_covered), 0)::BIGINT,
       coalesce(sum(energy) FILTER (is_covered AND is_doubtful), 0)::BIGINT FROM covered GROUP BY 1
"""
# The mean cumulative function of the engines as they were so many days before the last look: at each age with a
# replacement its number over the engines that had reached it.
_SEATS = """
WITH fleet AS (SELECT engine, last - $before AS last FROM engines WHERE last > $before),
seen AS (SELECT s.age FROM seats AS s JOIN fleet USING (engine) WHERE s.age <= fleet.last),
rises AS (
    SELECT age, count(*) / (SELECT count(*) FROM fleet WHERE last >= age) AS rise FROM seen GROUP BY age
), oldest AS (SELECT max(last) AS age FROM fleet)
SELECT sum((SELECT coalesce(sum(rise), 0) FROM rises WHERE rises.age > fleet.last
                AND rises.age <= least(fleet.last + $days, oldest.age))
           + greatest(0, fleet.last + $days - oldest.age) * (SELECT sum(rise) FROM rises) / oldest.age),
       (SELECT count(*) FROM seats AS s JOIN engines AS e USING (engine)
        WHERE s.age > e.last - $before AND s.age <= e.last - $before + $days)::INTEGER
FROM fleet, oldest
"""


class Source:
    """The file in DuckDB, and the numbers of the engines."""

    def __init__(self, limit: int | None) -> None:
        self._db = connect(240)
        with tempfile.TemporaryDirectory() as folder:
            file = unpack(SOURCE, Path(folder), None if limit is None else limit + 1)
            self._db.execute(_MINUTES, {"file": str(file)})
        self._db.execute("CREATE TABLE certificates (since BIGINT, until BIGINT)")
        spans = [(int(since.timestamp()), int(until.timestamp())) for _, since, until in CALIBRATIONS]
        self._db.executemany("INSERT INTO certificates VALUES (?, ?)", spans)
        self._db.execute("CREATE TABLE engines (engine VARCHAR, last INTEGER)")
        self._db.execute("CREATE TABLE seats (engine VARCHAR, age INTEGER)")
        for engine, text in AGES.items():
            *ages, last = map(int, text.split())
            self._db.execute("INSERT INTO engines VALUES (?, ?)", [engine, last])
            for age in ages:
                self._db.execute("INSERT INTO seats VALUES (?, ?)", [engine, age])

    def ask(self, sql: str, **given: int) -> dict[Any, tuple[Any, ...]]:
        """The rows of a query by their first column."""
        return {key: tuple(rest) for key, *rest in self._db.execute(sql, given or None).fetchall()}

    def seats(self, before: int) -> tuple[float, int]:
        """What was to be expected so many days before the last look, and what came."""
        row = self._db.execute(_SEATS, {"before": before, "days": HORIZON_DAYS}).fetchone()
        return row if row is not None else (0.0, 0)


def check(store: ef.Store, limit: int | None = None) -> Checked:
    """Compare with SQL, explain a bill, count under both rules, score the forecasts."""
    checked, source = Checked(), Source(limit)
    store.project(DayOfMeter, WeekOfVoltage)
    days = [row for page in store.select(DayOfMeter).pages() for row in page]
    weeks = [row for page in store.select(WeekOfVoltage, order=["week"]).pages() for row in page]
    silences = [each.event for each in store.read(ef.Query.of(types=[MeterSpokeAgain]))]
    bills = {each.event.month: each.event for each in store.read(ef.Query.of(types=[MonthBilled]))}
    credits = credits_of(store)
    comparison = checked.comparison
    comparison.figures("day", {_day(row.day): _facts(row) for row in days}, source.ask(_DAYS))
    ours = {_day(row.week): (row.means, row.means_outside, row.means_beyond, row.minutes_outside) for row in weeks}
    comparison.figures("week of voltage", ours, source.ask(_WEEKS))
    silent = {int(each.since.timestamp()): each.minutes for each in silences}
    theirs = {since: minutes for since, (minutes, _) in source.ask(_SILENCES).items()}
    comparison.figures("silence since", silent, theirs)
    doubt, good = int(CALIBRATIONS[1][1].timestamp()), int(CALIBRATIONS[3][1].timestamp())
    billed = {month: facts for month, facts in source.ask(_BILLS, doubt=doubt, good=good).items() if month in bills}
    is_withdrawn = any(each.is_bad for each in store.state(Traceability(METER)).chain)
    mine = {month: (each.billed, each.not_billed, credits.get(month, 0)) for month, each in bills.items()}
    comparison.figures("bill", mine, {key: (*two, third * is_withdrawn) for key, (*two, third) in billed.items()})
    for each in billed_twice(store):
        comparison.finding("a second bill of one month", each)
    _seats(store, checked, source)
    _voltage(store, checked, weeks)
    checked.add("Silences", _silences(silences))
    if ASKED in bills:
        checked.add(f"What did the bill of {ASKED} rest on?", what_it_rested_on(store, ASKED))
    checked.figures |= {
        "hours": store.count(ef.Query.of(types=[ReadingsTaken])),
        "silences": len(silences),
        "longest_silence": max((each.minutes for each in silences), default=0),
        "kwh": round(sum(row.energy for row in days) / KWH, 4),
        "sub_meters_kwh": [sum(row.sub_meters[each] for row in days) / 1_000 for each in range(3)],
        "bills": len(bills),
        "billed_kwh": sum(each.billed for each in bills.values()) / KWH,
        "not_billed_kwh": sum(each.not_billed for each in bills.values()) / KWH,
        "credited_kwh": sum(credits.values()) / KWH,
    }
    checked.plot = _plot(days)
    return checked


def _day(moment: datetime) -> int:
    return int(moment.timestamp()) // 86_400


def _facts(row: DayOfMeter) -> tuple[int, ...]:
    return (row.minutes, row.energy, *row.sub_meters)


def credits_of(store: ef.Store) -> dict[str, int]:
    """What was credited for each month."""
    found: dict[str, int] = defaultdict(int)
    for each in store.read(ef.Query.of(types=[CreditIssued])):
        found[each.event.month] += each.event.credited
    return dict(found)


def billed_twice(store: ef.Store) -> list[str]:
    """The bills of a month that was billed before."""
    seen: set[tuple[str, str]] = set()
    found: list[str] = []
    for each in store.read(ef.Query.of(types=[MonthBilled])):
        key = each.event.meter, each.event.month
        if key in seen:
            found.append(f"{each.event.month} at position {each.position}")
        seen.add(key)
    return found


def what_it_rested_on(store: ef.Store, month: str) -> list[str]:
    """The certificates that covered the hours of a bill, as known when it was sent, and as known now."""
    query = ef.Query.of(types=[MonthBilled], tags=[f"meter:{METER}", f"month:{month}"])
    sent = next(iter(store.read(query)))
    lines: list[str] = []
    for words, position in (("when it was sent", sent.position - 1), ("now", store.head())):
        chain = store.state(Traceability(METER), at=position)
        hours = store.state(Month(METER, month), at=position).hours
        covered = sum(energy for hour, energy in hours.items() if chain.covers(hour))
        names = [each.name for each in chain.chain if any(each.at <= hour < each.valid_until for hour in hours)]
        bad = [each.name for each in chain.chain if each.is_bad]
        doubt = f"; withdrawn: {', '.join(bad)}" if bad else ""
        lines.append(f"{words}: {', '.join(names)}{doubt}; {covered / KWH:,.3f} kWh are covered")
    return [*lines, f"billed {sent.event.billed / KWH:,.3f} kWh, credited {credits_of(store).get(month, 0) / KWH:,.3f}"]


def _silences(silences: list[MeterSpokeAgain]) -> list[str]:
    longest = sorted(silences, key=lambda each: -each.minutes)[:5]
    return table(("since", "minutes"), [(f"{each.since:%Y-%m-%d %H:%M}", each.minutes) for each in longest])


def _voltage(store: ef.Store, checked: Checked, weeks: list[WeekOfVoltage]) -> None:
    """Weeks that break each rule, and those that were found under the rule of their time."""
    found = [each.event for each in store.read(ef.Query.of(types=[VoltageLimitExceeded]))]
    broken = {rule: [week for week in weeks if week.breaks(rule)] for rule in (EVERY_MINUTE, STANDARD)}
    share = sum(week.means_outside > 0.05 * week.means for week in weeks)
    checked.figures |= {
        "weeks": len(weeks),
        "minutes_outside": sum(week.minutes_outside for week in weeks),
        "means": sum(week.means for week in weeks),
        "means_outside": sum(week.means_outside for week in weeks),
        "highest_mean": round(max((week.highest for week in weeks), default=0.0) / 100, 3),
        "weeks_broken": {rule: len(each) for rule, each in broken.items()} | {"95 % of the means": share},
        "weeks_found": {rule: sum(each.rule == rule for each in found) for _, rule in RULES},
    }
    lines = [(rule, len(each), checked.figures["weeks_found"][rule]) for rule, each in broken.items()]
    reasons = [f"{each.week}: {each.reason}" for each in found if each.rule == STANDARD]
    head = ("rule", f"weeks of {len(weeks)} that break it", "found while it held")
    checked.add("Voltage under two rules", [*table(head, lines), *reasons])


def _seats(store: ef.Store, checked: Checked, source: Source) -> None:
    """Compare each forecast with SQL and with itself, made again from what was known then; and with what came."""
    fleet = store.state(Fleet(FLEET))
    lines: list[tuple[Any, ...]] = []
    made = {each.event.as_of: each.event for each in store.read(ef.Query.of(types=[ReplacementsForecast]))}
    for before in FORECAST_BEFORE_DAYS:
        as_of = LAST_LOOK - ef.days(before)
        again, constant = expected(store.state(Fleet(FLEET), occurred_until=as_of), as_of, HORIZON_DAYS)
        stated = made[as_of]
        checked.comparison.figure(f"forecast of {as_of:%Y-%m-%d}, made again", stated.expected, again)
        by_sql, came_by_sql = source.seats(before)
        checked.comparison.figure(f"forecast of {as_of:%Y-%m-%d}", round(stated.expected, 6), round(by_sql, 6))
        checked.comparison.figure(f"replacements after {as_of:%Y-%m-%d}", came(fleet, as_of, HORIZON_DAYS), came_by_sql)
        leaky = in_hindsight(fleet, LAST_LOOK, as_of, HORIZON_DAYS)
        figures = [round(each, 1) for each in (stated.expected, constant, leaky)]
        lines.append((f"{as_of:%Y-%m-%d}", *figures, came_by_sql))
    total = ("sum", *(round(sum(line[column] for line in lines), 1) for column in (1, 2, 3, 4)))
    head = ("as of", "mean cumulative", "constant rate", "in hindsight", "came")
    checked.add(f"Valve seats within {HORIZON_DAYS} days", table(head, [*lines, total]))
    checked.figures["seats"] = [list(line) for line in lines]


def _plot(days: list[DayOfMeter]) -> str:
    months: dict[str, float] = defaultdict(float)
    for row in days:
        months[f"{row.day:%Y-%m}"] += row.energy / KWH
    return bar_plot(
        "Energy of a household by month, kWh",
        "High in winter and low in summer, between 200 and 1,200 kWh, from December 2006 to November 2010.",
        dict(sorted(months.items())),
        every=6,
    )


if __name__ == "__main__":
    sys.exit(main("meters", load, check))
