"""A name that no event has is reported, with the most similar name."""

from __future__ import annotations

import pytest

from tests.cli.commands import run


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--type", "Openned"], "No event has the type Openned. Did you mean Opened?"),
        (["--type", "deposited"], "No event has the type deposited. Did you mean Deposited?"),
        (["--type", "Xyz"], "No event has the type Xyz."),
        (["--tag", "account=a-1"], "No event has the tag account=a-1. Did you mean account:a-1?"),
        (["--tag", "acount:a-1"], "No event has the tag acount:a-1. Did you mean account:a-1?"),
        (["--tag", "vip:yess"], "No event has the tag vip:yess. Did you mean vip:yes?"),
        (["--tag", "account:zzz"], "No event has the tag account:zzz. Did you mean account:… (as account:a-1)?"),
        (["--tag", "colour:red"], "No event has the tag colour:red."),
        (["--where", "type=Opend tag=vip:yes"], "No event has the type Opend. Did you mean Opened?"),
    ],
    ids=[
        "a type",
        "capitals",
        "nothing like it",
        "equals",
        "a key",
        "a value",
        "no such value",
        "no such key",
        "where",
    ],
)
@pytest.mark.parametrize(
    "command", [["read"], ["read", "--count"], ["tail", "--once"], ["history"], ["state"]], ids=" ".join
)
def test_the_nearest_name_is_suggested(bank: str, command: list[str], words: list[str], line: str) -> None:
    """On standard error, so that a pipe gets nothing that is no event."""
    ran = run(command[0], bank, *command[1:], *words)
    assert ran.code == 0
    assert line in ran.err.splitlines()


def test_nothing_is_suggested_if_every_name_exists(bank: str) -> None:
    """An empty answer may be right: the names are there, and not in one event, or not in this stretch."""
    for words in (["--type", "Closed", "--tag", "account:a-1"], ["--type", "Closed", "--until", "3"]):
        ran = run("read", bank, *words)
        assert (ran.code, ran.out, ran.err) == (0, "", "")
    assert "No event has" not in run("read", bank, "--tag", "account:a-1").err


@pytest.mark.parametrize(
    "words", [["verify"], ["projections", "status"], ["projections", "show"], ["projections", "remove"]], ids=" ".join
)
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("mailr", "has no projection 'mailr'. Did you mean mailer?"),
        ("Mailer", "has no projection 'Mailer'. Did you mean mailer?"),
        ("xyz", "has no projection 'xyz'. It has mailer."),
    ],
    ids=["a letter", "capitals", "nothing like it"],
)
def test_the_nearest_projection_is_named(bank: str, words: list[str], name: str, line: str) -> None:
    """Exit code 1, and the name that comes nearest, or those that there are."""
    assert run("tail", bank, "--once", "--name", "mailer").code == 0
    ran = run(*words, bank, name)
    assert (ran.code, ran.out) == (1, "")
    assert line in ran.err
