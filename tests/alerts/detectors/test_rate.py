"""Rate: counts of a sliding window against an exact count, its limits, and the values that it refuses."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventfold as ef
from eventfold.errors import InvalidInput

SECOND = 1_000_000
FIVE_MINUTES = 300 * SECOND


class Declines(ef.State):
    """A state with a rate, to build one as users do."""

    rate: ef.Rate = ef.rate(per=ef.minutes(5), more_than=20)


def after(detector: ef.Rate, *moments: int) -> ef.Rate:
    """The detector after one event at each of these moments."""
    for moment in moments:
        detector.now = moment
        detector.add()
    return detector


def test_twenty_one_in_just_under_the_window_fire_and_twenty_do_not() -> None:
    """The limit is exclusive, and the reason is a sentence with the numbers."""
    rate = after(Declines().rate, *[n * 14 * SECOND for n in range(20)])
    assert rate.fires(rate.now) is None
    after(rate, 20 * 14 * SECOND)
    assert rate.fires(rate.now) == "21 in 5 minutes, more than the limit of 20."


def test_instances_of_a_class_share_no_counts() -> None:
    """The field's default is a copy for each row."""
    one, other = Declines(), Declines()
    after(one.rate, 0, 1)
    assert (one.rate.count, other.rate.count) == (2, 0)


@given(st.lists(st.integers(0, 900).map(lambda s: s * SECOND // 3), max_size=150))
def test_the_count_is_exact_to_a_sixtieth_of_the_window(moments: list[int]) -> None:
    """In any order of arrival, the count lies between the exact counts of windows a sixtieth shorter and longer."""
    rate = ef.Rate(per=FIVE_MINUTES)
    for number, moment in enumerate(moments, start=1):
        after(rate, moment)
        grain = FIVE_MINUTES // 60
        newest = max(moments[:number])
        least = sum(newest - FIVE_MINUTES + grain < each <= newest - grain for each in moments[:number])
        most = sum(newest - FIVE_MINUTES - grain < each <= newest for each in moments[:number])
        assert least <= rate.count_at(newest) <= most
        assert len(rate.starts) == len(rate.counts) <= 122


@given(st.lists(st.integers(0, 2_000), min_size=1, max_size=60), st.sampled_from(["more", "fewer", "none", "factor"]))
def test_the_verdict_does_not_change_before_due(steps: list[int], kind: str) -> None:
    """Between `now` and `due` there is one verdict, and `due` never goes back while time advances."""
    rate = ef.Rate(
        per=60 * SECOND,
        more_than=5 if kind == "more" else None,
        fewer_than=3 if kind == "fewer" else None,
        factor=3 if kind == "factor" else None,
        warm=2,
        at_least=4,
    )
    moment = 0
    for step in steps:
        moment += step * SECOND // 20
        after(rate, moment)
    now, due = rate.now, rate.due(rate.now)
    for _ in range(200):
        due = rate.due(now)
        if due is None:
            break
        assert due > now
        middle = (now + due) // 2
        assert (rate.fires(middle) is None) == (rate.fires(due - 1) is None) == (rate.fires(now) is None)
        assert rate.due(middle) == due or middle == now
        now = due
    else:
        assert kind == "factor"
    if due is None:
        assert (rate.fires(now) is None) == (rate.fires(now + 10**12) is None)


def test_too_few_are_reported_only_after_a_whole_window() -> None:
    """A rate that is too low is no fault of a rule that has just begun to watch; `due` says when it is judged."""
    rate = ef.Rate(per=FIVE_MINUTES, fewer_than=3)
    rate.begin()
    assert rate.fires(FIVE_MINUTES - 1) is None
    assert rate.due(0) == FIVE_MINUTES
    assert rate.fires(FIVE_MINUTES) == "0 in 5 minutes, fewer than the limit of 3."


def test_a_multiple_of_the_usual_fires_after_the_warm_up_and_silence_lowers_the_usual() -> None:
    """Six times the usual fires, twice does not, and empty windows count as such."""
    rate = ef.Rate(per=60 * SECOND, factor=5, warm=10)
    for minute in range(30):
        after(rate, *[minute * 60 * SECOND + n * SECOND for n in range(4)])
        assert rate.fires(rate.now) is None
    assert rate.usual_at(rate.now) == pytest.approx(4)
    after(rate, *[30 * 60 * SECOND + n * SECOND for n in range(24)])
    assert rate.fires(rate.now) == "24 in 1 minute, more than 5 times the usual 4."
    usual = rate.usual_at(60 * 60 * SECOND)
    assert usual is not None
    assert usual < 4


def test_a_clock_that_was_a_year_ahead_does_not_blind_the_rate() -> None:
    """After one time far in the future, later events at the present are counted as before."""
    year = 365 * 86_400 * SECOND
    rate = after(ef.Rate(per=FIVE_MINUTES, more_than=20, factor=5), *[n * SECOND for n in range(10)])
    after(rate, year)
    after(rate, *[(10 + n) * SECOND for n in range(21)])
    assert rate.count == 21
    assert rate.fires(rate.now) is not None
    assert len(rate.starts) <= 122


def test_amounts_of_every_type_are_added_and_those_that_are_not_finite_are_ignored() -> None:
    """A rate of amounts: Decimal, a negative correction, an int beyond 2**53; NaN and infinities change nothing."""
    rate = ef.Rate(per=FIVE_MINUTES)
    amounts: list[Any] = [Decimal("1.5"), -0.5, 2**60, nan, inf, -inf, Decimal("NaN")]
    for amount in amounts:
        rate.add(amount)
    assert rate.count == float(2**60 + 1)
    with pytest.raises(InvalidInput, match="no number"):
        rate.add("7")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [
        {"per": ef.minutes(0)},
        {"per": timedelta(minutes=-1)},
        {"per": 300},
        {"per": ef.minutes(5), "more_than": nan},
        {"per": ef.minutes(5), "more_than": -1},
        {"per": ef.minutes(5), "fewer_than": 0},
        {"per": ef.minutes(5), "factor": 0.5},
        {"per": ef.minutes(5), "factor": 5, "warm": 0},
    ],
)
def test_what_cannot_be_a_rate_is_refused_at_its_declaration(arguments: dict[str, Any]) -> None:
    """A window that is no duration and a limit that no count can pass are named where they are written."""
    with pytest.raises(InvalidInput):
        ef.rate(**arguments)


def test_a_rate_without_a_limit_says_that_it_cannot_fire() -> None:
    """An alert whose only statistic has no limit needs a `judge`."""
    assert not ef.Rate(per=1).can_fire()
    assert ef.Rate(per=1, more_than=0).can_fire()
