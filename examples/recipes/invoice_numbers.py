"""Invoice numbers without gaps.

Explained in docs/how-to/recipes/invoice-numbers.md, which shows the same code.
"""

from __future__ import annotations

from decimal import Decimal

import eventfold as ef


class InvoiceIssued(ef.Event):
    series: ef.Tag
    order: ef.Tag
    number: int
    total: Decimal


class Series(ef.State):
    series: ef.Tag
    last: int = 0

    def evolve(self, event: InvoiceIssued) -> None:
        self.last = event.number


class Billing(ef.State):
    order: ef.Tag
    number: int | None = None

    def evolve(self, event: InvoiceIssued) -> None:
        self.number = event.number


def issue(series: Series, billing: Billing, total: Decimal) -> list[InvoiceIssued]:
    if billing.number is not None:
        return []  # this order has its invoice
    return [InvoiceIssued(series.series, billing.order, series.last + 1, total)]
