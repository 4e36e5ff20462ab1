"""Maintenance: the replaced valve seats of 41 diesel engines, and how many more are expected, by what was known then.

The mean cumulative function of a fleet at an age is the number of replacements that an engine has had by then, on
average over the engines that were watched at each age. A forecast adds, for every engine, its rise over the next days.
Beyond the oldest engine the function is not known: there it rises on at its mean rate.
Knows: events, the fleet, forecasts. Does not know: which engines there are, how a forecast is checked.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import eventfold as ef

FLEET = "diesel"


class EngineInstalled(ef.Event):
    """An engine began to run, new."""

    fleet: ef.Tag
    engine: ef.Tag
    at: datetime


class SeatReplaced(ef.Event):
    """A worn valve seat was replaced; `number` counts those of the engine (two may be replaced on one day)."""

    fleet: ef.Tag
    engine: ef.Tag
    number: int
    at: datetime


class EngineRetired(ef.Event):
    """An engine is watched no more."""

    fleet: ef.Tag
    engine: ef.Tag
    at: datetime


class ReplacementsForecast(ef.Event):
    """How many replacements the fleet is to have within the next days, from what was known at a moment."""

    fleet: ef.Tag
    as_of: datetime
    days: int
    expected: float
    at_constant_rate: float


class Fleet(ef.State):
    """The engines of a fleet: when each was installed, its replacements, and when it was retired."""

    fleet: ef.Tag
    installed: dict[str, datetime] = {}
    replaced: dict[str, list[datetime]] = {}
    retired: dict[str, datetime] = {}
    forecasts: set[datetime] = set()

    def evolve(self, event: EngineInstalled | SeatReplaced | EngineRetired | ReplacementsForecast) -> None:
        """Add an engine, a replacement, an end, or a forecast."""
        match event:
            case EngineInstalled():
                self.installed[event.engine] = event.at
            case SeatReplaced():
                self.replaced.setdefault(event.engine, []).append(event.at)
            case EngineRetired():
                self.retired[event.engine] = event.at
            case ReplacementsForecast():
                self.forecasts.add(event.as_of)

    def ages(self, now: datetime) -> dict[str, int]:
        """The age in days of each engine: now, or when it was retired."""
        return {one: (min(self.retired.get(one, now), now) - at).days for one, at in self.installed.items()}

    def mean_cumulative(self, now: datetime) -> list[tuple[int, float]]:
        """The mean cumulative function, as ages at which it rises and its values there."""
        ages = self.ages(now)
        worn = sorted((at - self.installed[one]).days for one, dates in self.replaced.items() for at in dates)
        total, steps = 0.0, list[tuple[int, float]]()
        for age in sorted(set(worn)):
            total += worn.count(age) / sum(each >= age for each in ages.values())
            steps.append((age, total))
        return steps


def value_at(steps: list[tuple[int, float]], age: int) -> float:
    """The value of a function of steps at an age."""
    return next((value for at, value in reversed(steps) if at <= age), 0.0)


def expected(then: Fleet, as_of: datetime, days: int) -> tuple[float, float]:
    """Replacements within the next days: by the mean cumulative function, and at a constant rate."""
    ages = then.ages(as_of)
    running = [age for one, age in ages.items() if one not in then.retired]
    oldest, steps = max(ages.values()), then.mean_cumulative(as_of)
    total = 0.0
    for age in running:
        total += value_at(steps, min(age + days, oldest)) - value_at(steps, age)
        total += max(0, age + days - oldest) * value_at(steps, oldest) / oldest
    seats = sum(map(len, then.replaced.values()))
    return total, days * len(running) * seats / sum(ages.values())


def in_hindsight(fleet: Fleet, now: datetime, as_of: datetime, days: int) -> float:
    """The same replacements by the function that is known at the end: what a leaky score would have shown."""
    steps = fleet.mean_cumulative(now)
    ages = fleet.ages(as_of).values()
    return sum(value_at(steps, age + days) - value_at(steps, age) for age in ages)


def forecast(fleet: Fleet, as_of: datetime, days: int, replacements: float, constant: float) -> list[ef.Draft]:
    """Record a forecast, once for each moment."""
    if as_of in fleet.forecasts:
        return []
    made = ReplacementsForecast(fleet.fleet, as_of, days, replacements, constant)
    return [ef.Draft(made, occurred=as_of)]


def came(fleet: Fleet, since: datetime, days: int) -> int:
    """How many replacements came within the days after a moment."""
    until = since + timedelta(days=days)
    return sum(since < at <= until for dates in fleet.replaced.values() for at in dates)
