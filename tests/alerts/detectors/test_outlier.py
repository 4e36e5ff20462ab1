"""Outlier: values that are rare in their history, by counted ranges or by the last 201 values."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventfold as ef
from eventfold.alerts.detectors.quantiles import QuantileHistory
from eventfold.errors import InvalidInput
from tests.alerts.detectors.every import MINUTE, feed


class Transfers(ef.State):
    """A state with outliers, to build them as users do."""

    rare: ef.Outlier = ef.outlier(rarer_than=1 / 1000, warm=200)
    high: ef.Outlier = ef.outlier(side="high")
    recent: ef.Outlier = ef.outlier(window=201)


def odd(detector: ef.Outlier, values: list[float]) -> list[int]:
    """The indexes of the values that were rare."""
    found: list[int] = []
    for number, value in enumerate(values):
        feed(detector, number, value)
        if detector.is_odd:
            found.append(number)
    return found


SHAPES: dict[str, Callable[[Random], float]] = {
    "lognormal": lambda random: random.lognormvariate(3, 1),
    "normal far from zero": lambda random: random.gauss(1000, 3),
    "pareto": lambda random: random.paretovariate(1.5),
    "negative exponential": lambda random: -random.expovariate(1),
    "uniform ints": lambda random: random.randrange(1_000_000),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_about_one_in_a_thousand_fires_on_each_side(shape: str) -> None:
    """Of 20,000 values of any shape about 0.1 % are beyond the range on each side; exact ranks are the oracle."""
    random = Random(26)
    values = [SHAPES[shape](random) for _ in range(20_000)]
    found = odd(Transfers().rare, values)
    assert len(found) <= 60
    ordered: list[float] = []
    exact: set[int] = set()
    for number, value in enumerate(values):
        rank = bisect_left(ordered, value)
        ordered.insert(rank, value)
        if number >= 5_000 and number - rank < number / 5_000 and rank > number / 2:
            exact.add(number)  # five times as rare as the limit: the ranges are 5 % wide
    assert len(exact - set(found)) <= (1 if shape in ("lognormal", "pareto", "normal far from zero") else 99)


def test_the_first_thousand_values_fire_only_far_beyond_all_others() -> None:
    """With 200 to 1,000 values "1 in 1,000" cannot be counted: a new maximum alone is no fault."""
    random = Random(1)
    found = [odd(Transfers().rare, [random.gauss(0, 1) for _ in range(1_000)]) for _ in range(20)]
    assert sum(map(len, found)) <= 1
    values = [random.gauss(0, 1) for _ in range(300)]
    assert odd(Transfers().rare, [*values, 12.0]) == [300]


def test_a_rare_value_fires_for_ten_minutes_with_its_numbers() -> None:
    """The reason has the value, its rank and its history; what comes afterwards does not end it sooner."""
    detector, random = Transfers().high, Random(3)
    for number in range(2_000):
        feed(detector, number, random.randrange(100))
    feed(detector, 5_000, 9_000)
    assert detector.fires(5_000) == "9,000 is higher than each of its 2,000 values."
    feed(detector, 5_001, 50)
    assert not detector.is_odd
    assert detector.fires(5_000 + 10 * MINUTE - 1) is not None
    assert detector.due(5_001) == 5_000 + 10 * MINUTE
    assert detector.fires(5_000 + 10 * MINUTE) is None


def test_one_side_ignores_the_other() -> None:
    """With `side="high"` a low value is no fault."""
    random = Random(3)
    values: list[float] = [random.gauss(0, 1) for _ in range(2_000)]
    assert 2_000 in odd(Transfers().rare, [*values, -50.0])
    assert 2_000 not in odd(Transfers().high, [*values, -50.0])


def test_a_constant_series_fires_at_the_first_other_value() -> None:
    """Without any variance, another value is rare."""
    assert odd(Transfers().rare, [5.0] * 500 + [5.1]) == [500]
    assert odd(Transfers().recent, [5.0] * 500 + [5.1]) == []
    assert odd(Transfers().recent, [5.0] * 500 + [16.0]) == [500]


def test_a_level_that_stays_becomes_usual() -> None:
    """After a lasting change the window of 201 adapts at once, the whole history after one in a thousand."""
    values: list[float] = [float(number % 7) for number in range(2_000)] + [
        100.0 + number % 7 for number in range(2_000)
    ]
    assert 2_000 in odd(Transfers().rare, values)
    assert 0 < len(odd(Transfers().rare, values)) <= 40
    recent = odd(Transfers().recent, values)
    assert recent[0] == 2_000
    assert recent[-1] <= 2_110


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.floats(-1e12, 1e12), st.integers(-3, 3)), min_size=64, max_size=400))
def test_the_counts_of_the_ranges_are_true(values: list[float]) -> None:
    """`above` and `below` are the counts beyond `high` and `low`, and these are the outermost that are not rare."""
    history = QuantileHistory(0.02)
    for value in values:
        history.learn(value)
    pairs = list(zip(history.keys, history.counts, strict=True))
    above = sum(count for key, count in pairs if key > history.high)
    below = sum(count for key, count in pairs if key < history.low)
    assert (history.above, history.below, history.total) == (above, below, len(values))
    rare = 0.02 * len(values)
    assert above < rare <= above + dict(pairs)[history.high]
    assert below < rare <= below + dict(pairs)[history.low]
    assert history.keys == sorted(set(history.keys))
    assert len(history.keys) <= 256


def test_halving_keeps_the_ranges_and_forgets() -> None:
    """After 100,000 values counts are halved, the data stay bounded, and the share that fires stays."""
    detector, random = Transfers().rare, Random(9)
    found = odd(detector, [random.lognormvariate(0, 2) for _ in range(120_000)])
    assert isinstance(detector.history, QuantileHistory)
    assert detector.history.is_halved
    assert 50_000 <= detector.history.total < 100_000
    assert len([each for each in found if each >= 100_000]) <= 100
    assert all(math.isfinite(count) for count in detector.history.counts)


@pytest.mark.parametrize(
    "arguments",
    [
        {"rarer_than": 0},
        {"rarer_than": 0.5},
        {"rarer_than": float("nan")},
        {"rarer_than": 0.001, "window": 201},
        {"z": 5},
        {"floor": 1},
        {"window": 3},
        {"window": 100_000},
        {"window": 201, "z": 0},
        {"window": 201, "floor": 0},
        {"window": 201, "warm": 500},
        {"warm": 10},
        {"side": "left"},
        {"hold": ef.minutes(0)},
    ],
)
def test_what_cannot_be_an_outlier_is_refused_at_its_declaration(arguments: dict[str, Any]) -> None:
    """Contradictions, and limits that never or always fire, are named where they are written."""
    with pytest.raises(InvalidInput):
        ef.outlier(**arguments)
