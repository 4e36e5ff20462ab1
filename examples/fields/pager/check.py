"""Checks the pager: alerts and releases by SQL windows, a refused release explained, another rule, a forecast.

Knows: the source, SQL. Does not know: how alerts are decided.
"""

from __future__ import annotations

import math
import sys
from datetime import timedelta
from typing import Any

import eventfold as ef
from eventfold.demo.fields import Checked, connect, main
from eventfold.demo.fields.plot import line_plot
from eventfold.demo.fields.report import table
from examples.fields.pager.app import (
    AlertRaised,
    AlertResolved,
    Budget,
    FailureReported,
    ReleaseDeployed,
    ReleaseRefused,
    Rule,
    ServiceRestored,
    WatchEnded,
)
from examples.fields.pager.load import START, Row, load, rows

STRICT = Rule("ten in seven days", 10, 7)
ASKED, ASKED_DAY = "SS1C", 98
DAY_S = 86_400

# The budget is spent from the n-th failure of a window until the first of these n is too old; intervals that touch are
# one alert. This is another way than the loader's, which counts a sliding window at each moment.
_ALERTS = """
CREATE OR REPLACE TABLE alerts AS WITH numbered AS (
    SELECT system, t, lag(t, $failures - 1) OVER (PARTITION BY system ORDER BY number) AS first,
           max(t) OVER (PARTITION BY system) AS last
    FROM steps WHERE is_failure
), spent AS (
    SELECT system, t AS begins, first + $days * 86400 AS ends FROM numbered WHERE t - first < $days * 86400
), marked AS (
    SELECT *, coalesce(begins >= max(ends) OVER (PARTITION BY system ORDER BY begins, ends
                       ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), true) AS is_new FROM spent
), islands AS (
    SELECT *, sum(is_new::INTEGER) OVER (PARTITION BY system ORDER BY begins, ends) AS island FROM marked
)
SELECT system, min(begins) AS begins, max(ends) AS ends FROM islands GROUP BY system, island
"""
_HOURS = """
SELECT a.system, count(*)::INTEGER, sum(least(ends, watched) - begins)::BIGINT
FROM alerts AS a JOIN (SELECT system, max(t) AS watched FROM steps GROUP BY system) USING (system) GROUP BY 1
"""
_REFUSED = """
SELECT due.system, due.day FROM (
    SELECT system, unnest(generate_series(7, max(t) // 86400, 7)) AS day FROM steps GROUP BY system
) AS due JOIN alerts AS a ON a.system = due.system AND due.day * 86400 >= begins AND due.day * 86400 < ends
"""


class Source:
    """The rows in DuckDB, in seconds since the start."""

    def __init__(self, taken: list[Row]) -> None:
        self._db = connect()
        self._db.execute("CREATE TABLE steps (system VARCHAR, number INTEGER, t BIGINT, is_failure BOOLEAN)")
        found = [(row.system, row.number, int((row.at - START).total_seconds()), row.is_failure) for row in taken]
        if found:
            self._db.executemany("INSERT INTO steps VALUES (?, ?, ?, ?)", found)

    def failures(self) -> dict[str, int]:
        """Failures by system."""
        sql = "SELECT system, count(*) FILTER (is_failure)::INTEGER FROM steps GROUP BY 1"
        return dict(self._db.execute(sql).fetchall())

    def alerts(self, rule: Rule) -> dict[str, tuple[int, int]]:
        """Alerts and their open seconds by system."""
        self._find_alerts(rule)
        return {system: (alerts, open_s) for system, alerts, open_s in self._db.execute(_HOURS).fetchall()}

    def refused(self, rule: Rule) -> set[tuple[str, int]]:
        """The refused releases: system and day."""
        self._find_alerts(rule)
        return {(system, int(day)) for system, day in self._db.execute(_REFUSED).fetchall()}

    def _find_alerts(self, rule: Rule) -> None:
        self._db.execute(_ALERTS, {"failures": rule.failures, "days": rule.days})


def check(store: ef.Store, limit: int | None = None) -> Checked:
    """Compare with SQL, explain the refusal, ask another rule, forecast."""
    checked, taken = Checked(), rows(limit)
    source = Source(taken)
    systems = list(dict.fromkeys(row.system for row in taken))
    ours = {system: figures_of(store, system) for system in systems}
    comparison = checked.comparison
    comparison.figures("failures", {one: each["failures"] for one, each in ours.items()}, source.failures())
    alerts = {one: (each["alerts"], each["open_s"]) for one, each in ours.items() if each["alerts"]}
    comparison.figures("alerts and open seconds", alerts, source.alerts(Rule()))
    refused, deployed = releases_of(store)
    comparison.figure("refused releases", sorted(refused), sorted(source.refused(Rule())))
    for each in unfounded(store):
        comparison.finding("a release that went out while an alert was open", each)
    strict = what_if(STRICT, limit)
    comparison.figure(f"refused under {STRICT.name}", sorted(strict), sorted(source.refused(STRICT)))
    checked.add("Failures, alerts, and hours without releases", _systems(ours))
    checked.add(f"Why was the release of day {ASKED_DAY} of {ASKED} refused?", why(store, ASKED, ASKED_DAY))
    all_releases = len(refused) + deployed
    checked.add(
        "Releases",
        [
            f"{len(refused)} of {all_releases} were refused under {Rule().name}",
            f"{len(strict)} of {all_releases} would have been under {STRICT.name}",
        ],
    )
    forecasts = {system: forecast(taken, system) for system in systems}
    checked.add("The second half, forecast from the first", _forecast(forecasts))
    checked.figures = {
        "systems": ours,
        "refused": len(refused),
        "refused_under_ten": len(strict),
        "releases": all_releases,
        "forecast": forecasts,
    }
    checked.plot = _plot(taken)
    return checked


def figures_of(store: ef.Store, system: str) -> dict[str, Any]:
    """Failures, alerts, their open seconds and the seconds down of one system, from its events."""
    query = ef.Query.of(types=[FailureReported, AlertRaised, AlertResolved, ServiceRestored, WatchEnded])
    mine = ef.Query.of(types=[each for item in query.items for each in item.types], tags=[f"system:{system}"])
    found = [(each.occurred or each.time, each.event) for each in store.read(mine)]
    failed = {event.number: at for at, event in found if isinstance(event, FailureReported)}
    raised = {event.alert: at for at, event in found if isinstance(event, AlertRaised)}
    resolved = {event.alert: at for at, event in found if isinstance(event, AlertResolved)}
    end = next((at for at, event in found if isinstance(event, WatchEnded)), max(failed.values(), default=START))
    open_s = sum((min(resolved.get(alert, end), end) - at).total_seconds() for alert, at in raised.items())
    down = [(at - failed[event.number]).total_seconds() for at, event in found if isinstance(event, ServiceRestored)]
    weeks = [sum(at - timedelta(days=7) < each <= at for each in failed.values()) for at in failed.values()]
    return {
        "failures": len(failed),
        "alerts": len(raised),
        "open_s": int(open_s),
        "worst_week": max(weeks, default=0),
        "mean_repair_s": sum(down) / len(down) if down else 0.0,
    }


def releases_of(store: ef.Store) -> tuple[set[tuple[str, int]], int]:
    """The refused releases as system and day, and the number of those that went out."""
    refused = store.read(ef.Query.of(types=[ReleaseRefused]))
    days = {(each.event.system, ((each.occurred or each.time) - START).days) for each in refused}
    return days, store.count(ef.Query.of(types=[ReleaseDeployed]))


def unfounded(store: ef.Store) -> list[str]:
    """The releases that went out, without an override, while their system had an open alert."""
    found: list[str] = []
    open_now: dict[str, str] = {}
    for each in store.read(ef.Query.of(types=[AlertRaised, AlertResolved, ReleaseDeployed])):
        match each.event:
            case AlertRaised(system=system, alert=alert):
                open_now[system] = alert
            case AlertResolved(system=system):
                open_now.pop(system, None)
            case ReleaseDeployed(system=system, release=name, override_by=by):
                if by is None and system in open_now:
                    found.append(f"{name} at position {each.position}, while {open_now[system]} was open")
            case _:
                continue
    return found


def why(store: ef.Store, system: str, day: int) -> list[str]:
    """Why a release was refused, as it was known then."""
    at = START + timedelta(days=day)
    for each in store.read(ef.Query.of(types=[ReleaseRefused], tags=[f"system:{system}"])):
        if each.occurred == at:
            then = store.state(Budget(system), at=each.position - 1)
            return [
                f"{each.event.release} was refused on day {day} under {each.event.rule.name!r}:",
                f"{each.event.failures} failures in its week; {each.event.alert} had been open, and the last failure "
                f"was {_hours(at - then.recent[-1])} h before.",
            ]
    return [f"No release of day {day} was refused."]


def _hours(span: timedelta) -> str:
    return f"{span.total_seconds() / 3600:.1f}"


def what_if(rule: Rule, limit: int | None) -> set[tuple[str, int]]:
    """The releases that the same decisions refuse under another rule, in a store in memory."""
    with ef.Store("memory:") as store:
        load(store, limit, rule)
        return releases_of(store)[0]


def forecast(taken: list[Row], system: str) -> dict[str, float]:
    """Failures of the second half: forecast by the power law of Crow and AMSAA from the first half, and what came."""
    failures = [(row.at - START).total_seconds() for row in taken if row.system == system and row.is_failure]
    end = max(((row.at - START).total_seconds() for row in taken if row.system == system), default=0.0)
    first = [each for each in failures if 0 < each <= end / 2]
    logs = sum(math.log(end / 2 / each) for each in first)
    expected = len(first) * (2 ** (len(first) / logs) - 1) if logs else float(len(first))
    return {"first": len(first), "expected": expected, "came": sum(each > end / 2 for each in failures)}


def _systems(ours: dict[str, dict[str, Any]]) -> list[str]:
    head = ("system", "failures", "alerts", "hours open", "worst week", "mean repair, h")
    lines: list[tuple[Any, ...]] = []
    for system, each in ours.items():
        hours, repair = f"{each['open_s'] / 3600:,.1f}", each["mean_repair_s"] / 3600
        lines.append((system, each["failures"], each["alerts"], hours, each["worst_week"], repair))
    return table(head, lines)


def _forecast(forecasts: dict[str, dict[str, float]]) -> list[str]:
    lines = [(one, int(each["first"]), round(each["expected"]), int(each["came"])) for one, each in forecasts.items()]
    expected, came = (sum(each[name] for each in forecasts.values()) for name in ("expected", "came"))
    error = sum(abs(each["expected"] - each["came"]) for each in forecasts.values()) / max(1, len(forecasts))
    naive = sum(abs(each["first"] - each["came"]) for each in forecasts.values()) / max(1, len(forecasts))
    return [
        *table(("system", "first half", "forecast", "came"), lines),
        f"{expected:,.0f} were forecast, {came:,.0f} came: a mean error of {error:.1f} a system; "
        f"'as many as before' has {naive:.1f}.",
    ]


def _plot(taken: list[Row]) -> str:
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in taken:
        if row.is_failure and row.system != "SS1A":  # the shortest, whose line would cover another
            line = lines.setdefault(row.system, [(0.0, 0.0)])
            line.append(((row.at - START).total_seconds() / DAY_S, len(line)))
    return line_plot(
        "Failures of five of the six software systems by day of the watch",
        "Each line counts the failures of one system: steps of a few bad days, and long stretches with few failures.",
        lines,
        labels={float(day): f"day {day}" for day in (0, 200, 400, 600)},
    )


if __name__ == "__main__":
    sys.exit(main("pager", load, check))
