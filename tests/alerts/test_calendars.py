"""Calendars: opening hours in a time zone, holidays, and both changes of the clocks."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

import eventfold as ef
from eventfold.alerts.calendars import micros_of
from eventfold.errors import InvalidInput

HOUR = 3_600_000_000
BERLIN = ef.office_hours("Europe/Berlin", holidays=[date(2026, 12, 25), date(2026, 12, 24)])


def at(zone: str, *numbers: int) -> int:
    """A local time as microseconds since 1970."""
    year, month, day, *rest = numbers
    return micros_of(datetime(year, month, day, *rest, tzinfo=ZoneInfo(zone)))


def test_only_opening_hours_are_counted() -> None:
    """From Friday 16:00 to Monday 10:00 there are two opening hours."""
    friday, monday = at("Europe/Berlin", 2026, 11, 27, 16), at("Europe/Berlin", 2026, 11, 30, 10)
    assert BERLIN.open_between(friday, monday) == 2 * HOUR
    assert BERLIN.after(friday, 2 * HOUR) == monday
    assert BERLIN.after(friday, HOUR) == at("Europe/Berlin", 2026, 11, 27, 17)


def test_holidays_have_no_opening_hours() -> None:
    """An hour after Wednesday's closing on 23 December is Monday's first hour."""
    evening = at("Europe/Berlin", 2026, 12, 23, 17)
    assert BERLIN.after(evening, HOUR) == at("Europe/Berlin", 2026, 12, 28, 10)


@pytest.mark.parametrize(("day", "hours"), [((2026, 3, 29), 23), ((2026, 10, 25), 25), ((2026, 6, 7), 24)])
def test_a_whole_day_has_23_hours_in_spring_and_25_in_autumn(day: tuple[int, int, int], hours: int) -> None:
    """Opening hours are local: a calendar of all hours has as many as the day."""
    always = ef.office_hours("Europe/Berlin", opens="00:00", closes="24:00", days="mon-sun")
    begin = at("Europe/Berlin", *day)
    assert always.open_between(begin - 48 * HOUR, begin + 72 * HOUR) == 120 * HOUR
    opens, closes = always.next_opening(begin)
    assert (opens, closes - opens) == (begin, hours * HOUR)


@given(
    st.sampled_from([BERLIN, ef.office_hours("Asia/Kolkata", days="fri-mon", opens="22:30", closes="24:00")]),
    st.integers(1_700_000_000, 1_900_000_000).map(lambda seconds: seconds * 1_000_000),
    st.integers(1, 100 * HOUR),
)
def test_after_is_the_inverse_of_open_between(calendar: ef.Calendar, start: int, amount: int) -> None:
    """The moment by which an amount has passed is the first one with that amount before it."""
    moment = calendar.after(start, amount)
    assert moment is not None
    assert calendar.open_between(start, moment) == amount
    assert calendar.open_between(start, moment - 1) == amount - 1
    assert calendar.open_between(start, moment, amount // 2) == amount // 2


def test_times_at_the_ends_of_the_range_are_no_error() -> None:
    """A clock that shows the year 1 or 9999 stops no fold."""
    for moment in (-62_135_596_800_000_000, 253_402_300_799_000_000):
        opens, closes = BERLIN.next_opening(moment)
        assert opens <= closes


@pytest.mark.parametrize(
    "arguments",
    [
        {"zone": "Europe/Berln"},
        {"zone": ""},
        {"zone": "../../etc/passwd"},
        {"zone": "UTC", "opens": "25:00"},
        {"zone": "UTC", "opens": "nine"},
        {"zone": "UTC", "opens": "17:00", "closes": "09:00"},
        {"zone": "UTC", "closes": "24:01"},
        {"zone": "UTC", "days": "mon-fry"},
        {"zone": "UTC", "days": ""},
        {"zone": "UTC", "holidays": ["2026-12-25"]},
        {"zone": "UTC", "holidays": [datetime(2026, 12, 25, tzinfo=UTC)]},
    ],
)
def test_what_is_no_calendar_is_refused(arguments: dict[str, Any]) -> None:
    """Zone, hours, days and holidays are checked where they are written."""
    with pytest.raises(InvalidInput):
        ef.office_hours(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [{"opens": 9}, {"closes": None}, {"days": 5}, {"holidays": 5}, {"holidays": [date(2026, 1, 1), "2026-12-25"]}],
    ids=str,
)
def test_arguments_of_other_types_are_refused(arguments: dict[str, Any]) -> None:
    """The message names the argument."""
    with pytest.raises(InvalidInput, match=next(iter(arguments))):
        ef.office_hours("UTC", **arguments)
