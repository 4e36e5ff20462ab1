"""Invoices of a series are numbered without gaps or doubles, one for an order."""

from __future__ import annotations

from decimal import Decimal

import pytest

import eventfold as ef
from examples.recipes.invoice_numbers import Billing, InvoiceIssued, Series, issue
from tests.recipes.crowd import RACERS, Crowd, done

SERIES = ef.Query.of(types=InvoiceIssued, tags="series:2026")


def test_numbers_have_no_gaps(crowd: Crowd) -> None:
    """Thirty-two clerks write one invoice each at once, and the numbers are 1 to 32."""
    answers = crowd.race(
        *[
            lambda store, n=n: store.using(attempts=1_000).decide(issue, Series("2026"), Billing(f"o-{n}"), Decimal(n))
            for n in range(RACERS)
        ]
    )
    assert sorted(answer.events[0].event.number for answer in done(answers)) == list(range(1, RACERS + 1))
    assert [recorded.event.number for recorded in crowd.store.read(SERIES)] == list(range(1, RACERS + 1))


def test_an_order_has_one_invoice(crowd: Crowd) -> None:
    """Eight orders, each billed by four clerks at once: eight invoices, numbered 1 to 8."""
    crowd.race(
        *[
            lambda store, n=n: store.using(attempts=1_000).decide(
                issue, Series("2026"), Billing(f"o-{n % 8}"), Decimal(1)
            )
            for n in range(RACERS)
        ]
    )
    issued = [recorded.event for recorded in crowd.store.read(SERIES)]
    assert [invoice.number for invoice in issued] == list(range(1, 9))
    assert {invoice.order for invoice in issued} == {f"o-{n}" for n in range(8)}


def test_series_do_not_meet(crowd: Crowd) -> None:
    """With a series for each clerk, everyone succeeds at the first attempt."""
    answers = crowd.race(
        *[
            lambda store, n=n: store.decide(issue, Series(f"s-{n}"), Billing(f"o-{n}"), Decimal(1))
            for n in range(RACERS)
        ]
    )
    assert [answer.attempts for answer in done(answers)] == [1] * RACERS


def test_a_number_is_taken_by_hand_once(crowd: Crowd) -> None:
    """Appended under the condition that nothing came after the last invoice, one of 32 gets the next number."""
    crowd.store.append(InvoiceIssued("2026", "o-0", 1, Decimal(1)))
    answers = crowd.race(
        *[
            lambda store, n=n: store.append(
                InvoiceIssued("2026", f"o-{n}", 2, Decimal(1)), unless=SERIES, after=1, key=f"bill:{n}"
            )
            for n in range(RACERS)
        ]
    )
    assert len(done(answers)) == 1
    assert all(isinstance(answer, ef.AppendConflict) for answer in answers if answer not in done(answers))
    assert crowd.store.count(SERIES) == 2


def test_a_failed_decision_leaves_no_gap(crowd: Crowd) -> None:
    """A clerk whose decision fails after reading uses no number."""

    def failing(series: Series) -> InvoiceIssued:
        raise ZeroDivisionError(series.last)

    with pytest.raises(ZeroDivisionError):
        crowd.store.decide(failing, Series("2026"))
    assert crowd.store.decide(issue, Series("2026"), Billing("o-1"), Decimal(1)).events[0].event.number == 1
