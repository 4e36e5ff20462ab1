"""Given, when, then: right rules pass in one sentence, wrong expectations fail in words."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

import eventfold as ef
from eventfold.testing import Clock, given
from tests.testing.bank import Account, Deposited, Poor, Withdrawn, transfer

A, B = Account("a"), Account("b")


def test_a_decision_is_tested_in_one_sentence() -> None:
    """The events that a function returns are the outcome, and the past of what follows."""
    (
        given(Deposited("a", Decimal(80)))
        .when(transfer, A, B, amount=Decimal(50))
        .then(Withdrawn("a", Decimal(50)), Deposited("b", Decimal(50)))
        .when(transfer, A, B, amount=Decimal(50))
        .raises(Poor, "a")
    )


def test_an_aggregate_is_tested_by_its_methods() -> None:
    """The events that a method records are the outcome."""
    outcome = given(Deposited("a", Decimal(80))).when(Account.withdraw, A, Decimal(30))
    outcome.then(Withdrawn("a", Decimal(30))).state(A).has(balance=Decimal(50))


def test_a_wrong_expectation_shows_both_sides_and_the_field() -> None:
    """The failure names what was expected, what was written and which field differs."""
    outcome = given(Deposited("a", Decimal(80))).when(Account.withdraw, A, Decimal(30))
    with pytest.raises(AssertionError) as failure:
        outcome.then(Withdrawn("a", Decimal(31)))
    text = str(failure.value)
    assert "- Withdrawn(account='a', amount=Decimal('31'))" in text
    assert "+ Withdrawn(account='a', amount=Decimal('30'))" in text
    assert "amount: Decimal('31') → Decimal('30')" in text


def test_an_unexpected_error_is_shown_with_its_cause() -> None:
    """An outcome that raised cannot be asked for events."""
    outcome = given().when(Account.withdraw, A, Decimal(1))
    with pytest.raises(AssertionError, match="raised Poor") as failure:
        outcome.nothing()
    assert isinstance(failure.value.__cause__, Poor)


def test_a_missing_refusal_is_a_failure() -> None:
    """Expecting an error where there was none says what was written instead."""
    outcome = given(Deposited("a", Decimal(5))).when(Account.withdraw, A, Decimal(1))
    with pytest.raises(AssertionError, match="expected Poor, but it was decided"):
        outcome.raises(Poor)


def test_a_wrong_state_names_the_field() -> None:
    """Only the fields asked for are compared."""
    with pytest.raises(AssertionError, match=r"balance: expected 4, found Decimal\('5'\)"):
        given(Deposited("a", Decimal(5))).state(A).has(balance=4)


class Balance(ef.Projection, name="scenario_balance"):
    """What is on an account."""

    account: str
    balance: Decimal = Decimal(0)

    def evolve(self, event: Deposited) -> None:
        """Add."""
        self.balance += event.amount


def test_rows_have_some_rows_and_values() -> None:
    """`has` wants whole rows among all, or fields that one row has together; what is missing is shown."""
    rows = given(Deposited("a", Decimal(5)), Deposited("b", Decimal(7))).rows(Balance)
    rows.has(Balance("b", Decimal(7))).has(account="a").has(account="a", balance=Decimal(5))
    with pytest.raises(AssertionError, match="lacks rows") as failure:
        rows.has(Balance("c", Decimal(7)))
    assert "- Balance(account='c'" in str(failure.value)
    with pytest.raises(AssertionError, match="has no row with account='a', balance=Decimal"):
        rows.has(account="a", balance=Decimal(7))


def test_time_passes_between_events_that_are_given() -> None:
    """The clock of a scenario can be given, and goes forward by `later`."""
    clock = Clock(datetime(2020, 2, 1, tzinfo=UTC))
    scenario = given(Deposited("a", Decimal(5)), clock=clock).later(days=3, hours=1).given(Deposited("a", Decimal(5)))
    first, second = (recorded.time for recorded in scenario.store.read())
    assert (first, second - first) == (datetime(2020, 2, 1, tzinfo=UTC), timedelta(days=3, hours=1))
    assert scenario.clock is clock
    scenario.rows(Balance).are(Balance("a", Decimal(10)))


def test_strategies_say_what_to_install() -> None:
    """Without Hypothesis the import is refused in words, naming the extra, which brings it."""
    code = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "from eventfold.errors import MissingExtra\n"
        "try:\n    import eventfold.testing.strategies\n"
        "except MissingExtra as error:\n    print(error, error.fields['extra'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'pip install "eventfold[testing]". testing' in done.stdout, done.stderr
    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert any(each.startswith("hypothesis") for each in extras["optional-dependencies"]["testing"])
    assert "testing" in extras["optional-dependencies"]["all"][0]
