"""Draws what the read models of the demonstration say: `python scripts/draw_flights.py flights.db`.

It writes docs/figures/flights-*.svg. The store is the one that `eventfold demo flights --db flights.db` leaves.
Knows: the rows of the demonstration, SVG. Does not know: events.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from draw_figures import INK, Figure, heading, text

import eventfold as ef
from eventfold.demo.flights.models import NEW_YORK
from eventfold.demo.flights.tables import AirportHour, CarrierMonth

FOLDER = Path(__file__).parents[1] / "docs" / "figures"
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
SHADES = ("#eaf1fa", "#fdf1e6", "#fbd9b5", "#f4b27a", "#e28743", "#b3541e")  # by minutes of delay
LIMITS = (5, 10, 15, 20, 30)  # minutes; the first shade is below the first of them


def shade(minutes: float) -> str:
    """The shade of a mean delay."""
    return SHADES[sum(minutes >= limit for limit in LIMITS)]


def delays(store: ef.Store) -> Figure:
    """The mean delay of departures, for each carrier and month."""
    rows = {(row.carrier, row.month): row for row in store.rows(CarrierMonth)}
    carriers = sorted({carrier for carrier, _ in rows})
    parts = [heading(36, 34, "Mean delay of departures, minutes, 2013", anchor="start")]
    for column, month in enumerate(MONTHS):
        parts.append(text(112 + 60 * column, 62, month))
    for line, carrier in enumerate(carriers):
        y = 72 + 24 * line
        parts.append(text(60, y + 16, carrier, fill=INK))
        for column in range(12):
            row = rows.get((carrier, f"2013-{column + 1:02}"))
            if row is None or not row.departed:
                continue
            mean = row.departure_delay / row.departed
            x = 82 + 60 * column
            parts.append(f'<rect x="{x}" y="{y}" width="58" height="22" rx="3" fill="{shade(mean)}"/>')
            ink = "#fff" if mean >= LIMITS[-1] else INK
            parts.append(text(x + 29, y + 15, f"{mean:.0f}", size=11, fill=ink))
    height = 72 + 24 * len(carriers) + 40
    parts.append(text(36, height - 14, "Read model CarrierMonth: a row for each carrier and month.", anchor="start"))
    described = "A table of sixteen carriers and twelve months; June and July have the longest delays of most carriers."
    return Figure("flights-delays", 830, height, "Mean delay of departures by carrier and month", described, parts)


class Hour(NamedTuple):
    """An hour of the day, in New York: how many flights left, and their mean delay in minutes."""

    hour: int
    departures: int
    delay: float


def hours(store: ef.Store) -> list[Hour]:
    """All hours of the day in which flights left."""
    departures, waited = defaultdict[int, int](int), defaultdict[int, int](int)
    for row in store.rows(AirportHour):
        hour = row.hour.astimezone(NEW_YORK).hour
        departures[hour] += row.departures
        waited[hour] += row.waited
    return [Hour(hour, departures[hour], waited[hour] / departures[hour]) for hour in sorted(departures) if hour >= 4]


def day(store: ef.Store) -> Figure:
    """How many flights leave in each hour of the day, and how late they are."""
    found = hours(store)
    most, longest = max(each.departures for each in found), max(each.delay for each in found if each.departures > 500)
    parts = [heading(36, 34, "Departures by hour in New York, and their mean delay, 2013", anchor="start")]
    base, tall = 250, 180
    points: list[str] = []
    for number, each in enumerate(found):
        x = 50 + 37 * number
        top = base - tall * each.departures / most
        parts.append(f'<rect x="{x}" y="{top:.0f}" width="29" height="{base - top:.0f}" rx="2" fill="#b9c9de"/>')
        parts.append(text(x + 14, base + 17, str(each.hour), size=11))
        if each.departures > 500:
            y = base - tall * max(each.delay, 0) / longest
            points.append(f"{x + 14},{y:.0f}")
            if number % 3 == 2 or each.delay == longest:
                parts.append(text(x + 14, y - 8, f"{each.delay:.0f} min", size=11, fill="#b3541e"))
    parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="#b3541e" stroke-width="2.5"/>')
    parts.append(
        text(36, 296, f"Bars: departures, at most {most:,} in one hour of the day. Line: mean delay.", anchor="start")
    )
    described = "Delays grow through the day, from none in the morning to most in the evening."
    return Figure("flights-day", 830, 312, "Departures by hour of the day", described, parts)


if __name__ == "__main__":
    with ef.Store(sys.argv[1]) as opened:
        for figure in (delays(opened), day(opened)):
            (FOLDER / f"{figure.name}.svg").write_text(figure.svg(), "utf-8")
            print(FOLDER / f"{figure.name}.svg")
