"""States that the library folds from the log.

Knows: the events. Does not know: the source, DuckDB, how results are shown.
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
)

NEW_YORK = ZoneInfo("America/New_York")


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a departure board. `delay`, in minutes, and `aircraft` are None until they are known."""

    status: str = "scheduled"
    delay: int | None = None
    departs: datetime
    dest: str
    carrier: str
    aircraft: str | None = None
    day: str
    flight: str


class Board(ef.State):
    """The departures of an airport that are scheduled on certain days (dates in New York).

    Folded with `occurred_until=T`, it is the board as it was at time T.
    """

    origin: ef.Tag
    days: Annotated[tuple[str, ...], ef.tag("day")]
    lines: dict[str, Line] = {}

    def evolve(self, event: FlightScheduled | FlightDeparted | FlightCancelled) -> None:
        """Add a line for an announced flight, or change its status."""
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
        """The sort key of a line."""
        return line.departs, line.flight


class Leg(msgspec.Struct, frozen=True, kw_only=True):
    """One flight of an aircraft. Delays are in minutes; `arrived` and its delay are None until it arrived."""

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
    """The flights of one aircraft out of New York on one day of the schedule (a date in New York)."""

    aircraft: ef.Tag
    day: ef.Tag
    legs: dict[str, Leg] = {}

    def evolve(self, event: FlightDeparted | FlightArrived | FlightDiverted) -> None:
        """Add a leg at its departure; complete it at its arrival or diversion."""
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
    """When a gate is occupied in a plan: [since, until) of each stay."""

    plan: ef.Tag
    gate: ef.Tag
    stays: list[tuple[datetime, datetime]] = []

    def evolve(self, event: GateAssigned) -> None:
        """Add a stay."""
        self.stays.append((event.since, event.until))

    def free(self, since: datetime, until: datetime) -> bool:
        """Whether the gate is free in [since, until)."""
        return all(until <= other_since or other_until <= since for other_since, other_until in self.stays)


class FlightGate(ef.State):
    """The gate of a flight in a plan, if it has one."""

    plan: ef.Tag
    flight: ef.Tag
    gate: str | None = None

    def evolve(self, event: GateAssigned) -> None:
        """Set the gate."""
        self.gate = event.gate


def days_on_board(moment: datetime) -> tuple[str, ...]:
    """The days in the schedule that a board shows at a moment: that day in New York, and the day before."""
    today: date = moment.astimezone(NEW_YORK).date()
    return ((today - timedelta(days=1)).isoformat(), today.isoformat())
