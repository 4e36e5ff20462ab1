"""Faults planted with seeds into synthetic series: what each detector finds, and what it reports besides.

    python -m tests.alerts.detectors.planted

writes the table into docs/reference/detectors.md, and a test compares it. Knows: shapes of series, faults, detectors.
Does not know: alerts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
from typing import NamedTuple
from zoneinfo import ZoneInfo

import eventfold as ef
from eventfold.alerts.calendars import micros_of
from eventfold.alerts.detectors.quantiles import QuantileHistory
from eventfold.alerts.detectors.recent import RecentValues
from tests.alerts.detectors.every import HOUR, MINUTE, SECOND, feed
from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "reference" / "detectors.md"
BERLIN = ZoneInfo("Europe/Berlin")
MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
Draw = Callable[[Random, int], float]


class Score(NamedTuple):
    """What a detector found in one series: of how many values (or hours, gaps), with how many faults."""

    watched: str
    detector: str
    size: int
    faults: int
    found: int
    besides: int  # reports where no fault was planted

    @property
    def precision(self) -> float:
        """The share of reports that are of a fault."""
        return self.found / max(self.found + self.besides, 1)

    @property
    def recall(self) -> float:
        """The share of faults that were reported."""
        return self.found / self.faults


def score(watched: str, detector: str, size: int, faults: set[int], fired: set[int]) -> Score:
    """Compare what fired with what was planted."""
    return Score(watched, detector, size, len(faults), len(faults & fired), len(fired - faults))


def count(random: Random, mean: float) -> int:
    """A number of random arrivals (Poisson)."""
    if mean > 50:
        return max(0, round(random.gauss(mean, math.sqrt(mean))))
    number, rest = 0, random.random()
    while rest > math.exp(-mean):
        number, rest = number + 1, rest * random.random()
    return number


# ------------------------------------------------------------------------------------------ one series each


def rates() -> Score:
    """Random arrivals, six in five minutes; bursts of 40 within two minutes are planted."""
    random, size = Random(101), 20_000
    moments = [0.0]
    while len(moments) < size:
        moments.append(moments[-1] + random.expovariate(1 / 50))
    starts = [random.uniform(moments[100], moments[-1] - 600) for _ in range(25)]
    extra = [start + 3 * number for start in starts for number in range(40)]
    detector = ef.Rate(per=300 * SECOND, more_than=25)
    found: set[int] = set()
    besides = firing = 0
    for at in sorted(moments + extra):
        feed(detector, int(at * SECOND))
        fires = detector.fires(detector.now) is not None
        near = {number for number, start in enumerate(starts) if start <= at <= start + 420}
        found |= near if fires else set()
        besides += fires and not firing and not near
        firing = fires
    return Score("bursts in random arrivals", "ef.rate(per=ef.minutes(5), more_than=25)", size, 25, len(found), besides)


def gaps(watched: str, seed: int, draw: Callable[[Random], float], silence: float) -> Score:
    """Gaps of about a minute; silences are planted at one gap in 250."""
    random, detector, now = Random(seed), ef.Absence(expect=MINUTE, factor=5.0), 0
    faults: set[int] = set()
    fired: set[int] = set()
    for number in range(20_000):
        gap = draw(random)
        if number > 200 and random.random() < 0.004:
            faults.add(number)
            gap = silence
        if detector.fires(now + int(gap * MINUTE) - 1) is not None:
            fired.add(number)
        now += int(gap * MINUTE)
        feed(detector, now)
    return score(watched, "ef.absence(times_usual=5)", 20_000, faults, fired)


def seasons(watched: str, seed: int, level: float, spread: float = 0.0) -> Score:
    """Half a year of hourly numbers with a daily and weekly rhythm in Berlin; 40 hours are emptied or multiplied."""
    random, size = Random(seed), 26 * 168
    values: list[int] = []
    for number in range(size):
        local = (MONDAY + timedelta(hours=number)).astimezone(BERLIN)
        day = max(0.0, math.sin((local.hour - 5) / 17 * math.pi)) if 5 < local.hour < 22 else 0.02
        mean = level * (0.05 + day) * (0.5 if local.weekday() > 4 else 1.0)
        values.append(count(random, mean * (random.gammavariate(1 / spread, spread) if spread else 1.0)))
    faults: set[int] = set()
    while len(faults) < 40:
        number = random.randrange(5 * 168, size)
        if 8 < (MONDAY + timedelta(hours=number)).astimezone(BERLIN).hour < 19 and number not in faults:
            faults.add(number)
            values[number] = 0 if len(faults) % 2 else 4 * values[number] + 10
    detector, fired = ef.Seasonal("Europe/Berlin"), set[int]()
    for number, value in enumerate(values):
        at = micros_of(MONDAY) + number * HOUR
        if value:
            feed(detector, at, value)
        if detector.fires(at + HOUR) is not None:
            fired.add(number)
    return score(watched, 'ef.seasonal(zone="Europe/Berlin")', size, faults, fired)


def spikes(watched: str, seed: int, detector: ef.Outlier, how: str, draw: Draw, spike: Draw) -> Score:
    """20,000 values, of which 40 are replaced; 10 if the detector fires on 1 value in 1,000."""
    random, size = Random(seed), 20_000
    planted = 10 if isinstance(detector.history, QuantileHistory) else 40
    values = [draw(random, number) for number in range(size)]
    faults = set(random.sample(range(500, size), planted))
    fired: set[int] = set()
    for number, value in enumerate(values):
        feed(detector, number, spike(random, number) if number in faults else value)
        if detector.is_odd:
            fired.add(number)
    return score(watched, how, size, faults, fired)


def levels(watched: str, seed: int, draw: Draw, shift: Callable[[int], float]) -> Score:
    """30 series of 5,000 values, each with one change of level; found: within 1,000 values of it."""
    random = Random(seed)
    found = besides = 0
    for _ in range(30):
        change, detector = random.randrange(2_000, 3_500), ef.Drift()
        fired: list[int] = []
        for number in range(5_000):
            value = draw(random, number) + (shift(number - change) if number >= change else 0.0)
            feed(detector, number, value)
            if detector.is_changed:
                fired.append(number)
        found += any(change <= number < change + 1_000 for number in fired)
        besides += sum(number < change for number in fired)
    return Score(watched, "ef.drift()", 150_000, 30, found, besides)


def history(share: float = 0.001) -> ef.Outlier:
    """An outlier by the whole history."""
    return ef.Outlier(QuantileHistory(share))


def recent() -> ef.Outlier:
    """An outlier by the last 201 values."""
    return ef.Outlier(RecentValues(201, 10.0, 1.0), warm=201)


def each() -> Iterator[Score]:
    """Run every scenario."""
    rare, window = "ef.outlier(rarer_than=1/1000)", "ef.outlier(window=201)"
    yield rates()
    yield gaps("silence, 8 times a regular gap", 201, lambda r: r.uniform(0.8, 1.2), 8)
    yield gaps("silence, 20 times the mean of random gaps", 202, lambda r: r.expovariate(1), 20)
    yield gaps("silence, 60 minutes after bursts with pauses of 9", 203, lambda r: r.choice([0.01] * 9 + [9]), 60)
    yield seasons("empty and fourfold hours, 500 at the peak", 301, 500)
    yield seasons("the same, with a spread of 14 % besides", 302, 500, 0.02)
    yield seasons("the same, 50 at the peak", 303, 50)
    yield seasons("the same, 10 at the peak", 304, 10)
    yield spikes(
        "spikes of 10 deviations, normal values", 401, history(), rare, lambda r, _: r.gauss(1_000, 3),
        lambda r, _: 1_000 + r.choice([-30, 30]),
    )  # fmt: skip
    yield spikes(
        "spikes of 3,000, lognormal values about 20", 402, history(), rare, lambda r, _: r.lognormvariate(3, 1),
        lambda r, _: r.uniform(2_000, 4_000),
    )  # fmt: skip
    yield spikes(
        "spikes of 15, numbers that are mostly 0", 403, recent(), window, lambda r, _: count(r, 0.3), lambda r, _: 15
    )
    yield spikes(
        "spikes of -90, a level that moves by 50", 404, recent(), window,
        lambda r, n: 100 + 50 * math.sin(n / 2_000) + r.gauss(0, 5), lambda r, n: 10 + 50 * math.sin(n / 2_000),
    )  # fmt: skip
    yield levels("a step of one deviation, normal values", 501, lambda r, _: r.gauss(0, 1), lambda _: 1)
    yield levels("a slow rise, one deviation in 500 values", 502, lambda r, _: r.gauss(50, 2), lambda n: n / 250)
    yield levels("twice the level, lognormal values", 503, lambda r, _: r.lognormvariate(3, 1), lambda _: 33)


@cache
def scores() -> list[Score]:
    """Every score, computed once."""
    return list(each())


def table() -> str:
    """The scores as a table in Markdown."""
    lines = [
        "| faults | detector | values | faults | found | besides | precision | recall |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {one.watched} | `{one.detector}` | {one.size:,} | {one.faults} | {one.found} | {one.besides} | "
        f"{one.precision:.2f} | {one.recall:.2f} |"
        for one in scores()
    ]
    return "\n".join(lines)


BEGIN, END = "<!-- planted: python -m tests.alerts.detectors.planted -->\n", "\n<!-- end -->"


def page(text: str) -> str:
    """The page with the table of today."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
    print(table())
