"""Rules over the flights, and which hours of 2013 would have raised them, beside what is known of that year.

    eventfold demo flights
    python -m eventfold.demo.flights.alerts flights.db

The rules go by when a flight left, not by when it was loaded. Knows: events, rules. Does not know: how a rule is
replayed over the past (`store.alerts.replay` does).
"""

from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import eventfold as ef
from eventfold.alerts.facts import Episode
from eventfold.demo.flights.events import FlightCancelled, FlightDeparted

NEW_YORK = ZoneInfo("America/New_York")
# The days with the most cancelled flights, by the source.
KNOWN = {
    date(2013, 2, 8): "blizzard Nemo",
    date(2013, 2, 9): "blizzard Nemo",
    date(2013, 3, 6): "snow in the capital",
    date(2013, 3, 8): "snow",
    date(2013, 5, 23): "thunderstorms",
    date(2013, 9, 12): "thunderstorms",
    date(2013, 11, 28): "Thanksgiving",
    date(2013, 12, 10): "snow",
    date(2013, 12, 25): "Christmas",
}


class DeparturesOfAnHour(ef.Alert, name="flights_departures_hour", by="occurred", severity="page"):
    """The departures of an hour are unlike those of this hour of the week."""

    departures: ef.Seasonal = ef.seasonal(zone="America/New_York")

    def evolve(self, event: FlightDeparted) -> None:
        """Count a departure."""
        self.departures.add()


class DeparturesOfADay(ef.Alert, name="flights_departures_day", by="occurred", severity="ticket"):
    """The departures of a day are unlike those of this day of the week."""

    departures: ef.Seasonal = ef.seasonal(zone="America/New_York", by="day")

    def evolve(self, event: FlightDeparted) -> None:
        """Count a departure."""
        self.departures.add()


class Cancellations(ef.Alert, name="flights_cancellations", by="occurred", severity="page"):
    """Many times as many flights are cancelled within three hours as usual."""

    cancelled: ef.Rate = ef.rate(per=ef.hours(3), factor=8, at_least=30, warm=56)

    def evolve(self, event: FlightCancelled) -> None:
        """Count a cancellation."""
        self.cancelled.add()


RULES: tuple[type[ef.Alert], ...] = (DeparturesOfAnHour, DeparturesOfADay, Cancellations)


def day_of(episode: Episode, rule: type[ef.Alert]) -> date:
    """Return the day in New York that an episode is about: an hour or a day is judged when it is over."""
    judged_after: dict[type[ef.Alert], timedelta] = {DeparturesOfAnHour: ef.hours(1), DeparturesOfADay: ef.hours(2)}
    back = judged_after.get(rule, timedelta())
    return (datetime.fromtimestamp(episode.at / 1e6, UTC).astimezone(NEW_YORK) - back).date()


def report(store: ef.Store) -> str:
    """Return a table: for each rule the days on which it would have raised an alert, and what is known of them."""
    lines: list[str] = []
    for rule in RULES:
        episodes = store.alerts.replay(rule)
        days = Counter(day_of(each, rule) for each in episodes)
        lines += [f"{rule.__name__}: {len(episodes)} episodes on {len(days)} days"]
        lines += [f"  {day} {count:3}  {KNOWN.get(day, '')}".rstrip() for day, count in sorted(days.items())]
    return "\n".join(lines)


if __name__ == "__main__":
    with ef.Store(sys.argv[1] if len(sys.argv) > 1 else "flights.db") as opened:
        print(report(opened))
