"""Seasonal: hours against their local hour of the week, both changes of the clocks, breaks, and days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import eventfold as ef
from eventfold.alerts.calendars import micros_of
from eventfold.errors import InvalidInput
from tests.alerts.detectors.every import DAY, HOUR, MINUTE, feed

BERLIN = ZoneInfo("Europe/Berlin")


class Shop(ef.State):
    """A state with seasons, to build them as users do."""

    hourly: ef.Seasonal = ef.seasonal(zone="Europe/Berlin")
    daily: ef.Seasonal = ef.seasonal(zone="Europe/Berlin", by="day")
    utc: ef.Seasonal = ef.seasonal(zone="UTC")


def usual(local: datetime) -> int:
    """Sales of an hour: a shop that opens from 8 to 20 o'clock, with a peak at noon."""
    return 60 + 40 * min(local.hour - 8, 20 - local.hour) if 8 <= local.hour < 20 else 0


def run(detector: ef.Seasonal, first: datetime, last: datetime, zone: ZoneInfo = BERLIN) -> list[datetime]:
    """The hours from first to last, of which the usual sales were added, that fired."""
    fired: list[datetime] = []
    now = first
    while now < last:
        local = now.astimezone(zone)
        if usual(local):
            feed(detector, micros_of(now), usual(local))
        if detector.fires(micros_of(now) + HOUR) is not None:
            fired.append(local)
        now += timedelta(hours=1)
    return fired


@pytest.mark.parametrize("month", [3, 10])
def test_a_change_of_the_clocks_is_no_fault(month: int) -> None:
    """From six weeks before until three weeks after it, spring and autumn, no hour fires; by UTC hours many do."""
    change = datetime(2026, month, 29 if month == 3 else 25, tzinfo=UTC)
    first, last = change - timedelta(weeks=6), change + timedelta(weeks=3)
    assert run(Shop().hourly, first, last) == []
    assert len(run(Shop().utc, first, last)) > 10


def test_an_hour_of_silence_and_an_hour_with_too_many_fire() -> None:
    """Too few is reported when the hour is over, too many at once; each reason names the direction."""
    detector, first = Shop().hourly, datetime(2026, 5, 4, tzinfo=UTC)
    noon = datetime(2026, 6, 10, 12, tzinfo=BERLIN)
    assert run(detector, first, noon.astimezone(UTC)) == []
    at = micros_of(noon)
    assert detector.fires(at + HOUR - 1) is None
    assert detector.fires(at + HOUR) == (
        "0 on Wednesday 12:00 to 13:00 (Europe/Berlin), 14.8 standard deviations below the usual 220."
    )
    feed(detector, at + MINUTE, 900)
    reason = detector.fires(at + MINUTE)
    assert reason is not None
    assert reason.startswith("900 on Wednesday 12:00 to 13:00 so far (Europe/Berlin), ")
    assert reason.endswith("standard deviations above the usual 220.")


def test_two_weeks_are_needed_before_an_hour_is_judged() -> None:
    """In the first two weeks nothing fires, whatever happens."""
    detector = Shop().hourly
    for number in range(14 * 24):
        feed(detector, number * HOUR, 10_000 if number % 5 else 1)
        assert detector.fires(number * HOUR) is None


def test_one_exceptional_day_does_not_become_usual() -> None:
    """A day with ten times the sales moves the usual value of an hour by less than a quarter."""
    detector, first = Shop().hourly, datetime(2026, 5, 4, tzinfo=UTC)
    day = datetime(2026, 6, 10, tzinfo=BERLIN)
    run(detector, first, day.astimezone(UTC))
    before = detector.means[2 * 24 + 12]
    for hour in range(24):
        feed(detector, micros_of(day) + hour * HOUR, 10 * usual(day.replace(hour=hour)))
    feed(detector, micros_of(day) + DAY, 0)
    assert before < detector.means[2 * 24 + 12] < 1.25 * before


def test_a_break_of_months_is_not_learned_as_silence() -> None:
    """After a gap of more than four weeks the usual values are as before, and nothing fires."""
    detector, first = Shop().hourly, datetime(2026, 1, 5, tzinfo=UTC)
    run(detector, first, first + timedelta(weeks=6))
    before = detector.means.copy()
    later = first + timedelta(weeks=6 + 9)
    assert detector.fires(micros_of(later)) is None
    assert run(detector, later, later + timedelta(hours=1)) == []
    assert detector.means == before


def test_a_silence_of_days_fires_in_each_hour_that_is_usually_busy() -> None:
    """Without any event, `fires` at a later time says what folding an event then would find."""
    detector, first = Shop().hourly, datetime(2026, 1, 5, tzinfo=UTC)
    run(detector, first, first + timedelta(weeks=6))
    now = micros_of(first + timedelta(weeks=6))
    reasons = [detector.fires(now + hour * HOUR) for hour in range(1, 25)]
    assert sum(reason is not None for reason in reasons) == 12


def test_days_are_local_days() -> None:
    """By day, the 23 and 25 hours of a change are one day each, and a missing day fires on the next."""
    detector, first = Shop().daily, datetime(2026, 2, 2, tzinfo=UTC)
    assert run(detector, first, datetime(2026, 4, 13, tzinfo=BERLIN).astimezone(UTC)) == []
    monday = datetime(2026, 4, 13, tzinfo=BERLIN)
    assert detector.due(micros_of(monday)) == micros_of(monday) + DAY
    reason = detector.fires(micros_of(monday) + DAY)
    assert reason is not None
    assert reason.startswith("0 on Monday (Europe/Berlin), ")


@pytest.mark.parametrize("zone", ["Australia/Lord_Howe", "Asia/Kolkata", "America/Havana", "Africa/Casablanca"])
@pytest.mark.parametrize("by", ["hour", "day"])
def test_zones_with_half_hours_and_changes_at_midnight_cover_every_moment(zone: str, by: Any) -> None:
    """Each moment of a year is within the current hour after an event at it, and hours follow one another."""
    detector = ef.Seasonal(zone, by)
    moment = micros_of(datetime(2026, 1, 1, tzinfo=UTC))
    ends = 0
    for _ in range(2 * 24 * 366):
        feed(detector, moment)
        assert detector.begins <= moment < detector.ends
        assert detector.ends >= ends
        ends = detector.ends
        moment += HOUR // 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"zone": "Nowhere"},
        {"zone": "UTC", "by": "week"},
        {"zone": "UTC", "z": 0},
        {"zone": "UTC", "z": float("nan")},
        {"zone": "UTC", "warm": 1},
    ],
)
def test_what_cannot_be_a_season_is_refused_at_its_declaration(arguments: dict[str, Any]) -> None:
    """An unknown zone or season is named where it is written."""
    with pytest.raises(InvalidInput):
        ef.seasonal(**arguments)


def test_the_time_zone_is_required() -> None:
    """There is no default that would be right."""
    with pytest.raises(TypeError, match="zone"):
        ef.seasonal()  # type: ignore[call-arg]
