"""Features of flights as they were known two hours before departure: one pass over the log, in its order.

Knows: the fold, and when a fact is known. Does not know: any library of machine learning.

The events are in the order in which they became known. For each flight the pass stops where the next event would be
later than two hours before its scheduled departure: what was folded until there is what was known, and the position is
the cursor of a prediction. Three more columns are computed on purpose from what is not known then:

- `aircraft_delay`: how late the flight's aircraft arrived last, until that moment. The log learns the aircraft when the
  flight leaves; airlines know it earlier, and the source does not say how much. It is a column of its own for that.
- `airport_delay_then`: the airport's last ten departures when the flight left, in place of two hours before.
- `carrier_day_delay`: the mean delay of the carrier on that day, to which the flight itself contributes.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from array import array
from bisect import bisect_right
from collections import defaultdict, deque
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import eventfold as ef
from eventfold.demo.flights.events import FlightArrived, FlightCancelled, FlightDeparted, FlightScheduled
from examples.fields.delays.app import WeatherObserved

AHEAD = timedelta(hours=2)
AIRPORT_DEPARTURES, CARRIER_DEPARTURES = 10, 20  # of which the mean delay is a feature
NEW_YORK = ZoneInfo("America/New_York")
KNOWN = (
    "hour",
    "weekday",
    "distance",
    "temperature",
    "wind",
    "rain",
    "visibility",
    "airport_delay",
    "carrier_delay",
)
ASSUMED = (*KNOWN, "aircraft_delay")
LEAKY = (*KNOWN, "airport_delay_then", "carrier_day_delay")
COLUMNS = (*KNOWN, "aircraft_delay", "airport_delay_then", "carrier_day_delay", "delay")
UNKNOWN = math.nan
TYPES = [FlightScheduled, FlightDeparted, FlightArrived, FlightCancelled, WeatherObserved]


class Due(NamedTuple):
    """A flight whose features are taken at `at`; in order of time, then of announcement."""

    at: datetime
    number: int
    flight: FlightScheduled


class Features:
    """Rows of features, one a flight, as columns; `positions` are the cursors, `left` where the outcome is known."""

    def __init__(self) -> None:
        self.flights: list[str] = []
        self.departs: list[datetime] = []
        self.positions, self.left = array("q"), array("q")
        self.columns: dict[str, array[float]] = {name: array("f") for name in COLUMNS}
        self._days: list[tuple[str, str]] = []
        self._rows: dict[str, int] = {}
        self._due: list[Due] = []
        self._weather: dict[str, WeatherObserved] = {}
        self._airports: dict[str, deque[int]] = defaultdict(lambda: deque(maxlen=AIRPORT_DEPARTURES))
        self._carriers: dict[str, deque[int]] = defaultdict(lambda: deque(maxlen=CARRIER_DEPARTURES))
        self._aircraft: dict[str, list[tuple[datetime, int]]] = defaultdict(list)
        self._carrier_days: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])

    def __len__(self) -> int:
        return len(self.flights)

    def fold(self, recorded: ef.Recorded) -> None:
        """Take the features that are due before this event, then apply it."""
        occurred, event = recorded.occurred or recorded.time, recorded.event
        while self._due and self._due[0].at < occurred:
            self._take(heapq.heappop(self._due), recorded.position - 1)
        match event:
            case FlightScheduled():
                heapq.heappush(self._due, Due(event.departs - AHEAD, recorded.position, event))
            case FlightDeparted():
                self._depart(event, recorded.position)
            case FlightArrived():
                self._aircraft[event.aircraft].append((occurred, event.delay))
            case FlightCancelled():
                self._rows.pop(event.flight, None)
            case WeatherObserved():
                self._weather[event.origin] = event
            case _:
                pass

    def _take(self, due: Due, position: int) -> None:
        flight, weather = due.flight, self._weather.get(due.flight.origin)
        local = flight.departs.astimezone(NEW_YORK)
        self._rows[flight.flight] = len(self.flights)
        self.flights.append(flight.flight)
        self.departs.append(flight.departs)
        self.positions.append(position)
        self.left.append(0)
        self._days.append((flight.carrier, flight.day))
        row = {
            "hour": local.hour + local.minute / 60,
            "weekday": local.weekday(),
            "distance": flight.distance,
            "airport_delay": mean(self._airports[flight.origin]),
            "carrier_delay": mean(self._carriers[flight.carrier]),
        }
        if weather is not None:
            row |= {"temperature": number(weather.temperature), "wind": number(weather.wind)}
            row |= {"rain": weather.rain, "visibility": weather.visibility}
        for name, column in self.columns.items():
            column.append(row.get(name, UNKNOWN))

    def _depart(self, event: FlightDeparted, position: int) -> None:
        row = self._rows.pop(event.flight, None)
        if row is not None:
            self.left[row] = position
            self.columns["delay"][row] = event.delay
            self.columns["airport_delay_then"][row] = mean(self._airports[event.origin])
            arrivals = self._aircraft[event.aircraft]
            before = bisect_right(arrivals, (self.departs[row] - AHEAD, 1 << 30))
            self.columns["aircraft_delay"][row] = arrivals[before - 1][1] if before else UNKNOWN
            del arrivals[: max(0, before - 2)]
        self._airports[event.origin].append(event.delay)
        self._carriers[event.carrier].append(event.delay)
        total = self._carrier_days[event.carrier, event.day]
        total[0] += event.delay
        total[1] += 1

    def finish(self) -> None:
        """Compute the column for which whole days are needed."""
        for row, key in enumerate(self._days):
            delays, count = self._carrier_days.get(key, (0, 0))
            self.columns["carrier_day_delay"][row] = delays / count if count else UNKNOWN

    def known_at(self, position: int) -> list[int]:
        """The rows whose outcome was known at a position: what a model may be trained on there."""
        return [row for row, left in enumerate(self.left) if 0 < left <= position]

    def digest(self, rows: list[int]) -> str:
        """The SHA-256 of rows, without the columns that were not known: the identity of a training set."""
        hashed = hashlib.sha256("\n".join(self.flights[row] for row in rows).encode())
        for name in (*KNOWN, "delay"):
            column = self.columns[name]
            hashed.update(array("f", [column[row] for row in rows]).tobytes())
        return hashed.hexdigest()


def mean(delays: deque[int]) -> float:
    """The mean of delays, in minutes; unknown if there is none."""
    return sum(delays) / len(delays) if delays else UNKNOWN


def number(value: float | None) -> float:
    """A value that a row of the source may lack."""
    return UNKNOWN if value is None else value


def compute(store: ef.Store, until: int | None = None) -> Features:
    """Compute the features of all flights that are due by the last event, or by the one at `until`."""
    features = Features()
    for recorded in store.read(ef.Query.of(types=TYPES), until=until):
        features.fold(recorded)
    features.finish()
    return features
