"""Read models in the file of the store: each event is applied exactly once; rebuilt when a rule changes.

Knows: the events and how one of them changes one row. Does not know: how rows are stored, the source.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import ClassVar

import msgspec

import eventfold as ef
from eventfold.demo.flights.events import (
    FlightArrived,
    FlightCancelled,
    FlightDeparted,
    FlightDiverted,
    FlightScheduled,
    Happened,
)


class CarrierMonth(ef.Projection):
    """Counts and sums for the flights of one carrier in one month ("2013-07") of the schedule.

    Delays and air time are sums of minutes; `late` counts departures that were late by at least LATE minutes.
    """

    LATE: ClassVar[int] = 1

    carrier: str
    month: str
    scheduled: int = 0
    departed: int = 0
    departure_delay: int = 0
    late: int = 0
    arrived: int = 0
    arrival_delay: int = 0
    air_time: int = 0
    diverted: int = 0
    cancelled: int = 0

    @staticmethod
    def key(event: Happened) -> tuple[str, str]:
        """The key of the row that an event changes."""
        return event.carrier, event.day[:7]

    def evolve(self, event: Happened) -> None:
        """Count one event."""
        match event:
            case FlightScheduled():
                self.scheduled += 1
            case FlightDeparted():
                self.departed += 1
                self.departure_delay += event.delay
                self.late += event.delay >= self.LATE
            case FlightArrived():
                self.arrived += 1
                self.arrival_delay += event.delay
                self.air_time += event.air_time
            case FlightDiverted():
                self.diverted += 1
            case FlightCancelled():
                self.cancelled += 1


class CarrierMonthAsReported(CarrierMonth, name="carrier_month"):
    """The same table by another rule: the airlines count a flight as late from 15 minutes on."""

    LATE: ClassVar[int] = 15


class AirportHour(ef.Projection):
    """The number of flights that left an airport in an hour, and the sum of their delays in minutes.

    `hour` is its beginning, in UTC.
    """

    origin: str
    hour: datetime
    departures: int = 0
    waited: int = 0

    @staticmethod
    def key(event: FlightDeparted) -> tuple[str, datetime]:
        """The key of the row that an event changes."""
        return event.origin, event.at.replace(minute=0)

    def evolve(self, event: FlightDeparted) -> None:
        """Count one departure."""
        self.departures += 1
        self.waited += event.delay


class RuleChange(msgspec.Struct, kw_only=True):
    """A table rebuilt by another rule, and its comparison with the live one.

    `late` by carrier: departures late by the old rule and by the new; `proofs`: the verdict of `verify` on each table.
    """

    rows: tuple[int, int]
    digests: tuple[str, str]
    different: int
    late: dict[str, tuple[int, int]]
    events: int
    seconds: float
    proofs: dict[str, str]
    proved: bool


def busiest(hours: Iterable[AirportHour]) -> AirportHour:
    """The hour and airport with the most departures; among equals, the earliest."""
    return min(hours, key=lambda each: (-each.departures, each.hour, each.origin))


def worst(hours: Iterable[AirportHour]) -> AirportHour:
    """The hour and airport with the largest sum of delays; among equals, the earliest."""
    return min(hours, key=lambda each: (-each.waited, each.hour, each.origin))
