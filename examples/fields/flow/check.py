"""Checks the flow: replays each rule over the past, scores it against the described anomalies, asks SQL again.

The owner says that two months hold four anomalies: three low moments (losses, maintenance), and a peak after the first
two of them (water pumped in), without their dates. `DESCRIBED` is how we read that text in the data.
Knows: the source, SQL. Does not know: how a rule is replayed (`store.alerts.replay` does).
"""

from __future__ import annotations

import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import eventfold as ef
from eventfold.alerts.facts import Episode
from eventfold.demo.data import unpack
from eventfold.demo.fields import Checked, connect, main
from eventfold.demo.fields.plot import line_plot
from eventfold.demo.fields.report import table
from examples.fields.flow.app import (
    BRANCH,
    RULES,
    Anomalies,
    AnomalyRaised,
    FartherThanFive,
    FlowReported,
    OutsideBand,
    SensorFellSilent,
    Silent,
    Week,
)
from examples.fields.flow.load import SOURCE, load

HOUR = timedelta(hours=1)
ASKED = datetime.fromisoformat("2022-03-29T08:30+02:00")  # an hour after the episode that no one describes


class Described(NamedTuple):
    """An anomaly that the owner describes: its first and its last reading, as we read it."""

    what: str
    first: datetime
    last: datetime


DESCRIBED = tuple(
    Described(what, datetime.fromisoformat(first), datetime.fromisoformat(last))
    for what, first, last in (
        ("low", "2022-03-24T09:00+01:00", "2022-03-25T00:00+01:00"),
        ("low", "2022-03-29T09:00+02:00", "2022-03-29T20:00+02:00"),
        ("peak", "2022-04-03T06:00+02:00", "2022-04-03T06:00+02:00"),
        ("low", "2022-04-27T15:00+02:00", "2022-04-28T05:00+02:00"),
    )
)


class Score(NamedTuple):
    """What a rule is worth: its episodes, how many of them are described, how many described ones it found."""

    episodes: int
    right: int
    found: int
    late_hours: float | None


def moment(micros: int) -> datetime:
    """Microseconds since 1970 as a moment in UTC."""
    return datetime.fromtimestamp(micros / 1e6, UTC)


def score(episodes: list[Episode]) -> Score:
    """Compare the episodes of a rule with the described anomalies: they agree where they overlap."""
    found: dict[int, float] = {}
    right = 0
    for each in episodes:
        begins, ends = moment(each.at), moment(each.cleared_at or each.at)
        hits = [i for i, one in enumerate(DESCRIBED) if begins <= one.last + HOUR and ends >= one.first]
        right += bool(hits)
        for hit in hits:
            found.setdefault(hit, max(0.0, (begins - DESCRIBED[hit].first) / HOUR))
    return Score(len(episodes), right, len(found), sum(found.values()) / len(found) if found else None)


# Times are microseconds since 1970, as the episodes have them.
_READINGS = """
CREATE TABLE readings AS
SELECT row_number() OVER (ORDER BY moment) AS n, epoch_us(moment) AS t, litres
FROM read_csv($file, header = false, skip = 1, columns = {'moment': 'TIMESTAMPTZ', 'litres': 'DOUBLE'})
"""

# The baseline learns only from what it accepts, so it is computed row by row: a recursion over the accepted readings.
_BAND = """
WITH RECURSIVE steps AS (
    SELECT 0::BIGINT AS n, []::DOUBLE[] AS accepted, false AS odd
    UNION ALL
    SELECT r.n, CASE WHEN v.odd THEN s.accepted ELSE list_append(s.accepted, r.litres)[-168:] END, v.odd
    FROM steps AS s JOIN readings AS r ON r.n = s.n + 1, LATERAL (
        SELECT len(s.accepted) >= 48 AND NOT r.litres BETWEEN 0.90 * list_aggregate(s.accepted, 'median')
                                                          AND 1.05 * list_aggregate(s.accepted, 'median') AS odd
    ) AS v
), odd AS (
    SELECT r.t, r.n - row_number() OVER (ORDER BY r.n) AS run FROM steps JOIN readings AS r USING (n) WHERE steps.odd
)
SELECT min(t) FROM odd GROUP BY run ORDER BY 1
"""

# Quartiles of the last 169 values by rank, as the detector has them; odd hours up to three hours apart are one episode.
_FAR = """
WITH history AS (
    SELECT t, litres, list_sort(list(litres) OVER (ORDER BY n ROWS BETWEEN 169 PRECEDING AND 1 PRECEDING)) AS v
    FROM readings
), judged AS (
    SELECT t, abs(litres - v[(len(v) - 1) // 2 + 1]) > 5 * greatest(
        (v[len(v) - (len(v) - 1) // 4] - v[(len(v) - 1) // 4 + 1]) / 1.349, 0.5, abs(v[(len(v) - 1) // 2 + 1]) / 100
    ) AS odd FROM history WHERE len(v) >= 48
), odd AS (
    SELECT t, coalesce(t - lag(t) OVER (ORDER BY t) > 3 * 3600000000, true) AS begins FROM judged WHERE odd
)
SELECT t FROM odd WHERE begins ORDER BY t
"""

_GAPS = """
SELECT t, ((t - before) / 3600000000 - 1)::INTEGER
FROM (SELECT t, lag(t) OVER (ORDER BY n) AS before FROM readings) WHERE t - before > 3600000000
"""


def check(store: ef.Store, limit: int | None = None) -> Checked:
    """Replay, score, compare with SQL; answer the question about the past; find what was forged."""
    checked = Checked()
    episodes = {rule: store.alerts.replay(rule) for rule in (*RULES, Silent)}
    scores = {rule.__name__: score(episodes[rule]) for rule in RULES}
    _compare(store, checked, limit, episodes)
    forged = _unfounded(store, episodes)
    for each in forged:
        checked.comparison.finding("an anomaly that no rule finds in the readings", each)
    checked.add("What each rule is worth, against the four anomalies that the owner describes", _scored(scores))
    checked.add("Episodes of the band", [f"{moment(e.at):%Y-%m-%d %H:%M}Z  {e.reason}" for e in episodes[OutsideBand]])
    then = store.state(Week(BRANCH), occurred_until=ASKED)
    usual = sorted(then.readings.values())
    checked.add(
        f"What the operator saw on {ASKED:%d %B at %H:%M}",
        [
            f"The last reading was {list(then.readings.values())[-1]} l/s, the median of the hours before "
            f"{usual[len(usual) // 2]} l/s" if usual else "No reading yet.",
        ],
    )  # fmt: skip
    checked.figures = {
        "scores": {name: each._asdict() for name, each in scores.items()},
        "readings": store.count(ef.Query.of(types=[FlowReported])),
        "gaps": len(episodes[Silent]),
        "silent_hours": sum(each.event.hours for each in store.read(ef.Query.of(types=[SensorFellSilent]))),
        "forged": forged,
    }
    checked.plot = _plot(store)
    return checked


def _compare(
    store: ef.Store, checked: Checked, limit: int | None, episodes: dict[type[ef.Alert], list[Episode]]
) -> None:
    """Ask SQL for readings, gaps, and the episodes of two rules."""
    comparison, db = checked.comparison, connect()
    with tempfile.TemporaryDirectory() as folder:
        file = unpack(SOURCE, Path(folder), None if limit is None else limit + 1)
        db.execute(_READINGS, {"file": str(file)})
    reported = store.read(ef.Query.of(types=[FlowReported]))
    ours = {each.stored.occurred: float(each.event.litres) for each in reported}
    comparison.figures("flow", ours, dict(db.execute("SELECT t, litres FROM readings").fetchall()))
    silent = store.read(ef.Query.of(types=[SensorFellSilent]))
    gaps = {each.stored.occurred: each.event.hours for each in silent}
    comparison.figures("hours without a reading before", gaps, dict(db.execute(_GAPS).fetchall()))
    comparison.figure("silent episodes", len(episodes[Silent]), len(gaps))
    for rule, sql in ((OutsideBand, _BAND), (FartherThanFive, _FAR)):
        found = [each.at for each in episodes[rule]]
        comparison.figure(f"episodes of {rule.__name__}", found, [t for (t,) in db.execute(sql).fetchall()])
    db.close()


def _unfounded(store: ef.Store, episodes: dict[type[ef.Alert], list[Episode]]) -> list[str]:
    """The anomalies in the log that no episode of their rule gives."""
    real = {(rule.__name__, moment(each.at)) for rule, found in episodes.items() for each in found}
    raised = [each.event for each in store.read(ef.Query.of(types=[AnomalyRaised]))]
    return [each.anomaly for each in raised if (each.rule, each.since) not in real]


def _scored(scores: dict[str, Score]) -> list[str]:
    rows = [
        (name, one.episodes, f"{one.right}/{one.episodes}", f"{one.found}/{len(DESCRIBED)}", one.late_hours)
        for name, one in scores.items()
    ]
    return table(("rule", "episodes", "precision", "recall", "hours late"), rows)


def _plot(store: ef.Store) -> str:
    """The flow over time, with the band's median."""
    start = DESCRIBED[0].first - timedelta(days=4)
    points = [
        ((each.occurred - start) / timedelta(days=1), float(each.event.litres))
        for each in store.read(ef.Query.of(types=[FlowReported]))
        if each.occurred is not None
    ]
    labels = {(one.first - start) / timedelta(days=1): f"{one.first:%d %b}" for one in DESCRIBED}
    return line_plot(
        "Water flow in a branch pipe, litres a second",
        "Hourly flow from March to May 2022: about 100, three falls to 24 and one peak of 110, on the days below.",
        {"flow": points},
        labels=labels,
    )


def open_anomalies(store: ef.Store) -> Anomalies:
    """The anomalies of the branch now."""
    return store.state(Anomalies(BRANCH))


if __name__ == "__main__":
    sys.exit(main("flow", load, check))
