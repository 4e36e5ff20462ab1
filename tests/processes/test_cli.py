"""`eventfold processes`: its output and its operations."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.errors import ProcessError
from tests.processes.shop import OrderPlaced, Paid, Reminded
from tests.processes.test_processes import Fragile, broken
from tests.processes.test_timers import Waiting

ROOT = Path(__file__).parents[2]
PATH = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))  # and the library under test


def eventfold(*words: str, folder: Path, columns: int = 140) -> Any:
    """Return the output of the command, run in a folder with this repository's modules importable."""
    command = [sys.executable, "-m", "eventfold", "processes", *words]
    environment = {**os.environ, "PYTHONPATH": PATH, "COLUMNS": str(columns)}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, env=environment)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with `shop.db`: one instance stuck, one waiting, one running, one finished."""
    broken.clear()
    with ef.Store(str(tmp_path / "shop.db")) as store:
        store.append(OrderPlaced("finished"), Paid("finished"), OrderPlaced("waiting", 2))
        store.run_until_idle(Waiting)
        broken.append(True)
        store.append(OrderPlaced("stuck", 0), OrderPlaced("bad", 3), Paid("bad"))
        with pytest.raises(ProcessError):
            store.run_until_idle(Fragile)
        broken.clear()
    return tmp_path


def lines(ran: Any) -> list[dict[str, Any]]:
    """Return the JSON lines of an output."""
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_the_list_shows_what_waits_and_what_is_stuck(folder: Path) -> None:
    """For which timer and until when; at which event, with which command and error, and how many wait behind it."""
    found = {(each["process"], each["key"]): each for each in lines(eventfold("shop.db", folder=folder))}
    waits = found["waiting", "waiting"]
    assert (waits["state"], waits["timer"], waits["timers"]) == ("waiting", "shop-reminder-due", 2)
    assert waits["due"].endswith("Z")
    bad = found["fragile", "bad"]
    assert bad["state"] == "stuck" and bad["behind"] == 1 and bad["attempts"] == 1
    assert "reserve(" in bad["error"] and "SoldOut" in bad["error"]
    shown = eventfold("shop.db", "--table", folder=folder).stdout
    assert "Z shop-reminder-due and 1 more" in shown and "command 0 asked for reserve(" in shown


def test_a_narrow_list_still_says_everything_of_what_is_stuck(folder: Path) -> None:
    """Its error in full, the number of its event, and what to type."""
    narrow = eventfold("shop.db", "--table", folder=folder, columns=60).stdout
    said = " ".join(narrow.split())
    (bad,) = [e for e in lines(eventfold("shop.db", folder=folder)) if e["key"] == "bad"]
    place = f"fragile:{bad['position']}"
    assert f"{place} of bad, tried 1 time, 1 later event behind it: command 0 asked for reserve(" in said
    assert "which failed: SoldOut" in said.partition(place)[2]
    assert "--retry fragile" in said and "--because" in said
    assert max(map(len, narrow.splitlines())) <= 60


def test_with_the_class_it_shows_what_runs_and_what_is_finished(folder: Path) -> None:
    """States are folded and asked whether they are done."""
    ran = eventfold("shop.db", "tests.processes.shop:Payment", folder=folder)
    states = {each["key"]: each["state"] for each in lines(ran)}
    assert states == {"waiting": "running", "stuck": "running", "bad": "finished", "finished": "finished"}


def test_what_is_stuck_is_retried_and_skipped_by_hand(folder: Path) -> None:
    """`--retry` makes it due, `--skip` gives it up for a reason, which is in the log."""
    (first, *_) = [e for e in lines(eventfold("shop.db", folder=folder)) if e["key"] == "bad"]
    skipped = eventfold("shop.db", "--skip", f"fragile:{first['position']}", "--because", "called", folder=folder)
    assert skipped.returncode == 0, skipped.stderr
    assert eventfold("shop.db", "--retry", "fragile", folder=folder).returncode == 0
    with ef.Store(str(folder / "shop.db")) as store:
        store.run_until_idle(Fragile)
        assert [r.event.order for r in store.read(ef.Query.of(types=[Reminded]))].count("bad") == 1


def test_it_runs_a_process_until_it_is_asked_to_end(folder: Path) -> None:
    """`--run` reacts and fires as an application would; Ctrl-C ends it, and nothing is left undone."""
    command = [sys.executable, "-m", "eventfold", "processes", "shop.db", "tests.processes.shop:Payment", "--run"]
    environment = {**os.environ, "PYTHONPATH": PATH}
    running = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        with ef.Store(str(folder / "shop.db")) as store:
            ends = time.monotonic() + 90
            while "waiting" not in [r.event.order for r in store.read(ef.Query.of(types=[Reminded]))]:
                assert time.monotonic() < ends
                time.sleep(0.05)
    finally:
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "shop_payment is running" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("tests.processes.shop:Order",), "is not a process"),
        (("--skip", "fragile"), "does not name an event"),
        (("--retry", "fragile:x"), "does not name an event"),
        (("--skip", "fragile:99", "--because", "x"), "has not parked event 99"),
        (("--run",), "name what to run"),
    ],
)
def test_what_cannot_be_run_or_retried_is_refused_with_a_message(
    folder: Path, words: tuple[str, ...], message: str
) -> None:
    """It refuses a class that is not a process, an unknown event, and an empty list of things to run."""
    ran = eventfold("shop.db", *words, folder=folder)
    assert ran.returncode != 0 and message in " ".join(ran.stderr.replace("│", " ").split())
    assert "Traceback" not in ran.stderr
