"""Models: what the events come to: states, folded by the library, from the log alone.

Knows: the events. Does not know: the source, DuckDB, how anything is shown.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

import msgspec

import eventfold as ef
from eventfold.demo.flights.events import (
    FlightArrived,
    FlightCancelled,
    FlightDeparted,
    FlightDiverted,
    FlightScheduled,
    GateAssigned,
    Happened,
)

NEW_YORK = ZoneInfo("America/New_York")


class Tally(msgspec.Struct):
    """What came of the flights of one carrier in one month. Delays and air time are sums of minutes."""

    scheduled: int = 0
    departed: int = 0
    departure_delay: int = 0
    arrived: int = 0
    arrival_delay: int = 0
    air_time: int = 0
    diverted: int = 0
    cancelled: int = 0


class Year(ef.State):
    """Everything that is counted over the whole log, in one pass: a question without tags asks for every flight.

    `months` by carrier and month of the schedule ("UA", "2013-07"); `hours` counts departures by origin and hour
    (UTC), `waiting` their minutes of delay; `counts` the events by kind.
    """

    months: dict[tuple[str, str], Tally] = {}
    hours: dict[tuple[str, datetime], int] = {}
    waiting: dict[tuple[str, datetime], int] = {}
    counts: dict[str, int] = {}

    def evolve(self, event: Happened) -> None:
        """Count one event."""
        kind = type(event).__name__
        self.counts[kind] = self.counts.get(kind, 0) + 1
        month = (event.carrier, event.day[:7])
        tally = self.months.get(month)
        if tally is None:
            tally = self.months[month] = Tally()
        match event:
            case FlightScheduled():
                tally.scheduled += 1
            case FlightDeparted():
                tally.departed += 1
                tally.departure_delay += event.delay
                hour = (event.origin, event.at.replace(minute=0))
                self.hours[hour] = self.hours.get(hour, 0) + 1
                self.waiting[hour] = self.waiting.get(hour, 0) + event.delay
            case FlightArrived():
                tally.arrived += 1
                tally.arrival_delay += event.delay
                tally.air_time += event.air_time
            case FlightDiverted():
                tally.diverted += 1
            case FlightCancelled():
                tally.cancelled += 1


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a departure board. `delay` in minutes once the flight has left; `aircraft` once it is known."""

    status: str = "scheduled"
    delay: int | None = None
    departs: datetime
    dest: str
    carrier: str
    aircraft: str | None = None
    day: str
    flight: str


class Board(ef.State):
    """The departures of an airport whose schedules fall on certain days (dates in New York).

    Fold it with `occurred_until=` a minute, and it is the board as it hung there in that minute.
    """

    origin: ef.Tag
    days: Annotated[tuple[str, ...], ef.tag("day")]
    lines: dict[str, Line] = {}

    def evolve(self, event: FlightScheduled | FlightDeparted | FlightCancelled) -> None:
        """Announce a flight, or say what became of it."""
        match event:
            case FlightScheduled():
                self.lines[event.flight] = Line(
                    departs=event.departs, dest=event.dest, carrier=event.carrier, day=event.day, flight=event.flight
                )
            case FlightDeparted():
                self._change(event.flight, "departed", event.delay, event.aircraft)
            case FlightCancelled():
                self._change(event.flight, "cancelled", None, event.aircraft)

    def _change(self, flight: str, status: str, delay: int | None, aircraft: str | None) -> None:
        line = self.lines[flight]
        self.lines[flight] = msgspec.structs.replace(line, status=status, delay=delay, aircraft=aircraft)

    def in_order(self) -> list[Line]:
        """The lines by scheduled departure."""
        return sorted(self.lines.values(), key=self.place)

    @staticmethod
    def place(line: Line) -> tuple[datetime, str]:
        """What the lines are in order of."""
        return line.departs, line.flight


class Leg(msgspec.Struct, frozen=True, kw_only=True):
    """One flight of an aircraft. Delays in minutes; `arrived` and its delay are None until it did."""

    origin: str
    dest: str
    departed: datetime
    departure_delay: int
    arrived: datetime | None = None
    arrival_delay: int | None = None
    air_time: int | None = None
    diverted: bool = False
    flight: str


class AircraftDay(ef.State):
    """What one aircraft did on one day (of the schedule, in New York), as far as it left from New York."""

    aircraft: ef.Tag
    day: ef.Tag
    legs: dict[str, Leg] = {}

    def evolve(self, event: FlightDeparted | FlightArrived | FlightDiverted) -> None:
        """Take off, land, or go astray."""
        match event:
            case FlightDeparted():
                self.legs[event.flight] = Leg(
                    origin=event.origin,
                    dest=event.dest,
                    departed=event.at,
                    departure_delay=event.delay,
                    flight=event.flight,
                )
            case FlightArrived():
                self.legs[event.flight] = msgspec.structs.replace(
                    self.legs[event.flight], arrived=event.at, arrival_delay=event.delay, air_time=event.air_time
                )
            case FlightDiverted():
                self.legs[event.flight] = msgspec.structs.replace(self.legs[event.flight], diverted=True)


class GateDay(ef.State):
    """When a gate is taken in a plan: [since, until) of each stay."""

    plan: ef.Tag
    gate: ef.Tag
    stays: list[tuple[datetime, datetime]] = []

    def evolve(self, event: GateAssigned) -> None:
        """One more stay."""
        self.stays.append((event.since, event.until))

    def free(self, since: datetime, until: datetime) -> bool:
        """Whether nobody stands there in [since, until)."""
        return all(until <= other_since or other_until <= since for other_since, other_until in self.stays)


class FlightGate(ef.State):
    """Which gate a flight has in a plan, if any."""

    plan: ef.Tag
    flight: ef.Tag
    gate: str | None = None

    def evolve(self, event: GateAssigned) -> None:
        """It has one."""
        self.gate = event.gate


class Hour(msgspec.Struct, frozen=True):
    """An hour at an airport: its beginning, how many flights left in it, and their minutes of delay together."""

    origin: str
    hour: datetime
    departures: int
    waited: int


def busiest(year: Year) -> Hour:
    """The hour and airport with the most departures; of equals the earliest."""
    return _hour(year, min(year.hours, key=lambda hour: (-year.hours[hour], hour[1], hour[0])))


def worst(year: Year) -> Hour:
    """The hour and airport whose departures were late by the most minutes together; of equals the earliest."""
    return _hour(year, min(year.hours, key=lambda hour: (-year.waiting[hour], hour[1], hour[0])))


def _hour(year: Year, key: tuple[str, datetime]) -> Hour:
    return Hour(*key, year.hours[key], year.waiting[key])


def days_on_board(moment: datetime) -> tuple[str, ...]:
    """The schedule days that a board shows at a moment: that day in New York, and what the day before left over."""
    today: date = moment.astimezone(NEW_YORK).date()
    return ((today - timedelta(days=1)).isoformat(), today.isoformat())
