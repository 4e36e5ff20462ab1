"""Which hours of the flights of 2013 fire, beside what is known of that year."""

from __future__ import annotations

import tempfile
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import eventfold as ef
from eventfold.alerts.detectors.recent import RecentValues
from eventfold.demo.flights.alerts import DeparturesOfADay, DeparturesOfAnHour, day_of, report
from eventfold.demo.flights.source import Source, unpack
from eventfold.demo.flights.source_rows import DEPARTED, draft
from tests.alerts.detectors.every import HOUR, feed
from tests.alerts.detectors.flights import WORST, days, hours


def test_departures_by_local_hour_find_the_blizzard_first_and_no_change_of_the_clocks() -> None:
    """The first two days that fire are those of the blizzard, then come Thanksgiving's; nothing fires near 10 March."""
    detector = ef.Seasonal("America/New_York")
    fired: Counter[date] = Counter()
    for hour in hours():
        if hour.departed:
            feed(detector, hour.micros, hour.departed)
        fired[hour.day] += detector.fires(hour.micros + HOUR) is not None
    assert [day for day, count in fired.items() if count] == [
        date(2013, 2, 8),
        date(2013, 2, 9),
        date(2013, 11, 28),
        date(2013, 11, 29),
    ]
    assert fired[date(2013, 2, 8)] + fired[date(2013, 2, 9)] >= 12


def test_departures_by_day_find_three_of_the_six_worst_days() -> None:
    """Whole days find the blizzard, the snow of 10 December, Thanksgiving and Christmas."""
    detector, found = ef.Seasonal("America/New_York", by="day"), list[date]()
    for hour in hours():
        if hour.departed:
            feed(detector, hour.micros, hour.departed)
        if hour.micros % (24 * HOUR) == 12 * HOUR and detector.fires(hour.micros) is not None:
            found.append(hour.day - timedelta(days=1))  # at noon in UTC the verdict is about the day before
    assert found == [
        date(2013, 2, 8),
        date(2013, 2, 9),
        date(2013, 11, 28),
        date(2013, 11, 29),
        date(2013, 12, 10),
        date(2013, 12, 25),
    ]


def test_cancellations_against_the_last_two_weeks_find_all_six_worst_days() -> None:
    """Robust standard deviations of a series that is mostly 0: each of the six worst days fires at least six hours."""
    detector = ef.Outlier(RecentValues(336, 10.0, 1.0), side="high", warm=336)
    fired: Counter[date] = Counter()
    for hour in hours():
        feed(detector, hour.micros, hour.cancelled)
        fired[hour.day] += detector.is_odd
    assert min(fired[day] for day in WORST) >= 6
    assert {day for day, _ in fired.most_common(5)} <= {*WORST, date(2013, 12, 5)}
    assert sum(count > 0 for count in fired.values()) <= 40
    total = days()
    assert {*sorted(total, key=lambda day: -total[day].cancelled)[:5]} < {*WORST}


def test_rules_replayed_over_the_events_of_the_first_six_weeks_find_the_blizzard() -> None:
    """By when 34,044 flights really left: an episode of days, three of hours, and one pile-up after midnight."""
    with tempfile.TemporaryDirectory() as folder, ef.Store("memory:") as store:
        source = Source(unpack(Path(folder)), 37_000)
        store.extend([draft(row) for row in source.rows() if row.kind == DEPARTED and row.day < "2013-02-11"])
        source.close()
        assert store.count(ef.Query()) == 34_044
        (whole,) = store.alerts.replay(DeparturesOfADay)
        assert whole.reason == "461 on Friday (America/New_York), 14.9 standard deviations below the usual 909.4."
        found = [day_of(each, DeparturesOfAnHour) for each in store.alerts.replay(DeparturesOfAnHour)]
        assert found == [date(2013, 1, 31), date(2013, 2, 8), date(2013, 2, 8), date(2013, 2, 9)]
        assert "2013-02-08   2  blizzard Nemo" in report(store)
