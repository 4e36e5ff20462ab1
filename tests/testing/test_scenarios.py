"""Given, when, then: correct rules pass, and wrong expectations fail with the differences."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

import eventfold as ef
from eventfold.testing import Clock, given
from tests.testing.bank import Account, Deposited, Poor, Withdrawn, transfer

A, B = Account("a"), Account("b")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_decision_is_tested_in_one_sentence() -> None:
    """The events that a function returns are the result, and the past of the next decision."""
    (
        given(Deposited("a", Decimal(80)))
        .when(transfer, A, B, amount=Decimal(50))
        .then(Withdrawn("a", Decimal(50)), Deposited("b", Decimal(50)))
        .when(transfer, A, B, amount=Decimal(50))
        .raises(Poor, "a")
    )


def test_an_aggregate_is_tested_by_its_methods() -> None:
    """The events that a method records are the result."""
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


def late(account: Account, amount: Decimal) -> list[ef.Draft[ef.Event]]:
    """Record a payment with all parts of an envelope."""
    return [
        ef.Draft(
            Deposited(account.account, amount),
            id=UUID(int=7),
            occurred=NOON,
            tags=("till:4",),
            metadata={"actor": "ann", "reason": UUID(int=1)},
        )
    ]


def test_a_draft_is_compared_by_the_parts_that_it_gives() -> None:
    """An event alone is compared alone; metadata as the store has it."""
    outcome, paid = given().when(late, A, Decimal(5)), Deposited("a", Decimal(5))
    outcome.then(paid)
    outcome.then(ef.Draft(paid))
    outcome.then(ef.Draft(paid, occurred=NOON.astimezone(timezone(timedelta(hours=2)))))
    outcome.then(ef.Draft(paid, tags=("till:4",)))
    outcome.then(ef.Draft(paid, metadata={"reason": UUID(int=1), "actor": "ann"}))
    (given_by_it,) = late(A, Decimal(5))
    outcome.then(given_by_it)


@pytest.mark.parametrize(
    ("given_part", "says"),
    [
        ({"occurred": NOON + timedelta(days=1)}, "occurred: datetime.datetime(2026, 3, 2"),
        ({"id": UUID(int=8)}, "id: UUID("),
        ({"tags": ("till:5",)}, "tags: ('account:a', 'till:5') → ('account:a', 'till:4')"),
        ({"metadata": {"actor": "ann"}}, "metadata: {'actor': 'ann'} → {'actor': 'ann', 'reason':"),
        ({"metadata": {}}, "metadata: {} → {'actor': 'ann'"),
    ],
)
def test_a_wrong_part_of_a_draft_is_shown(given_part: dict[str, Any], says: str) -> None:
    """Both sides have that part, and no others."""
    outcome = given().when(late, A, Decimal(5))
    with pytest.raises(AssertionError) as failure:
        outcome.then(ef.Draft(Deposited("a", Decimal(5)), **given_part))
    text = str(failure.value)
    assert says in text
    assert text.count("+ Draft(event=Deposited(account='a', amount=Decimal('5'))") == 1
    (part,) = given_part
    assert not any(f"{other}=" in text for other in ("id", "occurred", "tags", "metadata") if other != part)


def test_a_wrong_event_of_a_draft_shows_the_field() -> None:
    """With the parts that are right on both sides; a part that no event has is shown as missing."""
    with pytest.raises(AssertionError) as failure:
        given().when(late, A, Decimal(5)).then(ef.Draft(Deposited("a", Decimal(6)), occurred=NOON))
    assert "    amount: Decimal('6') → Decimal('5')" in str(failure.value)
    assert "    event:" not in str(failure.value)
    with pytest.raises(AssertionError, match=r"occurred: datetime.* → None"):
        given().when(transfer, A, B, amount=Decimal(0)).then(
            ef.Draft(Withdrawn("a", Decimal(0)), occurred=NOON), Deposited("b", Decimal(0))
        )


def test_an_unexpected_error_is_shown_with_its_cause() -> None:
    """The result of a decision that raised has no events to check."""
    outcome = given().when(Account.withdraw, A, Decimal(1))
    with pytest.raises(AssertionError, match="raised Poor") as failure:
        outcome.nothing()
    assert isinstance(failure.value.__cause__, Poor)


def test_a_missing_refusal_is_a_failure() -> None:
    """If an expected error is not raised, the failure shows the events that were written."""
    outcome = given(Deposited("a", Decimal(5))).when(Account.withdraw, A, Decimal(1))
    with pytest.raises(AssertionError, match="expected Poor, but it was decided"):
        outcome.raises(Poor)


def test_a_wrong_state_names_the_field() -> None:
    """Only the given fields are compared."""
    with pytest.raises(AssertionError, match=r"balance: expected 4, found Decimal\('5'\)"):
        given(Deposited("a", Decimal(5))).state(A).has(balance=4)


class Balance(ef.Projection, name="scenario_balance"):
    """The balance of an account."""

    account: str
    balance: Decimal = Decimal(0)

    def evolve(self, event: Deposited) -> None:
        """Add the amount."""
        self.balance += event.amount


def test_rows_have_some_rows_and_values() -> None:
    """`has` takes whole rows, or fields that one row has together; missing ones are shown."""
    rows = given(Deposited("a", Decimal(5)), Deposited("b", Decimal(7))).rows(Balance)
    rows.has(Balance("b", Decimal(7))).has(account="a").has(account="a", balance=Decimal(5))
    with pytest.raises(AssertionError, match="lacks rows") as failure:
        rows.has(Balance("c", Decimal(7)))
    assert "- Balance(account='c'" in str(failure.value)
    with pytest.raises(AssertionError, match="has no row with account='a', balance=Decimal"):
        rows.has(account="a", balance=Decimal(7))


def test_time_may_pass_between_given_events() -> None:
    """The clock of a scenario can be given, and advances by `later`."""
    clock = Clock(datetime(2020, 2, 1, tzinfo=UTC))
    scenario = given(Deposited("a", Decimal(5)), clock=clock).later(days=3, hours=1).given(Deposited("a", Decimal(5)))
    first, second = (recorded.time for recorded in scenario.store.read())
    assert (first, second - first) == (datetime(2020, 2, 1, tzinfo=UTC), timedelta(days=3, hours=1))
    assert scenario.clock is clock
    scenario.rows(Balance).are(Balance("a", Decimal(10)))


def test_strategies_name_the_missing_package() -> None:
    """Without Hypothesis the import raises MissingExtra, which names the extra."""
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
