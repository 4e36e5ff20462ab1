"""The flights out of New York in 2013 by hour of their scheduled departure, from the package of the demonstration."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import NamedTuple
from zoneinfo import ZoneInfo

from eventfold.demo.flights.source import connect, unpack

NEW_YORK = ZoneInfo("America/New_York")
WORST = [date(2013, 2, 9), date(2013, 2, 8), date(2013, 5, 23), date(2013, 12, 10), date(2013, 3, 8), date(2013, 9, 12)]
_HOURS = """
SELECT epoch(time_hour)::BIGINT, count(dep_delay), count(*) - count(dep_delay), coalesce(sum(dep_delay), 0)::BIGINT
FROM read_csv($path, nullstr = 'NA', buffer_size = 1000000, max_line_size = 1000) GROUP BY 1 ORDER BY 1
"""


class Hour(NamedTuple):
    """An hour: its beginning in seconds since 1970, departures, cancellations, minutes of delay of all departures."""

    second: int
    departed: int
    cancelled: int
    delay: int

    @property
    def micros(self) -> int:
        """The beginning in microseconds."""
        return self.second * 1_000_000

    @property
    def day(self) -> date:
        """The date in New York."""
        return datetime.fromtimestamp(self.second, NEW_YORK).date()


@cache
def hours() -> list[Hour]:
    """Every hour of the year, those without any flight too."""
    with tempfile.TemporaryDirectory() as folder:
        db = connect()
        rows = db.execute(_HOURS, {"path": str(unpack(Path(folder)).flights)}).fetchall()
        db.close()
    known = {row[0]: Hour(*row) for row in rows}
    return [known.get(second, Hour(second, 0, 0, 0)) for second in range(rows[0][0], rows[-1][0] + 1, 3_600)]


def days() -> dict[date, Hour]:
    """The sums of each day."""
    sums: defaultdict[date, list[int]] = defaultdict(lambda: [0, 0, 0])
    for hour in hours():
        for place, value in enumerate((hour.departed, hour.cancelled, hour.delay)):
            sums[hour.day][place] += value
    return {day: Hour(0, *values) for day, values in sums.items()}
