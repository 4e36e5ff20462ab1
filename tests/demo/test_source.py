"""The events of source rows: a real row for each special case, and the clocks of every hundredth row."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from eventfold.demo.flights.events import (
    FlightArrived,
    FlightCancelled,
    FlightDeparted,
    FlightDiverted,
    FlightScheduled,
    Happened,
)
from eventfold.demo.flights.source import Files, Source
from eventfold.demo.flights.source_rows import draft

NEW_YORK = ZoneInfo("America/New_York")

# Each row is copied from the file; the columns are those of HEADER.
HEADER = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,"
    "carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,time_hour"
)
ROWS = {
    "winter": "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z",
    "summer": "2013,7,1,655,658,-3,855,915,-20,UA,1138,N38727,EWR,PHX,278,2133,6,58,2013-07-01T10:00:00Z",
    "leaves at 2400": "2013,10,30,2400,2359,1,327,337,-10,B6,839,N661JB,JFK,BQN,182,1576,23,59,2013-10-31T03:00:00Z",
    "lands at 2400": "2013,1,1,2209,2155,14,2400,2337,23,B6,1109,N216JB,JFK,RDU,86,427,21,55,2013-01-02T02:00:00Z",
    "lands by midnight": "2013,1,5,2116,2130,-14,2400,18,-18,B6,383,N644JB,LGA,FLL,151,1076,21,30,2013-01-06T02:00:00Z",
    "leaves after midnight": "2013,1,2,42,2359,43,518,442,36,B6,707,N580JB,JFK,SJU,189,1598,23,59,2013-01-03T04:00:00Z",
    "leaves a day late": "2013,1,9,641,900,1301,1242,1530,1272,HA,51,N384HA,JFK,HNL,640,4983,9,0,2013-01-09T14:00:00Z",
    "lands in spring": "2013,3,9,2306,2145,81,203,34,89,B6,35,N658JB,JFK,PBI,141,1028,21,45,2013-03-10T02:00:00Z",
    "lands in autumn": "2013,11,2,2217,1655,322,114,2015,299,VX,413,N838VA,JFK,LAX,339,2475,16,55,2013-11-02T20:00:00Z",
    "cancelled": "2013,1,2,NA,1545,NA,NA,1910,NA,AA,133,NA,JFK,LAX,NA,2475,15,45,2013-01-02T20:00:00Z",
    "diverted": "2013,1,1,2016,1930,46,NA,2220,NA,EV,4204,N14168,EWR,OKC,NA,1325,19,30,2013-01-02T00:00:00Z",
    "diverted, seen": "2013,1,1,1525,1530,-5,1934,1805,NA,MQ,4525,N719MQ,LGA,XNA,NA,1147,15,30,2013-01-01T20:00:00Z",
}

Became = dict[type[Happened], Happened]


def utc(text: str) -> datetime:
    """A moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def become(files: Files, folder: Path, row: str) -> tuple[Became, dict[type[Happened], datetime]]:
    """The events of one row, by class, and when each occurred."""
    single = folder / "flights.csv"
    single.write_text(f"{HEADER}\n{row}\n")
    with closing(Source(files._replace(flights=single))) as source:
        drafts = [draft(happening) for happening in source.rows()]
        assert len(drafts) == source.row_count()
    return {type(d.event): d.event for d in drafts}, {type(d.event): d.occurred for d in drafts if d.occurred}


@pytest.fixture
def row(files: Files, tmp_path: Path) -> Callable[[str], tuple[Became, dict[type[Happened], datetime]]]:
    """A function that returns one of the rows above."""
    return lambda name: become(files, tmp_path, ROWS[name])


Ask = Callable[[str], tuple[Became, dict[type[Happened], datetime]]]


def test_the_rows_are_real(files: Files) -> None:
    """Each row of these tests is in the file, character for character."""
    with files.flights.open() as lines:
        assert next(lines).strip() == HEADER
        wanted = set(ROWS.values())
        assert wanted <= {line.rstrip("\r\n") for line in lines}


def test_a_flight_has_three_events(row: Ask) -> None:
    """A flight without problems is announced a day ahead, leaves, and arrives: 5:17 in New York is 10:17 in UTC."""
    events, occurred = row("winter")
    assert events == {
        FlightScheduled: FlightScheduled(
            "UA1545-EWR-2013-01-01",
            "UA",
            "EWR",
            "IAH",
            "2013-01-01",
            utc("2013-01-01 10:15"),
            utc("2013-01-01 14:19"),
            1400,
        ),
        FlightDeparted: FlightDeparted(
            "UA1545-EWR-2013-01-01", "UA", "EWR", "IAH", "2013-01-01", "N14228", utc("2013-01-01 10:17"), 2
        ),
        FlightArrived: FlightArrived(
            "UA1545-EWR-2013-01-01", "UA", "EWR", "IAH", "2013-01-01", "N14228", utc("2013-01-01 14:30"), 11, 227
        ),
    }
    assert occurred == {
        FlightScheduled: utc("2012-12-31 10:15"),
        FlightDeparted: utc("2013-01-01 10:17"),
        FlightArrived: utc("2013-01-01 14:30"),
    }


@pytest.mark.parametrize(
    ("name", "departed", "arrived"),
    [
        ("summer", "2013-07-01 10:55", "2013-07-01 15:55"),  # New York has summer time, Phoenix never
        ("leaves at 2400", "2013-10-31 04:00", "2013-10-31 07:27"),  # Atlantic time, from no table
        ("lands at 2400", "2013-01-02 03:09", "2013-01-02 05:00"),
        ("lands by midnight", "2013-01-06 02:16", "2013-01-06 05:00"),
        ("leaves after midnight", "2013-01-03 05:42", "2013-01-03 09:18"),
        ("leaves a day late", "2013-01-10 11:41", "2013-01-10 22:42"),
        ("lands in spring", "2013-03-10 04:06", "2013-03-10 07:03"),  # 03:03, on a clock that the source read as 02:03
        ("lands in autumn", "2013-11-03 02:17", "2013-11-03 08:14"),  # 01:14 on the West Coast, still in summer time
    ],
)
def test_clock_readings_become_instants(row: Ask, name: str, departed: str, arrived: str) -> None:
    """Midnight as 2400, days that roll over, daylight saving and destinations without a zone give the right instant."""
    _, occurred = row(name)
    assert occurred[FlightDeparted] == utc(departed)
    assert occurred[FlightArrived] == utc(arrived)


def test_a_cancelled_flight_never_leaves(row: Ask) -> None:
    """Without a departure there is a cancellation, at the scheduled departure, and no invented aircraft."""
    events, occurred = row("cancelled")
    assert set(events) == {FlightScheduled, FlightCancelled}
    assert events[FlightCancelled] == FlightCancelled("AA133-JFK-2013-01-02", "AA", "JFK", "LAX", "2013-01-02", None)
    assert occurred[FlightCancelled] == utc("2013-01-02 20:45")


def test_a_diverted_flight_leaves_and_does_not_arrive(row: Ask) -> None:
    """A departure without an arrival delay is a diversion, known when the flight was due."""
    events, occurred = row("diverted")
    assert set(events) == {FlightScheduled, FlightDeparted, FlightDiverted}
    due = utc("2013-01-02 01:16") + timedelta(hours=3, minutes=50)
    assert occurred[FlightDiverted] == due


def test_a_diverted_flight_keeps_its_clock_reading(row: Ask) -> None:
    """An arrival time without a day or a place is kept as a clock reading, and is no arrival."""
    events, _ = row("diverted, seen")
    assert FlightArrived not in events
    diverted = events[FlightDiverted]
    assert isinstance(diverted, FlightDiverted)
    assert diverted.clock == 1934


def zones(files: Files) -> dict[str, ZoneInfo]:
    """The time zones of airports, with those of the Caribbean, which the file lacks."""
    with files.airports.open() as lines:
        found = {
            row["faa"]: ZoneInfo(row["tzone"]) for row in csv.DictReader(lines) if row["tzone"] not in {"NA", r"\N"}
        }
    return found | dict.fromkeys(("BQN", "PSE", "SJU", "STT"), ZoneInfo("America/Puerto_Rico"))


def sample(files: Files, every: int) -> Iterator[dict[str, str]]:
    """Every hundredth row of the source."""
    with files.flights.open() as lines:
        for number, line in enumerate(csv.DictReader(lines)):
            if number % every == 0:
                yield line


def test_the_clocks_agree_with_pythons_own_zones(files: Files, tmp_path: Path) -> None:
    """Of every hundredth flight, the instants show `dep_time` in New York and `arr_time` at the destination."""
    rows = list(sample(files, 100))
    part = tmp_path / "flights.csv"
    with part.open("w", newline="") as out:
        writer = csv.DictWriter(out, HEADER.split(","))
        writer.writeheader()
        writer.writerows(rows)
    by_flight = {
        f"{r['carrier']}{r['flight']}-{r['origin']}-{r['year']}-{int(r['month']):02d}-{int(r['day']):02d}": r
        for r in rows
    }
    zone, seen = zones(files), 0
    with closing(Source(files._replace(flights=part))) as source:
        for each in map(draft, source.rows()):
            event, columns = each.event, by_flight[each.event.flight]
            assert each.occurred is not None
            if isinstance(event, FlightScheduled):
                assert clock(event.departs, NEW_YORK) == int(columns["sched_dep_time"]) % 2400
                assert clock(event.arrives, zone[event.dest]) == int(columns["sched_arr_time"]) % 2400
            elif isinstance(event, FlightDeparted):
                assert clock(each.occurred, NEW_YORK) == int(columns["dep_time"]) % 2400
            elif isinstance(event, FlightArrived):
                assert clock(each.occurred, zone[event.dest]) == int(columns["arr_time"]) % 2400
                seen += 1
    assert seen > 3_000


def clock(moment: datetime, zone: ZoneInfo) -> int:
    """A moment as the source writes it: 517 for 05:17."""
    local = moment.astimezone(zone)
    return local.hour * 100 + local.minute


def test_rows_have_a_fixed_order(files: Files) -> None:
    """Rows are ordered by time, then kind, then flight; a second read returns the same order."""
    with closing(Source(files, 5_000)) as source:
        first = list(source.rows())
        assert first == sorted(first, key=lambda each: (each.at, each.kind, each.flight))
        assert first == list(source.rows())
        assert len(first) == source.row_count()


def test_the_limit_takes_the_earliest_flights(files: Files) -> None:
    """The limit selects the first flights by scheduled departure, not by their position in the file."""
    with closing(Source(files, 1_000)) as source:
        days = {each.day for each in source.rows()}
        assert source.flights() == 1_000
    assert days == {"2013-01-01", "2013-01-02"}
