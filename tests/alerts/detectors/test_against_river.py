"""The detectors against river, a library of streaming statistics: the same means, quantiles and changes.

One module, since river takes seconds to import.
"""

from __future__ import annotations

from datetime import date
from math import inf, isclose
from random import Random

import pytest
from river import drift, stats

import eventfold as ef
from eventfold.alerts.detectors.moving import moved
from eventfold.alerts.detectors.quantiles import QuantileHistory
from eventfold.alerts.detectors.recent import RecentValues
from tests.alerts.detectors.every import feed
from tests.alerts.detectors.flights import days, hours


@pytest.mark.parametrize("weight", [0.05, 0.3, 1.0])
def test_moving_mean_and_variance_are_those_of_ewmean_and_ewvar(weight: float) -> None:
    """Step by step, over 2,000 values of two scales."""
    random, mean, variance = Random(1), 0.0, 0.0
    their_mean, their_variance = stats.EWMean(fading_factor=weight), stats.EWVar(fading_factor=weight)
    for number in range(2_000):
        value = random.gauss(100, 1 if number < 1_000 else 20)
        mean, variance = (value, 0.0) if number == 0 else moved(mean, variance, value, weight)
        their_mean.update(value)
        their_variance.update(value)
        assert isclose(mean, their_mean.get(), rel_tol=1e-9)
        assert isclose(variance, their_variance.get(), rel_tol=1e-6, abs_tol=1e-6)


def test_weights_of_one_in_n_are_the_mean_and_the_variance_of_all_values() -> None:
    """As river's Mean and Var (of the population) have them."""
    random, mean, variance = Random(2), 0.0, 0.0
    their_mean, their_variance = stats.Mean(), stats.Var(ddof=0)
    for number in range(1, 1_000):
        value = random.lognormvariate(2, 1)
        mean, variance = moved(mean, variance, value, 1 / number)
        their_mean.update(value)
        their_variance.update(value)
        assert isclose(mean, their_mean.get(), rel_tol=1e-9)
        assert isclose(variance, their_variance.get(), rel_tol=1e-7, abs_tol=1e-9)


def test_quartiles_of_the_last_201_values_are_those_of_rolling_quantiles() -> None:
    """With a full window of 201 values the ranks are exact, so the values are equal."""
    random, recent = Random(3), RecentValues(201, 10.0, 1.0)
    theirs = [stats.RollingQuantile(q, 201) for q in (0.25, 0.5, 0.75)]
    for number in range(2_000):
        value = random.gauss(0, 1) if number % 3 else float(random.randrange(5))
        recent.learn(value)
        for each in theirs:
            each.update(value)
        if number >= 200:
            assert recent.quartiles() == tuple(each.get() for each in theirs)


@pytest.mark.parametrize("seed", range(4))
def test_the_limit_of_a_history_is_near_the_quantile_of_the_p2_algorithm(seed: int) -> None:
    """Where 1 % of the values of heavy tails begin, ours lies within 12 % of river's estimate."""
    random, ours, theirs = Random(seed), QuantileHistory(0.01), stats.Quantile(0.99)
    for _ in range(20_000):
        value = random.lognormvariate(3, 1)
        ours.learn(value)
        theirs.update(value)
    estimate = theirs.get()
    assert estimate is not None
    assert isclose(ours.value_of(ours.high), estimate, rel_tol=0.12)


@pytest.mark.parametrize("seed", range(30))
def test_a_change_is_found_at_the_value_at_which_page_hinkley_finds_it(seed: int) -> None:
    """Without a warm-up, clipping and forgetting, our sums are river's: the same first change, or none."""
    random = Random(seed)
    shift = random.choice([0.0, 0.4, 1.0, -1.0, -0.3])
    values = [random.gauss(0, 1) + (shift if number > 500 else 0.0) for number in range(1_500)]
    ours = ef.Drift(warm=0, tolerance=0.2, threshold=20.0, clip=inf, deviation=1.0)
    theirs = drift.PageHinkley(min_instances=0, delta=0.2, threshold=20.0, alpha=1.0)
    for number, value in enumerate(values):
        feed(ours, number, value)
        theirs.update(value)
        assert ours.is_changed == theirs.drift_detected, number
        if ours.is_changed:
            assert number > 500
            assert ("went up" in ours.reason) == (shift > 0)
            break


def test_hourly_departures_have_no_lasting_change_of_their_level() -> None:
    """ADWIN reports one, after the blizzard of 8 and 9 February; ours, which a short incident moves less, none."""
    ours, theirs = ef.Drift(), drift.ADWIN()
    found: list[tuple[str, date]] = []
    for hour in hours():
        feed(ours, hour.micros, hour.departed)
        theirs.update(hour.departed)
        found += [("ours", hour.day)] * ours.is_changed + [("theirs", hour.day)] * theirs.drift_detected
    assert found == [("theirs", date(2013, 2, 10))]


def test_the_delays_of_summer_are_a_change_for_both() -> None:
    """The daily mean delay rises in the last days of June: ours says so on the 30th, ADWIN eleven days later."""
    ours, theirs = ef.Drift(warm=30, threshold=10.0), drift.ADWIN()
    found: list[tuple[str, date]] = []
    for day, total in days().items():
        feed(ours, 0, total.delay / total.departed)
        theirs.update(total.delay / total.departed)
        found += [(ours.reason[:17], day)] * ours.is_changed + [("theirs", day)] * theirs.drift_detected
    assert ("The level went up", date(2013, 6, 30)) in found
    assert next(day for who, day in found if who == "theirs") == date(2013, 7, 11)
