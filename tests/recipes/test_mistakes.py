"""Typical mistakes of new users: each raises an error of two sentences, without frames of the library."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, cast

import pytest

import eventfold as ef
from eventfold.errors import InvalidDecision, InvalidEvent, InvalidQuery, InvalidState
from examples.bank import Account, MoneyDeposited

EVENT = MoneyDeposited("a-1", Decimal(80))


@pytest.fixture
def store() -> Any:
    """Return a bank with one event. Its methods are called wrongly on purpose, so type checks are off here."""
    store = ef.Store("memory:")
    store.append(EVENT)
    return store


MISTAKES: dict[str, tuple[Callable[[Any], Any], type[ef.EventfoldError], str]] = {
    "a list of events": (lambda store: store.append([EVENT]), InvalidEvent, r"append\(\*events\)"),
    "a generator of events": (lambda store: store.append(e for e in [EVENT]), InvalidEvent, "extend"),
    "a class for an event": (lambda store: store.append(MoneyDeposited), InvalidEvent, "not its class"),
    "events for a decision": (lambda store: store.decide([EVENT]), InvalidDecision, "not what it returned"),
    "a class to fold": (lambda store: list(store.history(Account)), InvalidState, "Ask with a question"),
    "a class to ask": (lambda store: store.state(Account), InvalidState, "Ask with a question"),
    "a class for a condition": (lambda store: store.append(EVENT, unless=MoneyDeposited), InvalidQuery, "Query.of"),
    "a class for a query": (lambda store: list(store.read(MoneyDeposited)), InvalidQuery, "Query.of"),
    "a receipt to read after": (
        lambda store: list(store.read(after=store.append(EVENT))),
        InvalidQuery,
        "receipt.last",
    ),
    "an event to follow after": (
        lambda store: next(iter(store.follow(after=next(store.read())))),
        InvalidQuery,
        "recorded.position",
    ),
    "a receipt in a condition": (
        lambda store: store.append(EVENT, unless=Account("a-1"), after=store.append(EVENT)),
        InvalidQuery,
        "receipt.last",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_reported(store: ef.Store, mistake: str) -> None:
    """The error says what was passed, and what to pass instead."""
    call, kind, advice = MISTAKES[mistake]
    with pytest.raises(kind, match=advice) as raised:
        call(store)
    assert raised.value.what and raised.value.remedy


def forgot(account: Account) -> Any:
    """Decide, but forget to return the event."""
    [MoneyDeposited(account.account, Decimal(1))]


def test_a_decision_that_is_at_fault_is_named_with_its_place(store: Any) -> None:
    """The error has the function, its file and its line, so that a reader need not search."""
    line = forgot.__code__.co_firstlineno
    for decision, fault in ((forgot, "returned None"), (lambda account: 3, "returned 3, which is no event")):
        with pytest.raises(InvalidDecision, match=rf"\(test_mistakes.py, line \d+\) {fault}") as raised:
            store.decide(decision, Account("a-1"))
        if decision is forgot:
            assert f"forgot (test_mistakes.py, line {line}) returned None" in str(raised.value)


def test_a_question_stands_for_its_query_everywhere(store: ef.Store) -> None:
    """Where a query is expected, a state stands for the query of the events it is folded from."""
    store.append(MoneyDeposited("a-2", Decimal(1)))
    question = cast("Any", Account("a-1"))
    assert store.count(question) == 1
    assert [recorded.position for recorded in store.read(question)] == [1]
    with store.follow(question) as follower:
        assert next(iter(follower)).position == 1
