"""`eventfold append`, `init` and `backup`: what is written, under which condition, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.commands import process, run
from tests.cli.stores import identity


def last(url: str) -> dict[str, object]:
    """The last event."""
    return run("read", url, "--backwards", "--limit", "1").lines[0]


def test_an_event_is_appended_with_all_that_flags_say(bank: str) -> None:
    """Payload, tags, id, moment and metadata stand in the log as they were given; the receipt tells where."""
    ran = run(
        *("append", bank, "Deposited", "--data", '{ "amount": 1.50 }', "--tag", "b:2", "--tag", "a:1"),
        *(
            "--id",
            str(identity(99)),
            "--occurred",
            "2026-11-20T10:00+01:00",
            "--meta",
            "actor=eve",
            "--meta",
            "why=a=b",
        ),
    )
    assert ran.code == 0, ran.err
    (receipt,) = ran.lines
    assert (receipt["first"], receipt["last"], receipt["ids"], receipt["repeated"]) == (
        7,
        7,
        [str(identity(99))],
        False,
    )
    event = last(bank)
    assert event["data"] == {"amount": 1.5}
    assert event["tags"] == ["a:1", "b:2"]
    assert event["occurred"] == "2026-11-20T09:00:00.000000Z"
    assert event["metadata"] == {"actor": "eve", "why": "a=b"}


def test_the_payload_may_come_from_a_file_or_the_input(bank: str, tmp_path: Path) -> None:
    """`--data @file` and `--data -`; without --data the payload is an empty object."""
    (tmp_path / "data.json").write_text('{\n "a": 1\n}\n')
    assert run("append", bank, "A", "--data", f"@{tmp_path / 'data.json'}").code == 0
    assert last(bank)["data"] == {"a": 1}
    assert run("append", bank, "A", "--data", "-", input='{"a": 2}').code == 0
    assert last(bank)["data"] == {"a": 2}
    assert run("append", bank, "A").code == 0
    assert last(bank)["data"] == {}


def test_a_condition_refuses_with_code_3(bank: str) -> None:
    """Unless an event with all these tags (and of any of these types) stands after a position."""
    ran = run(
        "append", bank, "Opened", "--tag", "account:a-1", "--unless-tag", "account:a-1", "--unless-type", "Opened"
    )
    assert ran.code == 3
    assert "position 1" in ran.err
    assert run("append", bank, "Noted", "--unless-tag", "account:a-1", "--after", "3", "--json").error == {
        "error": "append-conflict",
        "what": "An event matching Query(account:a-1) was written at position 4, after position 3.",
        "remedy": "Read again and decide again.",
        "clause": 0,
        "after": 3,
        "found": 4,
        "query": "Query(account:a-1)",
    }
    cursor = run("cursor", bank).out.strip()
    assert run("append", bank, "Noted", "--unless-tag", "account:a-1", "--after", cursor).code == 0
    assert run("read", bank, "--count").out == "7\n"


def test_a_key_or_an_id_makes_an_append_repeatable(bank: str) -> None:
    """The second append under a key, or with the same id and content, writes nothing and says so."""
    for words in (["--key", "order-17"], ["--id", str(identity(50))]):
        first, second = (run("append", bank, "Noted", *words).lines[0] for _ in range(2))
        assert (first["repeated"], second["repeated"]) == (False, True)
        assert first["ids"] == second["ids"]
    ran = run("append", bank, "Other", "--id", str(identity(50)))
    assert ran.code == 3 and "already" in ran.err
    assert "already in the log" in run("append", bank, "Noted", "--id", str(identity(50)), "--table").out


def test_lines_go_from_one_store_into_another_unchanged(bank: str, tmp_path: Path) -> None:
    """`read --json | append` copies events: every key but position and time is the same."""
    lines = run("read", bank).out
    other = str(tmp_path / "other.db")
    assert run("append", other, "--create", "--batch", "4", input=lines).code == 0

    def content(url: str) -> list[dict[str, object]]:
        return [{k: v for k, v in line.items() if k not in ("position", "time")} for line in run("read", url).lines]

    assert content(other) == content(bank)
    again = run("append", other, "--batch", "4", "--table", input=lines)
    assert again.code == 0
    assert "Appended 0 events" in again.out and "6 events were already in the log" in again.out
    assert run("read", other, "--count").out == "6\n"


def test_a_dash_stands_for_lines_on_standard_input(bank: str, tmp_path: Path) -> None:
    """With the store before it or in EVENTFOLD_URL; no event of the type - is written, and no store of that name."""
    line = '{"type":"B","tags":["x:1"]}'
    assert run("append", bank, "-", input=line).code == 0
    assert run("append", "-", input=line, EVENTFOLD_URL=bank).code == 0
    assert [each["type"] for each in run("read", bank, "--after", "6").lines] == ["B", "B"]
    refused = process("append", "-", "--create", folder=tmp_path, input=line)
    assert refused.code == 2
    assert "Name the store before it" in " ".join(refused.err.replace("│", " ").split())
    assert list(tmp_path.glob("-*")) == []


def test_many_lines_are_written_in_appends_of_a_thousand(tmp_path: Path) -> None:
    """2,500 lines make three receipts; blank lines are passed over."""
    lines = "\n\n".join(json.dumps({"type": "Counted", "data": {"n": n}}) for n in range(2500))
    ran = run("append", str(tmp_path / "many.db"), "--create", input=lines)
    assert [(r["first"], r["last"], len(r["ids"])) for r in ran.lines] == [
        (1, 1000, 1000),
        (1001, 2000, 1000),
        (2001, 2500, 500),
    ]


def test_a_bad_line_is_named_and_its_batch_is_not_written(tmp_path: Path) -> None:
    """What stood in earlier batches is written, and it is said how much."""
    url = str(tmp_path / "some.db")
    lines = "\n".join(['{"type":"A"}'] * 5 + ['{"type":"A","tag":["x:1"]}', '{"type":"A"}'])
    ran = run("append", url, "--create", "--batch", "2", input=lines)
    assert ran.code == 2
    assert "Line 6 cannot be appended" in ran.err and "unknown field `tag`" in ran.err
    assert "The first 4 events of the input are in the log" in ran.err
    assert run("read", url, "--count").out == "4\n"


def test_atomic_lines_are_one_append_or_none(tmp_path: Path) -> None:
    """With a condition or key if wanted; a bad line anywhere, or more than 1,000, writes nothing."""
    url = str(tmp_path / "all.db")
    assert run("init", url).code == 0
    good = "\n".join(['{"type":"A","tags":["x:1"]}'] * 3)
    assert run("append", url, "--atomic", input=good + '\n{"type":7}').code == 2
    assert run("append", url, "--atomic", input="\n".join(['{"type":"A"}'] * 1001)).code == 2
    assert run("append", url, "--atomic", input="").code == 2
    assert run("read", url, "--count").out == "0\n"
    (receipt,) = run("append", url, "--atomic", "--unless-tag", "x:1", input=good).lines
    assert (receipt["first"], receipt["last"]) == (1, 3)
    assert run("append", url, "--atomic", "--unless-tag", "x:1", input=good).code == 3
    assert run("append", url, "--unless-tag", "x:1", input=good).code == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["A", "--data", "{a}"], "The data is not JSON"),
        (["A", "--data", "@nowhere.json"], "nowhere.json cannot be read"),
        (["A", "--meta", "eve"], "is not a pair"),
        (["A", "--tag", "x\ny"], "control character"),
        (["A", "--tag", "x" * 300], "too long"),
        (["$A"], "reserved for eventfold"),
        (["A", "--occurred", "2026-11-23T10:00"], "no time zone"),
        (["A", "--id", "7"], "--id"),
        (["A", "--after", "3"], "--unless-tag"),
        (["A", "--unless-tag", "x:1", "--after", "70"], "70"),
        (["A", "--data", json.dumps("x" * 1_000_001)], "1,000,000 is the most"),
        (["A", *[word for n in range(65) for word in ("--tag", f"x:{n}")]], "64 is the most"),
        (["--tag", "x:1"], "applies to a single event"),
        (["-", "--data", "{}"], "applies to a single event"),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_is_written(bank: str, words: list[str], says: str) -> None:
    """Exit code 2, and words that tell what to write instead."""
    ran = run("append", bank, *words, input='{"type":"B"}')
    assert ran.code == 2
    assert says in " ".join(ran.err.replace("│", " ").split())
    assert run("read", bank, "--count").out == "6\n"


def test_append_creates_a_store_only_with_its_option(tmp_path: Path) -> None:
    """A typing error makes no new store."""
    url = str(tmp_path / "new.db")
    assert run("append", url, "A").code == 4
    assert list(tmp_path.iterdir()) == []
    assert run("append", url, "A", "--create").code == 0


def test_init_makes_a_store_once(tmp_path: Path) -> None:
    """The second time it tells what is there."""
    url = str(tmp_path / "new.db")
    (first,), (second,) = run("init", url).lines, run("init", url).lines
    assert first.pop("created") and not second.pop("created")
    assert first == second and first["head"] == 0
    assert "is a store already, with 0 events" in " ".join(run("init", url, "--table").out.split())


def test_a_backup_is_the_same_log_in_a_new_epoch(bank: str, tmp_path: Path) -> None:
    """A copy has the same store id and events; nothing that is there already is overwritten."""
    copy = str(tmp_path / "copy.db")
    (made,) = run("backup", bank, copy).lines
    assert (made["head"], made["epoch"], made["path"]) == (6, 2, copy)
    assert run("read", copy).out == run("read", bank).out
    again = run("backup", bank, copy)
    assert again.code == 2 and "exists already" in again.err
    assert run("backup", "memory:", str(tmp_path / "no.db")).code == 1
    assert run("backup", bank).code == 2
