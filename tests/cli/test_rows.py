"""`eventfold rows`: rows of a read model by filter, order and page."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.cli.output import Output
from eventfold.cli.rows import print_page
from eventfold.selection import Rows
from eventfold.testing.conformance.target.queries import COLUMNS, Sale, Size
from tests.cli.apps.bank import Deposited
from tests.cli.commands import APPS, Ran, process

HERE = ("--import-path", str(APPS))


def asked(*words: str, folder: Path) -> Ran:
    """Run a command that imports classes, in a process of its own."""
    return process(*words, *HERE, folder=folder)


def test_rows_are_filtered_sorted_counted_and_paged(bank: str, tmp_path: Path) -> None:
    """As JSON lines; the cursor of the next page is on standard error, and is taken by --after."""
    asked("run", bank, "bank:Balance", "--once", folder=tmp_path)
    every = asked("rows", bank, "bank:Balance", "--order", "-balance", folder=tmp_path)
    assert every.code == 0, every.err
    balances = [float(row["balance"]) for row in every.lines]
    assert len(balances) > 1
    assert balances == sorted(balances, reverse=True)
    first = asked("rows", bank, "bank:Balance", "--order", "-balance", "--limit", "1", folder=tmp_path)
    assert first.lines == every.lines[:1]
    option, cursor = first.err.split()
    assert option == "--after"
    rest = asked("rows", bank, "balance", "--order", "-balance", "--after", cursor, folder=tmp_path)
    assert rest.lines == every.lines[1:], rest.err
    where = ("--where", f"balance>={balances[0]:g} account:a*")
    assert asked("rows", bank, "bank:Balance", *where, folder=tmp_path).lines == every.lines[:1]
    assert asked("rows", bank, "bank:Balance", *where, "--count", folder=tmp_path).lines == [{"count": 1}]


def test_rows_as_of_a_position_are_folded_from_the_log(bank: str, tmp_path: Path) -> None:
    """They need no table, and take the same filters."""
    then = asked("rows", bank, "bank:Balance", "--at", "2", "--where", "account=a-1", folder=tmp_path)
    assert then.lines == [{"account": "a-1", "balance": "80"}], then.err


def test_rows_of_what_had_occurred_by_a_time_are_folded_from_the_log(tmp_path: Path) -> None:
    """Inclusive, a date to its end, together with --at; a page continues; a generation is no fold."""
    with ef.Store(tmp_path / "late.db") as store:
        for day, account in ((3, "a-1"), (1, "a-2"), (2, "a-1"), (1, "a-3")):
            store.append(ef.Draft(Deposited(account, Decimal(day)), occurred=datetime(2026, 3, day, 12, tzinfo=UTC)))
    url = str(tmp_path / "late.db")
    by = ("rows", url, "bank:Balance", "--occurred-until", "2026-03-02")
    every = [{"account": "a-1", "balance": "2"}, {"account": "a-2", "balance": "1"}, {"account": "a-3", "balance": "1"}]
    assert asked(*by, folder=tmp_path).lines == every
    assert asked(*by, "--at", "2", folder=tmp_path).lines == every[1:2]
    assert asked(*by, "--count", folder=tmp_path).lines == [{"count": 3}]
    assert asked(*by, "--explain", folder=tmp_path).lines[0]["index"] is None
    first = asked(*by, "--limit", "1", folder=tmp_path)
    assert first.lines == every[:1]
    assert asked(*by, *first.err.split(), folder=tmp_path).lines == every[1:]
    refused = asked(*by, "--generation", "1", folder=tmp_path)
    assert refused.code == 2
    assert "--occurred-until" in refused.err


def test_mistakes_are_named(bank: str, tmp_path: Path) -> None:
    """A wrong column, a cursor of another query."""
    asked("run", bank, "bank:Balance", "--once", folder=tmp_path)
    wrong = asked("rows", bank, "bank:Balance", "--where", "balanec>5", folder=tmp_path)
    assert wrong.code != 0
    assert "Did you mean balance" in wrong.err
    first = asked("rows", bank, "bank:Balance", "--limit", "1", folder=tmp_path)
    other = asked("rows", bank, "bank:Balance", "--order", "balance", "--after", first.err.split()[1], folder=tmp_path)
    assert other.code != 0
    assert "sorted by" in other.err
    assert "--after" in other.err
    assert "after=" not in other.err
    listed = asked("rows", bank, "bank:Balance", "--order", "balance,account", folder=tmp_path)
    assert "--order=balance --order=account" in listed.err
    explained = asked("rows", bank, "bank:Balance", "--where", "account=a-1", "--explain", folder=tmp_path)
    assert explained.lines[0]["index"] == ["account"]


def test_an_explanation_of_folded_rows_names_no_index(bank: str, tmp_path: Path) -> None:
    """They are compared in memory."""
    where = ("--at", "2", "--where", "account=a-1", "--explain")
    assert asked("rows", bank, "bank:Balance", *where, folder=tmp_path).lines[0]["index"] is None
    shown = asked("rows", bank, "bank:Balance", *where, "--no-json", folder=tmp_path).out
    assert "served by" not in shown


def test_cells_are_enums_as_text_and_missing_values_as_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """The text null is text. Rows of too many columns for the terminal are lines of names and values."""
    page = Rows([Sale(1, "null", size=Size.SMALL)])
    print_page(Output(as_json=False), ["item", "note", "size"], page)
    header, _, line = capsys.readouterr().out.splitlines()
    assert line.split() == ["null", "c"]
    assert line.index("c") == header.index("size")
    print_page(Output(as_json=False), COLUMNS, page)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["shop   1", "item   null"]
    assert "size   c" in lines
    assert max(map(len, lines)) <= 80
