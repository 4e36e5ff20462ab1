"""`eventfold find`: events by a line of text, as a table, as JSON lines, counted, explained."""

from __future__ import annotations

from textwrap import dedent

import pytest

from tests.cli.commands import plain, run, too_wide


def looks(*words: str) -> str:
    """The table at 80 columns, without the value of a cursor."""
    ran = run("find", *words, "--table")
    assert ran.code == 0, ran.err
    lines = ["--after …" if line.startswith("--after efc1_") else line for line in plain(ran.out).splitlines()]
    assert not too_wide("\n".join(lines))
    return "\n".join(lines)


def test_the_events_of_a_filter_are_a_table(steady: str) -> None:
    """The newest first; below them how they were found, and the cursor that goes on."""
    assert looks(steady, "account:a-1", "data.amount>50") == dedent("""
        position  time UTC  type       tags         data
        ─────────────────────────────────────────────────────
        2026-11-23
               2  12:00:02  Deposited  account:a-1  amount=80

        index: account:a-1 · 3 → scan: data.amount>50
    """).strip("\n")
    assert looks(steady, "--limit", "1").splitlines()[-4:] == [
        "",
        "every event · 6",
        "1 event shown, back to 2026-11-23 12:00; there may be more:",
        "--after …",
    ]


def test_json_lines_have_every_event_or_a_page(bank: str) -> None:
    """Without --limit everything; with it the cursor of the next page stands on standard error, as in `rows`."""
    every = run("find", bank, "type:Opened,Deposited")
    assert [line["position"] for line in every.lines] == [5, 3, 2, 1]
    assert [line["position"] for line in run("find", bank, "type:Opened,Deposited", "--forwards").lines] == [1, 2, 3, 5]
    first = run("find", bank, "type:Opened,Deposited", "--limit", "3")
    option, cursor = first.err.split()
    assert (first.lines, option) == (every.lines[:3], "--after")
    assert run("find", bank, "type:Opened,Deposited", "--limit", "3", "--after", cursor).lines == every.lines[3:]
    assert [line["position"] for line in run("find", bank, "--after", "3").lines] == [2, 1]
    assert run("find", bank, "--limit", "0").out == ""


def test_matching_events_are_counted_and_explained(bank: str) -> None:
    """`--count` prints a number, `--explain` how they are found."""
    assert run("find", bank, "NOT type:Deposited", "--count").out.strip() == "4"
    assert run("find", bank, "--count", "--", "-type:Deposited").out.strip() == "4"
    assert looks(bank, "type:D* data.amount>50", "--explain") == "index: type:Deposited · 2 → scan: data.amount>50"
    assert run("find", bank, "type:D* data.amount>50", "--explain").lines == [
        {
            "filter": "type:D* data.amount>50",
            "index": "type:Deposited",
            "scan": "data.amount>50",
            "answered": "index: type:Deposited · 2 → scan: data.amount>50",
        }
    ]


def test_nothing_found_names_what_is_similar(bank: str) -> None:
    """Types and tags that no event has are named, with the nearest; a mistake in the filter ends with exit code 2."""
    found = run("find", bank, "type:Opend", "--table")
    assert plain(found.out).splitlines()[0] == "No event matches."
    assert "Did you mean Opened?" in found.err
    wrong = run("find", bank, "acount:a-1", "--json")
    assert (wrong.code, wrong.error["error"], wrong.error["at"]) == (2, "invalid-filter", 1)
    assert "Did you mean account?" in wrong.err


def test_payloads_that_cannot_be_looked_into_are_counted(bank: str) -> None:
    """They match no clause of data, and a remark says how many they are."""
    assert run("append", bank, "Sealed", "-d", '{"$bytes":"AAE=","$codec":"raw"}').code == 0
    found = run("find", bank, "data.amount>50")
    assert len(found.lines) == 1
    assert "1 payload could not be looked into" in found.err


@pytest.mark.parametrize("seconds", ["0", "0.001"])
def test_a_search_ends_after_its_time(bank: str, seconds: str) -> None:
    """One batch is looked at in any case, which is the whole of a small store."""
    assert len(run("find", bank, "data.amount>50", "--seconds", seconds).lines) == 1
