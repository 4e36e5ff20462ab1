"""A form that is sent many times is decided once, and every sender gets the first result."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

import eventfold as ef
from examples.recipes.double_submit import Customer, LimitReached, OrderPlaced, command_of, place
from tests.recipes.crowd import RACERS, Crowd, done

FORM = command_of("ada", "form-7")


def test_a_form_counts_once(crowd: Crowd) -> None:
    """Thirty-two send one form at once: one order, and all of them get it."""
    answers = crowd.race(
        *[lambda store: store.using(command_id=FORM).decide(place, Customer("ada"), total=Decimal(40))] * RACERS
    )
    assert len(done(answers)) == RACERS
    assert sum(not answer.repeated for answer in answers) == 1
    assert {answer.events[0].id for answer in answers} == {answers[0].events[0].id}
    assert {answer.state(Customer("ada")).owed for answer in answers} == {Decimal(40)}
    assert crowd.store.head() == 1


def test_forms_of_their_own_all_count(crowd: Crowd) -> None:
    """Thirty-two different forms of one customer, each sent twice: 32 orders, numbered through."""
    forms = [command_of("ada", f"form-{n}") for n in range(RACERS // 2)] * 2
    answers = crowd.race(
        *[
            lambda store, form=form: store.using(command_id=form, attempts=1_000).decide(
                place, Customer("ada"), total=Decimal(1)
            )
            for form in forms
        ]
    )
    assert sum(not answer.repeated for answer in done(answers)) == RACERS // 2
    orders = [recorded.event.order for recorded in crowd.store.read(ef.Query.of(types=OrderPlaced))]
    assert orders == [f"ada-{n + 1}" for n in range(RACERS // 2)]


def test_a_key_counts_once(crowd: Crowd) -> None:
    """Thirty-two appends under one key: one is written, and all have its receipt."""
    answers = crowd.race(
        *[
            lambda store, n=n: store.append(OrderPlaced("bob", f"bob-{n}", Decimal(5)), key="line-1")
            for n in range(RACERS)
        ]
    )
    assert sum(not answer.repeated for answer in done(answers)) == 1
    assert {(answer.positions, answer.ids, answer.digest) for answer in answers} == {
        (answers[0].positions, answers[0].ids, answers[0].digest)
    }
    assert crowd.store.receipt("line-1") in answers


def test_a_refusal_is_not_remembered(crowd: Crowd) -> None:
    """A customer who was refused may send the same form again when the state has changed."""
    once = crowd.store.using(command_id=FORM)
    with pytest.raises(LimitReached):
        once.decide(place, Customer("ada"), total=Decimal(2000))
    assert not once.decide(place, Customer("ada"), total=Decimal(200)).repeated


def only_one(customer: Customer, total: Decimal) -> OrderPlaced:
    """Raise once the customer has an order: the command's own first run makes every repeat fail."""
    if customer.orders:
        raise LimitReached(customer.customer)
    return OrderPlaced(customer.customer, "ada-1", total)


def only_one_quietly(customer: Customer, total: Decimal) -> list[OrderPlaced]:
    """The same rule, but a repeat writes nothing."""
    return [] if customer.orders else [OrderPlaced(customer.customer, "ada-1", total)]


@pytest.mark.parametrize("rule", [only_one, only_one_quietly])
def test_a_repeat_that_meets_its_own_first_run_gets_its_answer(crowd: Crowd, rule: Callable[..., Any]) -> None:
    """Sent twice at once, the slower one finds an order of its customer: its own, so it is not refused."""
    answers = crowd.race(
        *[lambda store: store.using(command_id=FORM).decide(rule, Customer("ada"), total=Decimal(1))] * RACERS
    )
    assert len(done(answers)) == RACERS
    assert {answer.events[0].id for answer in answers} == {answers[0].events[0].id}
    with pytest.raises(LimitReached):  # another form is another command
        crowd.store.using(command_id="other").decide(only_one, Customer("ada"), total=Decimal(1))


def test_a_repeat_decided_while_the_first_one_looks_is_found(crowd: Crowd) -> None:
    """The other run commits exactly between reading and deciding."""
    once = crowd.store.using(command_id=FORM)
    rival = [lambda: once.decide(only_one, Customer("ada"), total=Decimal(1))]

    def slow(customer: Customer, total: Decimal) -> OrderPlaced:
        if rival:
            rival.pop()()
        raise LimitReached(customer.customer)

    assert once.decide(slow, Customer("ada"), total=Decimal(1)).repeated


def test_customers_do_not_share_forms() -> None:
    """One customer's form id says nothing about another's."""
    assert command_of("ada", "1") != command_of("bob", "1")
