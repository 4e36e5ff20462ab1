"""What every detector promises: plain data of bounded size, the same result however it is fed, and a true `due`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from functools import partial
from math import inf, nan
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import eventfold as ef
from eventfold.alerts.detectors.detector import as_field
from eventfold.errors import InvalidInput
from tests.alerts.detectors.every import DAY, HOUR, MAKERS, MINUTE, SECOND, feed, stored

kinds = st.sampled_from(sorted(MAKERS))
steps = st.one_of(
    st.integers(-2 * MINUTE, 10 * MINUTE),
    st.integers(0, 3 * HOUR),
    st.sampled_from([0, 1, DAY, 7 * DAY, 27 * DAY, 29 * DAY, 400 * DAY, -DAY, -400 * DAY]),
)
numbers = st.one_of(
    st.integers(-5, 20),
    st.floats(),
    st.decimals(),
    st.integers(),
    st.sampled_from([10**400, -(10**400), 2**53, 2**63, 2**64, 1e308, -1e308, 5e-324, Decimal("1e999"), True]),
)
events = st.lists(st.tuples(steps, numbers), max_size=80)
START = 1_362_800_000 * SECOND  # two days before the clocks of New York change


@settings(max_examples=150, deadline=None)
@given(kinds, events, st.integers(1, 7))
def test_a_detector_that_is_stored_after_each_page_becomes_the_same(
    kind: str, given_events: list[tuple[int, Any]], page: int
) -> None:
    """In one go, page by page through JSON, or on a copy: the data, the verdict and `due` are equal."""
    one, paged = MAKERS[kind](), MAKERS[kind]()
    now = START
    for number, (step, value) in enumerate(given_events):
        now = max(now + step, -(10**15))
        feed(one, now, value)
        feed(paged, now, value)
        if number % page == 0:
            paged = stored(paged)
        assert one.fires(now) == paged.fires(now)
    assert stored(one) == one == paged == copy.deepcopy(one)
    assert one.due(now) == paged.due(now)


@settings(max_examples=150, deadline=None)
@given(kinds, events)
def test_asking_changes_nothing(kind: str, given_events: list[tuple[int, Any]]) -> None:
    """`fires` and `due` are pure, at the present and at any later time."""
    detector, now = MAKERS[kind](), START
    for step, value in given_events:
        now = max(now + step, -(10**15))
        feed(detector, now, value)
    before = msgspec.json.encode(detector)
    for later in (now, now + MINUTE, now + HOUR, now + 40 * DAY, now - DAY):
        detector.fires(later)
        detector.due(later)
    assert msgspec.json.encode(detector) == before


@settings(max_examples=120, deadline=None)
@given(kinds, st.lists(st.tuples(steps, st.integers(0, 9)), max_size=60), st.booleans())
def test_the_verdict_changes_at_due_and_not_before(
    kind: str, given_events: list[tuple[int, Any]], watched: bool
) -> None:
    """From `now` until the moment before `due` the verdict is the same, and `due` does not go back."""
    detector, now = MAKERS[kind](), START
    if watched:
        detector.now = now
        detector.begin()
    for step, value in given_events:
        now += step
        feed(detector, now, value)
    for _ in range(15):
        due, verdict = detector.due(now), detector.fires(now) is None
        if due is None:
            assert [detector.fires(now + later) is None for later in (1, HOUR, 50 * DAY)] == [verdict] * 3
            break
        assert due > now
        for moment in (now + 1, (now + due) // 2, due - 1):
            if now < moment < due:
                assert (detector.fires(moment) is None) == verdict
                later = detector.due(moment)
                assert later is None or later >= due
        now = due


@pytest.mark.parametrize("kind", MAKERS)
def test_the_data_stay_small(kind: str) -> None:
    """After 20,000 events of 20,000 values at irregular times a row has at most 12,000 bytes."""
    detector, now = MAKERS[kind](), START
    for number in range(20_000):
        now += (number * 7_919) % 200 * SECOND
        feed(detector, now, (number * 104_729) % 1_000_003 * 1.618 ** (number % 40))
    assert len(msgspec.json.encode(detector)) <= 12_000


@pytest.mark.parametrize("kind", MAKERS)
def test_a_constant_series_never_fires_except_for_what_was_asked(kind: str) -> None:
    """One event every ten minutes with the same value, in office hours or not, is no fault."""
    detector = MAKERS[kind]()
    for number in range(5_000):
        now = START + number * 10 * MINUTE
        feed(detector, now, 7 if kind in ("outlier", "outlier-window", "drift") else 1)
        if kind not in ("rate-more", "rate-fewer") and not kind.startswith("seasonal"):
            assert detector.fires(now) is None
        if kind == "seasonal-day" and number > 1_000:
            assert detector.fires(now) is None


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if not kind.startswith("absence")])
@pytest.mark.parametrize("value", ["7", None, b"7", [7]])
def test_what_is_no_number_is_refused(kind: str, value: Any) -> None:
    """A text is a mistake of the code that calls `add`, and the error says so."""
    with pytest.raises(InvalidInput, match="no number"):
        feed(MAKERS[kind](), START, value)


@pytest.mark.parametrize("kind", [kind for kind in MAKERS if not kind.startswith("absence")])
def test_values_that_are_not_finite_are_never_stored(kind: str) -> None:
    """NaN and infinities are no JSON; only an outlier reports them."""
    detector = MAKERS[kind]()
    for number, value in enumerate([nan, inf, -inf, Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity")]):
        feed(detector, START + number, value)
        assert (detector.fires(START + number) is not None) == kind.startswith("outlier")
    assert stored(detector) == detector


class Longest(ef.Detector):
    """A statistic of a user: it fires on a value above a limit."""

    limit: float
    longest: float = 0.0

    def add(self, value: float) -> None:
        self.longest = max(self.longest, value)

    def fires(self, now: int) -> str | None:
        return f"The longest is {self.longest}." if self.longest > self.limit else None


def test_a_statistic_of_the_user_needs_fields_and_fires() -> None:
    """Its own fields are positional, it can be stored, and it is due at no time unless it says so."""
    mine = Longest(3)
    mine.add(4)
    assert mine.fires(0) == "The longest is 4."
    assert (mine.due(0), mine.can_fire(), stored(mine)) == (None, True, mine)


@pytest.mark.parametrize(
    "value", ["5", nan, inf, Decimal("NaN"), True, [1]], ids=["text", "nan", "inf", "decimal", "bool", "list"]
)
@pytest.mark.parametrize(
    ("make", "name"),
    [
        *[(partial(ef.rate, per=ef.minutes(1), factor=2), name) for name in ("more_than", "at_least", "warm")],
        *[(ef.absence, name) for name in ("times_usual", "warm")],
        *[(ef.outlier, name) for name in ("rarer_than", "warm")],
        *[(partial(ef.outlier, window=21), name) for name in ("z", "floor")],
        *[(partial(ef.seasonal, zone="UTC"), name) for name in ("z", "warm")],
        *[(ef.drift, name) for name in ("warm", "tolerance", "threshold")],
    ],
)
def test_an_argument_that_is_no_finite_number_is_refused_at_the_declaration(
    make: Callable[..., Any], name: str, value: Any
) -> None:
    """It is named where it is written, and not when the first event comes."""
    with pytest.raises(InvalidInput, match=f"{name}=.* is not a finite number"):
        make(**{name: value})


def test_limits_of_any_kind_of_number_are_stored_as_numbers() -> None:
    """A Decimal and an int beyond all floats become numbers that JSON has."""
    for limit in (Decimal("2.5"), 10**400, 3):
        made = ef.rate(per=ef.minutes(1), more_than=limit).default_factory()  # type: ignore[arg-type,attr-defined] # pyright: ignore
        assert stored(made) == made and made.can_fire()


def test_a_duration_that_no_column_can_hold_is_refused_at_the_declaration() -> None:
    """A moment plus a duration is a number of 64 bits."""
    with pytest.raises(InvalidInput, match=r"per=999999999 days.* is too long"):
        ef.rate(per=timedelta.max, more_than=1)
    with pytest.raises(InvalidInput, match=r"expect=.* is too long"):
        ef.absence(expect=timedelta.max)
    with pytest.raises(InvalidInput, match="A Silent cannot be stored as it is declared"):
        as_field(Silent(number=nan))


class Silent(ef.Detector):
    """A detector of a number that JSON must have."""

    number: float = 0.0
