"""Checks: every figure of the read models is computed a second time from the source itself, in plain SQL.

Knows: the data files and the figures that the models must have. Does not know: events, the log, how rows became events.
`source.py` computes a time from `time_hour` and the delay; this file reads the clock in `dep_time`. A mistake in either
way shows as a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from eventfold.demo.flights.models import NEW_YORK, AircraftDay, Board
from eventfold.demo.flights.source import Files, connect
from eventfold.demo.flights.tables import AirportHour, CarrierMonth, CarrierMonthAsReported, RuleChange

_PLAIN = """
CREATE TABLE plain AS
WITH first AS (
    SELECT * FROM read_csv($flights, nullstr = 'NA', buffer_size = 1000000, max_line_size = 1000) {first}
), clocks AS (
    SELECT *, make_timestamp(year, month, day, hour, minute, 0) AS planned,
           make_timestamp(year, month, day, 0, 0, 0) + to_minutes(dep_time // 100 * 60 + dep_time % 100) AS clock
    FROM first
)
SELECT carrier, origin, tailnum, month, dep_time, dep_delay, arr_delay, air_time, planned,
       printf('%s%d-%s-%04d-%02d-%02d', carrier, flight, origin, year, month, day) AS name,
       printf('%04d-%02d-%02d', year, month, day) AS day,
       CASE WHEN dep_delay >= 0 AND clock < planned THEN clock + INTERVAL 1 DAY
            WHEN dep_delay < 0 AND clock > planned THEN clock - INTERVAL 1 DAY ELSE clock END AS gone
FROM clocks
"""

_FIRST = "ORDER BY year, month, day, hour, minute, carrier, flight, origin LIMIT $limit"

_MONTHS = """
SELECT carrier, printf('2013-%02d', month), count(*), count(dep_time), coalesce(sum(dep_delay), 0),
       count(*) FILTER (dep_delay >= 1), count(arr_delay), coalesce(sum(arr_delay), 0), coalesce(sum(air_time), 0),
       count(*) FILTER (dep_time IS NOT NULL AND arr_delay IS NULL), count(*) FILTER (dep_time IS NULL)
FROM plain GROUP BY ALL
"""

_LATE = """
SELECT carrier, count(*) FILTER (dep_delay >= $old), count(*) FILTER (dep_delay >= $new) FROM plain GROUP BY ALL
"""

_HOURS = """
SELECT origin, strftime(gone, '%Y-%m-%d %H'), count(*), sum(dep_delay) FROM plain WHERE gone IS NOT NULL GROUP BY ALL
"""

_BOARD = """
WITH shown AS (
    SELECT name, dep_delay, planned AT TIME ZONE 'America/New_York' AS planned,
           gone AT TIME ZONE 'America/New_York' AS gone
    FROM plain WHERE origin = $origin AND list_contains($days, day)
)
SELECT name, CASE WHEN gone <= $now::TIMESTAMPTZ THEN 'departed'
                  WHEN gone IS NULL AND planned <= $now::TIMESTAMPTZ THEN 'cancelled' ELSE 'scheduled' END AS status,
       CASE WHEN gone <= $now::TIMESTAMPTZ THEN dep_delay END
FROM shown WHERE planned - INTERVAL 24 HOUR <= $now::TIMESTAMPTZ
"""

_AIRCRAFT = """
SELECT name, dep_time % 2400, dep_delay, arr_delay, air_time FROM plain
WHERE tailnum = $aircraft AND day = $day AND dep_time IS NOT NULL
"""


class Mismatch(msgspec.Struct, frozen=True):
    """A figure on which the events and the source do not agree."""

    figure: str
    events: Any
    source: Any


class Checks:
    """Compares figure after figure; `compared` counts them, `mismatches` names those that differ."""

    def __init__(self, files: Files, limit: int | None = None) -> None:
        self.compared = 0
        self.mismatches: list[Mismatch] = []
        self._db = connect()
        if limit is None:
            self._db.execute(_PLAIN.format(first=""), {"flights": str(files.flights)})
        else:
            self._db.execute(_PLAIN.format(first=_FIRST), {"flights": str(files.flights), "limit": limit})

    def close(self) -> None:
        """Free the memory."""
        self._db.close()

    def counts(self, counts: Mapping[str, int]) -> None:
        """Compare the number of events of each kind in the log."""
        rows = self._rows(_MONTHS)
        kinds = ("Scheduled", "Departed", "Arrived", "Diverted", "Cancelled")
        totals = [sum(row[index] for row in rows) for index in (2, 3, 6, 9, 10)]
        self.compare(
            lambda kind: f"number of {kind} events",
            counts,
            {f"Flight{kind}": total for kind, total in zip(kinds, totals, strict=True) if total},
        )

    def months(self, months: Iterable[CarrierMonth]) -> None:
        """Compare every count and sum of each carrier's month."""
        fields = CarrierMonth.__struct_fields__[2:]
        self.compare(
            lambda key: f"{key[2]} of {key[0]} in {key[1]}",
            {(each.carrier, each.month, field): getattr(each, field) for each in months for field in fields},
            {
                (*row[:2], field): value
                for row in self._rows(_MONTHS)
                for field, value in zip(fields, row[2:], strict=True)
            },
        )

    def hours(self, hours: Iterable[AirportHour]) -> None:
        """Compare departures and delays of every airport's hour."""
        rows = self._rows(_HOURS)
        hours = list(hours)
        self.compare(
            lambda key: f"departures from {key[0]} in the hour {key[1]}:00",
            by_local_hour({(each.origin, each.hour): each.departures for each in hours}),
            {(origin, hour): count for origin, hour, count, _ in rows},
        )
        self.compare(
            lambda key: f"minutes of delay at {key[0]} in the hour {key[1]}:00",
            by_local_hour({(each.origin, each.hour): each.waited for each in hours}),
            {(origin, hour): minutes for origin, hour, _, minutes in rows},
        )

    def rule(self, rule: RuleChange) -> None:
        """Compare the late departures of each carrier by both rules, and check that every table is verified."""
        limits = {"old": CarrierMonth.LATE, "new": CarrierMonthAsReported.LATE}
        self.compare(
            lambda carrier: f"late departures of {carrier}, by the old rule and the new",
            rule.late,
            {carrier: (old, new) for carrier, old, new in self._rows(_LATE, limits)},
        )
        self.compare(str, {"tables proved": rule.proved}, {"tables proved": True})

    def board(self, board: Board, moment: datetime) -> None:
        """Compare every line of a departure board: the flight, its status, its delay."""
        parameters = {"origin": board.origin, "days": list(board.days), "now": moment.isoformat()}
        self.compare(
            lambda flight: f"{flight} on the board of {board.origin} at {moment.astimezone(NEW_YORK):%Y-%m-%d %H:%M}",
            {line.flight: (line.status, line.delay) for line in board.lines.values()},
            {name: (status, delay) for name, status, delay in self._rows(_BOARD, parameters)},
        )

    def aircraft(self, day: AircraftDay) -> None:
        """Compare every leg of an aircraft's day: the clock in New York at departure, both delays, the air time."""
        rows = self._rows(_AIRCRAFT, {"aircraft": day.aircraft, "day": day.day})
        self.compare(
            lambda flight: f"{flight} in the day of {day.aircraft}",
            {
                leg.flight: (clock(leg.departed), leg.departure_delay, leg.arrival_delay, leg.air_time)
                for leg in day.legs.values()
            },
            {row[0]: tuple(row[1:]) for row in rows},
        )

    def departures(self, origin: str, day: str, flights: set[str]) -> None:
        """Compare the flights of an airport's day that requested a gate with those that left."""
        rows = self._rows(
            "SELECT name FROM plain WHERE origin = $origin AND day = $day AND dep_time IS NOT NULL",
            {"origin": origin, "day": day},
        )
        self.compare(
            lambda flight: f"{flight} among the departures of {origin} on {day}",
            dict.fromkeys(flights, True),
            {name: True for (name,) in rows},
        )

    def compare(self, name: Callable[[Any], str], events: Mapping[Any, Any], source: Mapping[Any, Any]) -> None:
        """Compare two results key by key; a key that one of them lacks is a mismatch too."""
        for key in sorted(events.keys() | source.keys()):
            self.compared += 1
            from_events, from_source = events.get(key), source.get(key)
            if from_events != from_source:
                self.mismatches.append(Mismatch(name(key), from_events, from_source))

    def _rows(self, sql: str, given: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return self._db.execute(sql, given or {}).fetchall()


def by_local_hour(hours: Mapping[tuple[str, datetime], int]) -> dict[tuple[str, str], int]:
    """Figures by hour in UTC, summed by hour on the clock in New York (one hour occurs twice in November)."""
    by_hour: dict[tuple[str, str], int] = {}
    for (origin, hour), figure in hours.items():
        key = (origin, f"{hour.astimezone(NEW_YORK):%Y-%m-%d %H}")
        by_hour[key] = by_hour.get(key, 0) + figure
    return by_hour


def clock(moment: datetime) -> int:
    """A moment as the source writes clock readings: 517 for 05:17 in New York."""
    local = moment.astimezone(NEW_YORK)
    return local.hour * 100 + local.minute


def overlaps(stays: list[tuple[datetime, datetime, str]]) -> list[tuple[str, str]]:
    """Pairs of flights that are at one gate at the same time, given its stays as (since, until, flight)."""
    ordered = sorted(stays)
    pairs: list[tuple[str, str]] = []
    latest = (datetime.min.replace(tzinfo=NEW_YORK) + timedelta(days=1), "")
    for since, until, flight in ordered:
        if since < latest[0]:
            pairs.append((latest[1], flight))
        latest = max(latest, (until, flight))
    return pairs
