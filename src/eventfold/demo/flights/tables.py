"""Read models in the file of the store, with each event projected exactly once; rebuilt when a rule changes.

Knows: the events and what one of them does to one row. Does not know: how rows are kept, the source.
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
    """What came of the flights of one carrier in one month ("2013-07") of the schedule.

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
        """Which row an event belongs to."""
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
    """The same table by another rule: to the airlines a flight is on time until it is a quarter of an hour late."""

    LATE: ClassVar[int] = 15


class AirportHour(ef.Projection):
    """How many flights left an airport in an hour (its beginning, UTC), and their minutes of delay together."""

    origin: str
    hour: datetime
    departures: int = 0
    waited: int = 0

    @staticmethod
    def key(event: FlightDeparted) -> tuple[str, datetime]:
        """Which row an event belongs to."""
        return event.origin, event.at.replace(minute=0)

    def evolve(self, event: FlightDeparted) -> None:
        """One more has left."""
        self.departures += 1
        self.waited += event.delay


class RuleChange(msgspec.Struct, kw_only=True):
    """A table rebuilt by another rule, and its comparison with the live one.

    `late` by carrier: departures late by the old rule and by the new; `proofs` what `verify` said of each table.
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
    """The hour and airport with the most departures; of equals the earliest."""
    return min(hours, key=lambda each: (-each.departures, each.hour, each.origin))


def worst(hours: Iterable[AirportHour]) -> AirportHour:
    """The hour and airport whose departures were late by the most minutes together; of equals the earliest."""
    return min(hours, key=lambda each: (-each.waited, each.hour, each.origin))
