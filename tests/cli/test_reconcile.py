"""`eventfold reconcile`: the table of differences, JSON, exit codes, repetition."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from eventfold.store import Store
from tests.cli.commands import on_terminal, plain, run, started, too_wide
from tests.cli.stores import bank_file

WORDS = ("--filter", "type:Deposited", "--key", "account", "--sum", "data.amount")


@pytest.fixture
def bank(tmp_path: Path) -> str:
    """Return the address of the bank: 80 for a-1, 30 for a-2."""
    return str(bank_file(tmp_path))


def source(folder: Path, text: str) -> str:
    """Return a CSV file."""
    path = folder / "paid.csv"
    path.write_text(text, "utf-8")
    return str(path)


def test_both_sides_agree(bank: str, tmp_path: Path) -> None:
    """It exits with 0 and says so."""
    ran = run("reconcile", bank, source(tmp_path, "account,amount\na-1,80.00\na-2,3e1\n"), *WORDS)
    assert ran.code == 0
    assert ran.lines[0]["equal"]
    assert ran.lines[0]["verdict"] == "Both sides agree: 2 events by key, 2 values."


def test_differences_have_an_exit_code_of_their_own(bank: str, tmp_path: Path) -> None:
    """As JSON, with both values and positions."""
    ran = run("reconcile", bank, source(tmp_path, "account,amount\na-1,81\na-2,30\n"), *WORDS)
    assert ran.code == 8
    (found,) = ran.lines
    expected = {"key": "a-1", "period": "", "events": 1, "rows": 1, "sum": "80", "sum_outside": "81", "positions": [2]}
    assert found["differences"] == [expected]


def test_differences_are_a_table_on_a_terminal(bank: str, tmp_path: Path) -> None:
    """Of 80 columns, with a sentence below."""
    path = source(tmp_path, "account,amount,day\na-1,81,2026-11-23\na-2,30,2026-11-24\na-\x1b[31m9,1,2026-11-24\n")
    words = (*WORDS, "--by", "month", "--source-time", "day")
    code, shown = on_terminal("reconcile", bank, path, *words, folder=tmp_path)
    assert code == 8
    assert not too_wide(shown)
    assert "\x1b[31m9" not in shown
    assert "a-1" in plain(shown)
    assert "differ" in plain(shown)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "Name one source"),
        (("paid.csv",), "No key was named"),
        (("paid.csv", "--key", "account", "--by", "week"), "hour, day, month"),
        (("paid.csv", "--key", "account", "--zone", "Nowhere/There"), "no time zone"),
        (("paid.csv", "--key", "account", "--every", "soon"), "10m"),
        (("paid.csv", "--key", "account", "--header", "secret"), "NAME:VALUE"),
    ],
)
def test_wrong_arguments_are_refused(bank: str, tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    """With code 2 and what to write."""
    source(tmp_path, "account\n")
    given = [str(tmp_path / each) if each == "paid.csv" else each for each in words]
    ran = run("reconcile", bank, *given, "--json")
    assert ran.code == 2
    assert says in ran.error["what"] + ran.error["remedy"]


def test_a_source_that_cannot_be_read_is_an_error_and_is_recorded(bank: str) -> None:
    """With --record, so that the alert tells of it."""
    ran = run("reconcile", bank, "/nowhere/paid.csv", *WORDS, "--record", "payments", "--json")
    assert (ran.code, ran.error["error"]) == (1, "source-unavailable")
    with Store(bank) as store:
        (fact,) = [each for each in store.read(raw=True) if each.type == "$reconciled"]
        assert json.loads(fact.event.data)["outcome"] == "failed"


def test_it_is_repeated_until_it_is_ended(bank: str, tmp_path: Path) -> None:
    """Each result is a line, and a fact; a difference does not end it."""
    path = source(tmp_path, "account,amount\na-1,80\n")
    with started("reconcile", bank, path, *WORDS, "--every", "1s", "--record", "payments", folder=tmp_path) as running:
        assert json.loads(running.line())["differing"] == 1
        assert json.loads(running.line())["differing"] == 1
        running.send(signal.SIGINT)
        assert running.end()[0] == 130
    with Store(bank) as store:
        assert len([each for each in store.read(raw=True) if each.type == "$reconciled"]) >= 2
