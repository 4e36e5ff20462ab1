"""`lint`: what is unwise in event classes is found, with its reason, and allowed by a comment."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from eventfold.schema import LintWarning, lint
from eventfold.schema.lint import RULES

HEAD = """
from datetime import datetime
from decimal import Decimal
from typing import Annotated
import msgspec
import eventfold as ef

class Kept(ef.Event):
    order: ef.Tag
"""
FOLD = """
class Order(ef.State):
    number: int = 0

    def evolve(self, event: {}) -> None:
        pass
"""
# Each rule: a class that breaks it, and the same thing declared well. `{}` is the place of the class's name.
CASES: dict[str, tuple[str, str]] = {
    "column-shaped": ("OrderUpdated(ef.Event):\n    order: ef.Tag", "AddressMoved(ef.Event):\n    order: ef.Tag"),
    "not-past-tense": ("PlaceOrder(ef.Event):\n    order: ef.Tag", "OrderPlaced(ef.Event):\n    order: ef.Tag"),
    "no-tags": ("DayClosed(ef.Event):\n    day: str", "DayClosed(ef.Event):\n    day: ef.Tag"),
    "many-optional": (
        "Noted(ef.Event):\n    order: ef.Tag\n" + "".join(f"    x{n}: str | None = None\n" for n in range(5)),
        "Noted(ef.Event):\n    order: ef.Tag\n    x: str | None = None\n    y: str | None = None\n    z: str = ''",
    ),
    "float-money": (
        "Paid(ef.Event):\n    order: ef.Tag\n    total_price: float",
        "Paid(ef.Event):\n    order: ef.Tag\n    total_price: Decimal\n    share: float",
    ),
    "time-without-zone": (
        "Due(ef.Event):\n    order: ef.Tag\n    by: datetime | None",
        "Due(ef.Event):\n    order: ef.Tag\n    by: Annotated[datetime, msgspec.Meta(tz=True)] | None",
    ),
    "personal": (
        "Joined(ef.Event):\n    order: ef.Tag\n    home_address: str",
        "Joined(ef.Event):\n    order: ef.Tag\n    person: str",
    ),
    "secret": (
        "Joined(ef.Event):\n    order: ef.Tag\n    password: str",
        "Joined(ef.Event):\n    order: ef.Tag\n    password_changed: bool",
    ),
}
Lint = Callable[[str], list[LintWarning]]


@pytest.fixture
def lint_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Lint:
    """Writes a module of its own, imports it and lints it."""
    monkeypatch.syspath_prepend(tmp_path)
    numbers = iter(range(100))

    def run(source: str) -> list[LintWarning]:
        name = f"linted_{abs(hash(request.node.name))}_{next(numbers)}"
        (tmp_path / f"{name}.py").write_text(HEAD + source)
        importlib.invalidate_caches()
        importlib.import_module(name)
        return [each for each in lint([name]) if each.type != "Kept"]

    return run


def declared(source: str) -> str:
    """A class that a state folds."""
    return f"class {source}\n" + FOLD.format(source.partition("(")[0])


def test_every_rule_has_a_case() -> None:
    """A new rule needs an example that breaks it, and one that does not."""
    assert {*CASES, "unused"} == RULES.keys()


@pytest.mark.parametrize("code", CASES)
def test_a_rule_finds_what_is_unwise_and_nothing_else(code: str, lint_source: Lint) -> None:
    """The class that breaks one rule breaks only that one; declared well, it breaks none."""
    unwise, wise = CASES[code]
    assert [each.code for each in lint_source(declared(unwise))] == [code]
    assert lint_source(declared(wise)) == []


def test_an_event_that_no_code_takes_is_found(lint_source: Lint) -> None:
    """States, read models, processes and effects count; a function that writes the event does not."""
    assert [each.code for each in lint_source("class Left(ef.Event):\n    order: ef.Tag\n")] == ["unused"]


def test_a_comment_allows_a_rule_for_a_class_or_for_one_field(lint_source: Lint) -> None:
    """On the line of a field it allows that field alone; elsewhere, the whole class. A reason may follow."""
    fields = "    order: ef.Tag\n    price: float{}\n    cost: float\n"
    of_field = lint_source(
        declared("Sold(ef.Event):\n" + fields.format("  # eventfold: allow float-money: as scanned"))
    )
    assert [(each.field, each.code) for each in of_field] == [("cost", "float-money")]
    of_class = "Sold(ef.Event):  # eventfold: allow float-money, personal\n" + fields.format("")
    assert lint_source(declared(of_class)) == []


def test_old_versions_that_are_upcast_are_not_judged(lint_source: Lint) -> None:
    """What was written years ago cannot be declared better."""
    source = """
class Paid1(ef.Event, type="linted.paid", version=1):
    order: ef.Tag
    price: float

class Paid(ef.Event, type="linted.paid", version=2):
    order: ef.Tag
    price: Decimal

@ef.upcast
def paid(old: Paid1) -> Paid:
    return Paid(old.order, Decimal(str(old.price)))
"""
    assert lint_source(source + FOLD.format("Paid")) == []


def test_the_command_prints_reasons_and_fails(tmp_path: Path) -> None:
    """`eventfold schema lint MODULE` exits 1 with each warning and its reason, 0 without, 2 for an unknown rule."""
    (tmp_path / "shop.py").write_text(HEAD.replace("class Kept", "class Left") + FOLD.format("Left"))
    (tmp_path / "unwise.py").write_text(HEAD + declared(CASES["float-money"][0]) + declared(CASES["secret"][0]))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "eventfold", "schema", "lint", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    clean = run("shop", "--table")
    assert (clean.returncode, clean.stdout.strip()) == (0, "No event class is unwise.")
    unwise = run("unwise", "--table")
    assert unwise.returncode == 1
    assert "Paid.total_price  It is a float" in unwise.stdout
    assert "# eventfold: allow float-money" in unwise.stdout
    rest = run("unwise", "--ignore", "float-money", "--ignore", "unused", "--json")
    assert [json.loads(line)["code"] for line in rest.stdout.splitlines()] == ["secret"]
    unknown = run("unwise", "--ignore", "spelling")
    assert unknown.returncode == 2
    assert "There is no rule 'spelling'." in unknown.stderr
