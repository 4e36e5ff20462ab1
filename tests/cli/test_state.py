"""`eventfold state` and `history`: folds by a user's classes, and last values without any."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import APPS, Ran, process, run

HERE = ("--import-path", str(APPS))


def asked(*words: str, folder: Path) -> Ran:
    """Run a command that imports classes, in a process of its own, so that this one never knows them."""
    return process(*words, *HERE, folder=folder)


def test_a_state_of_somebodys_is_folded(bank: str, tmp_path: Path) -> None:
    """By value, by name or by a JSON object; now, at a position, or as far as the business had come."""
    whole = {"state": "bank:Account", "question": {"account": "a-1"}}
    for question in (["a-1"], ["account=a-1"], ['{"account": "a-1"}']):
        ran = asked("state", bank, "bank:Account", *question, folder=tmp_path)
        assert ran.lines == [whole | {"at": 6, "answer": {"owner": "Ann Example", "balance": "50"}}], ran.err
    (then,) = asked("state", bank, "bank:Account", "a-1", "--at", "2", folder=tmp_path).lines
    assert then == whole | {"at": 2, "answer": {"owner": "Ann Example", "balance": "80"}}
    (never,) = asked("state", bank, "bank:Account", "a-1", "--occurred-until", "2013-01-01", folder=tmp_path).lines
    assert never["answer"] == {"owner": "", "balance": "0"}


def test_questions_are_converted_to_the_types_of_their_fields(bank: str, tmp_path: Path) -> None:
    """A repeated key is a collection; numbers are numbers."""
    words = ("state", bank, "bank:Several", "account=a-1", "account=a-2", "least=10")
    (found,) = asked(*words, folder=tmp_path).lines
    assert found["question"] == {"account": ["a-1", "a-2"], "least": 10}
    assert found["answer"] == {"moved": {"a-1": "80", "a-2": "30"}}
    (one,) = asked("state", bank, "bank:Several", "a-1", "least=81", folder=tmp_path).lines
    assert one["question"] == {"account": ["a-1"], "least": 81}
    assert one["answer"] == {"moved": {}}


def test_two_moments_are_compared(bank: str, tmp_path: Path) -> None:
    """`--diff A B` tells what changed; `now` is the end of the log."""
    (found,) = asked("state", bank, "bank:Account", "a-1", "--diff", "1", "now", folder=tmp_path).lines
    assert (found["from"], found["to"]) == (1, 6)
    assert found["changes"] == {"balance": {"before": "0", "after": "50"}}
    (same,) = asked("state", bank, "bank:Account", "a-1", "--diff", "5", "now", folder=tmp_path).lines
    assert same["changes"] == {}


def test_a_history_tells_each_step_and_what_it_changed(bank: str, tmp_path: Path) -> None:
    """In order, with before and after; --after folds earlier steps unseen."""
    steps = asked("history", bank, "bank:Account", "a-1", folder=tmp_path).lines
    assert [(step["position"], step["type"], step["changes"]) for step in steps] == [
        (1, "Opened", {"owner": {"before": "", "after": "Ann Example"}}),
        (2, "Deposited", {"balance": {"before": "0", "after": "80"}}),
        (4, "Withdrawn", {"balance": {"before": "80", "after": "50"}}),
    ]
    later = asked("history", bank, "bank:Account", "a-1", "--after", "2", folder=tmp_path).lines
    assert later == steps[2:]


def test_without_a_class_the_last_values_are_merged(steady: str) -> None:
    """Each field with its last value, and the event that gave it."""
    (found,) = run("state", steady, "--tag", "account:a-2").lines
    assert found["query"] == [{"types": [], "tags": ["account:a-2"]}]
    assert (found["at"], found["events"]) == (6, 3)
    assert {name: (each["value"], each["position"], each["type"]) for name, each in found["fields"].items()} == {
        "account": ("a-2", 6, "Closed"),
        "owner": ("Bob", 3, "Opened"),
        "amount": ("30", 5, "Deposited"),
        "reason": ("moved away", 6, "Closed"),
    }
    (then,) = run("state", steady, "--tag", "account:a-2", "--at", "2026-11-23T12:00:03Z").lines
    assert (then["at"], set(then["fields"])) == (3, {"account", "owner"})


def test_last_values_have_a_history_and_differences_too(steady: str) -> None:
    """Fields that appear have no before."""
    steps = run("history", steady, "--tag", "account:a-2", "--until", "5").lines
    assert [step.get("metadata") for step in steps] == [{"actor": "eve"}, {"actor": "eve"}]
    assert [step["changes"] for step in steps] == [
        {"account": {"after": "a-2"}, "owner": {"after": "Bob"}},
        {"amount": {"after": "30"}},
    ]
    (found,) = run("state", steady, "--tag", "account:a-2", "--diff", "3", "6").lines
    assert found["changes"] == {"amount": {"after": "30"}, "reason": {"after": "moved away"}}
    (back,) = run("state", steady, "--tag", "account:a-2", "--diff", "6", "5").lines
    assert back["changes"] == {"reason": {"before": "moved away"}}


def test_a_moment_inside_an_append_means_all_of_it(steady: str) -> None:
    """Position 4 was written together with 5: half an append is never shown."""
    (found,) = run("state", steady, "--tag", "account:a-2", "--at", "4").lines
    assert found["at"] == 5
    (start,) = run("state", steady, "--tag", "account:a-2", "--at", "0").lines
    assert (start["at"], start["events"]) == (0, 0)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["bank:Unknown"], "Name one of its State classes: Account, Several, Careless."),
        (["nowhere:Account"], "There is no module nowhere"),
        (["account:a-1"], "write --tag account:a-1"),
        (["bank"], "'bank' does not name a class"),
        (["bank:Opened"], "is not a State"),
        (["broken:Account"], "ZeroDivisionError: the module does this by itself. Fix it at broken.py, line 5"),
        (["bank:Account"], "also needs account. Write bank:Account account=VALUE."),
        (["bank:Account", "owner=Ann"], "has no key owner"),
        (["bank:Account", "a-1", "a-2"], "is one value more than Account has key fields"),
        (["bank:Account", "{"], "not a JSON object"),
        (["bank:Several", "a-1", "least=some"], "'some' is not a valid least of Several"),
        (["bank:Careless", "a-1"], "Folding bank:Careless failed: KeyError: 'Ann Example'. Fix it at bank.py, line"),
        (["bank:Account", "a-1", "--at", "70"], "Position 70 is beyond the end of the log"),
        (["bank:Account", "a-1", "--tag", "x:1"], "a State selects its events"),
        (["bank:Account", "a-1", "--at", "1", "--diff", "1", "2"], "Omit --at"),
        ([], "name what to fold"),
    ],
)
def test_a_mistake_is_reported_without_a_traceback(bank: str, tmp_path: Path, words: list[str], says: str) -> None:
    """In the command line, or in the code of the class: the error says what it is and where to fix it; exit code 2."""
    ran = asked("state", bank, *words, folder=tmp_path)
    assert ran.code == 2
    assert says in " ".join(ran.err.replace("│", " ").split())
    assert "Traceback" not in ran.err and ran.out == ""


def test_modules_beside_the_caller_are_found(bank: str) -> None:
    """Without --import-path the folder one stands in is looked at first."""
    assert process("state", bank, "bank:Account", "a-1", folder=APPS).code == 0
