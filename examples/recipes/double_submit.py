"""A form that is sent twice.

Explained in docs/how-to/recipes/double-submit.md, which shows the same code.
"""

from __future__ import annotations

from decimal import Decimal

import eventfold as ef


class OrderPlaced(ef.Event):
    customer: ef.Tag
    order: ef.Tag
    total: Decimal


class Customer(ef.State):
    customer: ef.Tag
    orders: int = 0
    owed: Decimal = Decimal(0)

    def evolve(self, event: OrderPlaced) -> None:
        self.orders += 1
        self.owed += event.total


class LimitReached(Exception):
    pass


def place(customer: Customer, total: Decimal) -> OrderPlaced:
    if customer.owed + total > 1000:
        raise LimitReached(customer.customer)
    return OrderPlaced(customer.customer, f"{customer.customer}-{customer.orders + 1}", total)


def command_of(customer: str, form: str) -> str:
    return f"place-order:{customer}:{form}"  # with the customer in it, no customer can read another's result
