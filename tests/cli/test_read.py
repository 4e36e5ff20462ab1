"""`eventfold read`: which events are shown, and the same lines from every engine."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.core.event_json import KEYS
from eventfold.errors import StoreNotFound
from tests.cli.commands import run
from tests.cli.stores import identity


def positions(*words: str) -> list[int]:
    """The positions that a read shows."""
    ran = run("read", *words)
    assert ran.code == 0, ran.err
    return [line["position"] for line in ran.lines]


def test_a_pipe_gets_every_event_as_a_line_although_no_class_is_known(any_bank: str) -> None:
    """Six events of unknown types, in order, with the keys of a line."""
    lines = run("read", any_bank).lines
    assert [line["position"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all(tuple(line)[:7] == KEYS for line in lines)
    assert lines[1]["data"] == {"account": "a-1", "amount": "80"}
    assert lines[0]["metadata"] == {"actor": "eve"}
    assert lines[1]["metadata"] == {}
    assert lines[5]["occurred"] == "2026-11-20T00:00:00.000000Z" and lines[5]["version"] == 2
    assert lines[0]["id"] == str(identity(1))


def test_every_engine_shows_the_same_lines(bank: str, steady: str) -> None:
    """All but the time, which each store gives by itself."""

    def timeless(url: str) -> list[dict[str, Any]]:
        return [{key: value for key, value in line.items() if key != "time"} for line in run("read", url).lines]

    assert timeless(bank) == timeless(steady)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--type", "Opened"], [1, 3]),
        (["--type", "Opened", "--type", "Closed"], [1, 3, 6]),
        (["--tag", "account:a-2"], [3, 5, 6]),
        (["--tag", "account:a-2", "--tag", "vip:yes"], [5]),
        (["--type", "Opened", "--tag", "account:a-2"], [3]),
        (["--where", "type=Opened,Closed tag=account:a-2", "--where", "type=Deposited"], [2, 3, 5, 6]),
        (["--type", "Deposited", "--where", "type=Closed"], [2, 5, 6]),
        (["--after", "4"], [5, 6]),
        (["--until", "3"], [1, 2, 3]),
        (["--until", "4"], [1, 2, 3, 4, 5]),
        (["--limit", "2"], [1, 2]),
        (["--limit", "0"], []),
        (["--backwards", "--limit", "2"], [6, 5]),
        (["--since", "2026-11-23T12:00:03Z"], [3, 4, 5, 6]),
        (["--since", "2026-11-24"], []),
        (["--until", "2026-11-23T12:00:02Z"], [1, 2]),
        (["--until", "2026-11-23"], [1, 2, 3, 4, 5, 6]),
        (["--occurred-until", "2026-11-21"], [6]),
        (["--occurred-since", "2026-11-20", "--occurred-until", "2026-11-23T12:00:01Z"], [1, 6]),
        (["--type", "Nothing"], []),
    ],
)
def test_flags_choose_events(steady: str, words: list[str], shown: list[int]) -> None:
    """Types, tags, alternatives, positions, times recorded and occurred, limits, both ways; --count agrees."""
    assert positions(steady, *words) == shown
    assert run("read", steady, *words, "--count").out == f"{len(shown)}\n"


def test_a_cursor_stands_for_a_position(bank: str) -> None:
    """`read --after CURSOR` goes on where the cursor was taken."""
    cursor = run("cursor", bank, "3").out.strip()
    assert positions(bank, "--after", cursor) == [4, 5, 6]
    assert run("read", bank, "--after", cursor, "--count").out == "3\n"


def test_a_position_in_the_future_is_refused(bank: str) -> None:
    """It is a mistake, or belongs to another store."""
    ran = run("read", bank, "--after", "7")
    assert ran.code == 2 and "beyond the end of the log" in ran.err


def test_an_unsound_payload_is_shown_and_not_skipped(tmp_path: Path) -> None:
    """A payload that is no JSON stands in its line as base64, and in a table as so many bytes."""
    line = '{"type":"Odd","data":{"$bytes":"AP8=","$codec":"protobuf"}}'
    url = str(tmp_path / "odd.db")
    assert run("append", url, "--create", input=line).code == 0
    assert run("read", url).lines[0]["data"] == {"$bytes": "AP8=", "$codec": "protobuf"}
    assert "2 bytes of protobuf" in run("read", url, "--table").out


@pytest.mark.parametrize("verb", ["init", "read", "stats"])
def test_no_command_advises_what_would_fail_as_well(verb: str, tmp_path: Path) -> None:
    """Without the folder `init` cannot make a store either: the folder is what is to be made; then `init` works."""
    path = str(tmp_path / "no folder" / "x.db")
    ran = run(verb, path)
    assert ran.code == 4
    assert "eventfold init" not in ran.err
    advice = ran.err.strip().rpartition("mkdir -p ")[2].removesuffix(".")
    assert shlex.split(advice) == [os.path.dirname(path)]
    os.mkdir(os.path.dirname(path))
    assert run("init", path).code == 0


def test_the_advice_to_make_a_store_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    """Also where the path has a space in it."""
    path = str(tmp_path / "my store.db")
    advice = run("read", path).err.strip().rpartition("eventfold init ")[2]
    assert shlex.split(advice) == [path]
    with pytest.raises(StoreNotFound) as refused:
        ef.Store(path, create=False)
    assert shlex.split(refused.value.remedy.rpartition("eventfold init ")[2].removesuffix(".")) == [path]


def test_reading_makes_no_store(tmp_path: Path) -> None:
    """Reading creates no store, and the error says how to create one."""
    for verb in ("read", "tail", "types", "tags", "stats", "cursor", "history", "state", "backup"):
        rest = {"history": ["--type", "A"], "state": ["--type", "A"], "backup": [str(tmp_path / "copy.db")]}.get(
            verb, []
        )
        ran = run(verb, str(tmp_path / "nothing.db"), *rest)
        assert ran.code == 4, verb
        assert "eventfold init" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_the_environment_names_the_store(bank: str) -> None:
    """With EVENTFOLD_URL, `eventfold read` needs no argument, and takes one if it is given."""
    assert len(run("read", EVENTFOLD_URL=bank).lines) == 6
    assert run("read", "memory:", EVENTFOLD_URL=bank).out == ""
    assert run("tags", "vip:", EVENTFOLD_URL=bank).lines == [{"tag": "vip:yes", "count": 1, "first": 5, "last": 5}]
    assert run("state", "--tag", "vip:yes", EVENTFOLD_URL=bank).code == 0
    assert run("append", "Noted", EVENTFOLD_URL=bank).code == 0
    assert run("read").code == 2
