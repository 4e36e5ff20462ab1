"""`eventfold alert`: what a person on call sees and types, in 80 columns and as JSON."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import eventfold as ef
from eventfold.alerts import delivery
from eventfold.errors import ProcessError
from eventfold.server import application
from tests.cli.commands import APPS, plain, run, too_wide
from tests.support.servers.http import serving


def table(*words: str) -> str:
    """What a command shows on a terminal of 80 columns."""
    return plain(run(*words, "--table").out)


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module with alerts and targets, as the command imports it."""
    monkeypatch.setattr(sys, "path", [str(APPS), *sys.path])
    return importlib.import_module("cards")


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cards: Any) -> str:
    """A store with two cards that are raised, one of which is long; `cards.me` was sent both."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOGNAME", "ann")
    with ef.Store("shop.db") as store:
        for card in ("c-1", "c-" + "2" * 60):
            store.append(*(cards.CardDeclined(card, 5) for _ in range(4)))
        store.run_until_idle(cards.CardTesting, cards.me, clock=lambda: time.time_ns() // 1000 + 5_000_000)
    return "shop.db"


def test_what_is_raised_is_listed_and_shown(db: str) -> None:
    """With its state; as a table within 80 columns, and as JSON lines."""
    listed = run("alert", "list", db)
    assert [(each["alert"], each["key"], each["state"], each["severity"]) for each in listed.lines] == [
        ("card_testing", "c-" + "2" * 60, "raised", "page"),
        ("card_testing", "c-1", "raised", "page"),
    ]
    listing = table("alert", "list", db)
    assert "c-222" in listing and "raised" in listing and not too_wide(listing)
    shown = table("alert", "show", db, "card_testing", "c-1")
    assert "card_testing c-1: raised" in shown and "4 in 5 minutes" in shown and not too_wide(shown)
    assert [each["key"] for each in run("alert", "show", db, "card_testing", "c-1").lines] == ["c-1"]
    (target,) = run("alert", "targets", db).lines
    assert (target["target"], target["failed"], target["waiting"]) == ("me", 0, 0)


def test_a_store_behind_http_is_listed_tested_and_replayed(db: str) -> None:
    """Although the progress of its targets is elsewhere."""
    with serving(application({"shop": db})) as url:
        address = f"{url}/shop"
        assert [each["state"] for each in run("alert", "list", address).lines] == ["raised", "raised"]
        assert "What was not delivered is not known here" in " ".join(table("alert", "list", address).split())
        assert [each["ok"] for each in run("alert", "test", address, "cards:CardTesting", "cards:me").lines] == [
            True
        ] * 2
        assert len(run("alert", "replay", address, "cards:CardTesting").lines) == 2


def test_a_store_behind_http_takes_the_target_that_its_error_names(db: str, tmp_path: Path) -> None:
    """`--target`: the database in which what was delivered is kept. A command that only looks creates none."""
    with serving(application({"shop": db})) as url:
        refused = run("alert", "targets", f"{url}/shop")
        assert refused.code == 1 and "--target URL" in refused.err
        missing = run("alert", "targets", f"{url}/shop", "--target", "new.db")
        assert "no database of read models at new.db" in missing.err
        assert not (tmp_path / "new.db").exists()
        assert [each["target"] for each in run("alert", "targets", f"{url}/shop", "--target", db).lines] == ["me"]


def test_acknowledge_and_snooze_say_who_and_until_when(db: str) -> None:
    """The user of the login, unless another is named; the list shows the state, `show` the reason."""
    (done,) = run("alert", "ack", db, "card_testing", "c-1", "--because", "the bank calls back").lines
    assert done["actor"] == "ann" and done["state"] == "acknowledged"
    shown = table("alert", "ack", db, "card_testing", "c-1", "--for", "30m")
    assert "by ann (the user of this login" in " ".join(shown.split())
    (snoozed,) = run("alert", "snooze", db, "card_testing", "--for", "2d", "--because", "known", "--actor", "bob").lines
    assert (snoozed["actor"], snoozed["key"]) == ("bob", None)
    assert [each["state"] for each in run("alert", "list", db).lines] == ["snoozed", "snoozed"]
    text = table("alert", "show", db, "card_testing", "c-1")
    assert "acknowledged by ann until" in text and "snoozed by bob until" in text and "known" in text


def test_a_rule_that_was_removed_is_retired(db: str) -> None:
    """Nothing is raised any more; until its rows are removed, the command says what to type first."""
    early = run("alert", "retire", db, "card_testing", "--because", "replaced")
    assert early.code == 2 and "eventfold projections remove" in early.err
    assert run("projections", "remove", db, "card_testing").code == 0
    (done,) = run("alert", "retire", db, "card_testing", "--because", "replaced").lines
    assert done["ended"] == ["c-1", "c-" + "2" * 60]
    assert "0 open episodes ended" in table("alert", "retire", db, "card_testing", "--because", "again")
    assert run("alert", "list", db).lines == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["retire", "card_testing"], 2, "say why"),
        (["retire"], 2, "name an alert"),
        (["show", "card_tasting"], 1, "no alert 'card_tasting'"),
        (["ack", "card_testing"], 2, "raised for 2 keys"),
        (["ack", "card_testing", "c-9"], 1, "no open episode"),
        (["ack", "card_testing", "c-1", "--for", "soon"], 2, "soon"),
        (["ack", "card_testing", "c-1", "--for", "2001-01-01"], 2, "has passed"),
        (["snooze", "card_testing"], 2, "say why"),
        (["show"], 2, "name an alert"),
        (["test"], 2, "name alerts or deliveries"),
        (["test", "card_testing", "--config", "none.toml"], 2, "cannot be read"),
        (["watch"], 2, "say which events"),
        (["watch", "type:CardDeclined"], 2, "more than 20 within 5 minutes"),
        (["watch", "type:CardDeclined", "--rate", "3/1m", "--severity", "high"], 2, "page or ticket"),
        (["watch", "type:(", "--rate", "3/1m"], 2, "type:("),
        (["replay", "cards:me"], 2, "one class of an alert"),
        (["replay", "nowhere:Nothing"], 2, "cannot be imported"),
    ],
)
def test_a_mistake_is_named_in_two_sentences(db: str, words: list[str], code: int, says: str) -> None:
    """With a stable exit code, and without a traceback."""
    ran = run("alert", words[0], db, *words[1:])
    assert ran.code == code and says in " ".join(ran.err.split()) and "Traceback" not in ran.err


def test_a_test_finds_rules_that_cannot_fire_and_targets_that_refuse(db: str, cards: Any) -> None:
    """A field that no class has, one that no event has, a type that the log lacks, two of one name."""
    ran = run("alert", "test", db, "cards", "--json")
    assert ran.code == 1 and "checks of" in ran.error["what"]
    found = {(each["name"], each["problem"]) for each in ran.lines}
    problems = {name: [problem for which, problem in found if which == name and problem] for name, _ in found}
    assert any("reads event.amonut" in each and "amount?" in each for each in problems["misspelt"])
    assert any("None of the last 8 events of CardDeclined has a value of shop" in each for each in problems["unfilled"])
    assert any("no event of the type CardLost" in each for each in problems["silent"])
    assert any("Two have this name" in each for each in problems["card_testing"])
    assert any("127.0.0.1 could not be reached" in each for each in problems["away"])
    assert any("'card_testin'" in each and "card_testing?" in each for each in problems["away"])
    assert problems["me"] == [] and cards.messages[-1].kind == "test"
    assert "T0KEN" not in ran.out + ran.err
    shown = table("alert", "test", db, "cards")
    assert "FAILS alert misspelt" in shown and not too_wide(shown)


def test_a_test_takes_the_name_of_an_alert_and_targets_of_a_file(db: str, tmp_path: Path) -> None:
    """It says so if there is no target at all."""
    alone = run("alert", "test", db, "card_testing")
    assert alone.code == 1 and "No target is configured" in alone.out
    (tmp_path / "targets.toml").write_text('[deliver.console]\nto = "log"\n')
    both = run("alert", "test", db, "card_testing", "--config", "targets.toml")
    assert both.code == 0 and [each["name"] for each in both.lines] == ["card_testing", "console"]


def test_a_replay_lists_what_would_have_been_raised(db: str) -> None:
    """Without writing anything; a rule that is not registered can be replayed."""
    with ef.Store(db) as store:
        before = store.cursor()
    assert [each["key"] for each in run("alert", "replay", db, "cards:CardTesting").lines] == ["c-1", "c-" + "2" * 60]
    shown = table("alert", "replay", db, "cards:CardTesting", "--since", "90d")
    assert "2 episodes of 2 keys would have been raised." in shown and not too_wide(shown)
    assert "raised nothing" in table("alert", "replay", db, "cards:Silent")
    with ef.Store(db) as store:
        assert store.cursor() == before


def test_what_was_not_delivered_is_under_the_list(db: str) -> None:
    """With the target, the number, the time and the error; and how to try it again."""
    with ef.Store(db) as store:
        refusing = delivery.webhook("http://127.0.0.1:9/", secret=None, name="gone", attempts=1, group_page=0)
        with pytest.raises(ProcessError):
            store.run_until_idle(refusing, clock=lambda: time.time_ns() // 1000 + 5_000_000)
    shown = " ".join(table("alert", "list", db).split())
    assert "gone: 1 message not delivered since" in shown and "--retry deliver_gone" in shown
    gone = next(each for each in run("alert", "targets", db).lines if each["target"] == "gone")
    assert gone["failed"] == 1 and "could not be reached" in gone["error"]
