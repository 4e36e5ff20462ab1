"""Given, when, then: right rules pass in one sentence, wrong expectations fail in words."""

from __future__ import annotations

from decimal import Decimal

import pytest

from eventfold.testing import given
from tests.kit.bank import Account, Deposited, Poor, Withdrawn, transfer

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
