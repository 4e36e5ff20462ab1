"""Absence: silence against a duration, against its usual gap, and in the hours of a calendar."""

from __future__ import annotations

from datetime import datetime
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import eventfold as ef
from eventfold.alerts.calendars import micros_of
from eventfold.errors import InvalidInput
from tests.alerts.detectors.every import DAY, HOUR, MINUTE, SECOND, feed

BERLIN = ZoneInfo("Europe/Berlin")


class Orders(ef.State):
    """A state with an absence, to build one as users do."""

    hourly: ef.Absence = ef.absence(expect=ef.hours(1))
    office: ef.Absence = ef.absence(expect=ef.hours(1), calendar=ef.office_hours("Europe/Berlin"))
    usual: ef.Absence = ef.absence()


def test_silence_fires_at_due_and_the_next_event_ends_it() -> None:
    """The reason has since when, how long, and what was expected."""
    last = Orders().hourly
    feed(last, 10 * HOUR)
    assert last.fires(11 * HOUR - 1) is None
    assert last.due(10 * HOUR) == 11 * HOUR
    assert last.fires(11 * HOUR + 5 * MINUTE) == (
        "Nothing since 1970-01-01 10:00 UTC, 1 hour 5 minutes; one is expected every 1 hour."
    )
    feed(last, 12 * HOUR)
    assert last.fires(12 * HOUR) is None


def test_silence_from_the_beginning_counts_from_when_watching_began() -> None:
    """Without any event and without `begin` there is no silence; after `begin` there is."""
    last = Orders().hourly
    assert (last.fires(100 * HOUR), last.due(0)) == (None, None)
    last.now = 100 * HOUR
    last.begin()
    assert last.due(100 * HOUR) == 101 * HOUR
    assert last.fires(101 * HOUR) is not None


def test_nights_weekends_and_holidays_are_no_silence() -> None:
    """After a last order on Friday at 16:30 the hour is over on Monday at 9:30."""
    last = Orders().office
    friday = micros_of(datetime(2026, 11, 27, 16, 30, tzinfo=BERLIN))
    monday = micros_of(datetime(2026, 11, 30, 9, 30, tzinfo=BERLIN))
    feed(last, friday)
    assert last.due(friday) == monday
    assert last.fires(monday - 1) is None
    assert last.fires(monday) == (
        "Nothing since 2026-11-27 15:30 UTC, 1 hour of opening hours; one is expected every 1 hour."
    )


def test_a_usual_gap_must_be_known_before_silence_is_judged() -> None:
    """Fewer than 50 gaps never fire, however long the silence is."""
    last = Orders().usual
    for number in range(50):
        feed(last, number * 10 * MINUTE)
    assert (last.fires(last.now + 365 * DAY), last.due(last.now)) == (None, None)
    feed(last, 50 * 10 * MINUTE)
    assert last.fires(last.now + 40 * MINUTE) is None
    assert last.fires(last.now + 50 * MINUTE) is not None


def test_one_outage_does_not_become_usual() -> None:
    """After a silence of a day, the next one is reported nearly as early as before."""
    last = Orders().usual
    for number in range(300):
        feed(last, number * MINUTE)
    before = last.due(last.now)
    assert before is not None
    wait = before - last.now
    feed(last, last.now + DAY)
    for _ in range(20):
        feed(last, last.now + MINUTE)
    after = last.due(last.now)
    assert after is not None
    assert after - last.now <= 1.1 * wait


def test_a_slower_rhythm_becomes_usual() -> None:
    """Ten times slower for good: after at most a hundred events it is no fault any more."""
    last, random = Orders().usual, Random(7)
    for _ in range(300):
        feed(last, last.now + int(MINUTE * random.uniform(0.5, 1.5)))
    for _ in range(100):
        feed(last, last.now + int(10 * MINUTE * random.uniform(0.5, 1.5)))
    fired = 0
    for _ in range(300):
        wait = int(10 * MINUTE * random.uniform(0.5, 1.5))
        fired += last.fires(last.now + wait) is not None
        feed(last, last.now + wait)
    assert fired == 0


def test_bursts_with_pauses_between_them_are_usual() -> None:
    """Ten events within a second each hour: only a much longer pause fires."""
    last = Orders().usual
    for burst in range(50):
        for number in range(10):
            feed(last, burst * HOUR + number * SECOND // 10)
            assert last.fires(last.now + 59 * MINUTE) is None
    assert last.fires(last.now + 8 * HOUR) is not None


def test_one_event_in_the_far_future_does_not_blind_it() -> None:
    """While the latest time is in the future, the one before it counts."""
    last = Orders().hourly
    feed(last, HOUR)
    feed(last, 10_000 * DAY)
    feed(last, 2 * HOUR)
    assert last.fires(3 * HOUR - 1) is None
    assert last.fires(3 * HOUR) is not None


@pytest.mark.parametrize(
    "arguments",
    [
        {"expect": ef.hours(0)},
        {"expect": 3600},
        {"expect": ef.hours(1), "times_usual": 5},
        {"expect": ef.hours(1), "at_least": ef.minutes(1)},
        {"times_usual": 1},
        {"times_usual": float("nan")},
        {"times_usual": 5, "warm": 2},
        {"expect": ef.hours(1), "calendar": "Europe/Berlin"},
    ],
)
def test_what_cannot_be_an_absence_is_refused_at_its_declaration(arguments: dict[str, Any]) -> None:
    """Contradictions and multiples that every gap exceeds are named where they are written."""
    with pytest.raises(InvalidInput):
        ef.absence(**arguments)
