"""An order that is paid in time or given up: a process, a timer and an effect.

    python examples/ordering.py

Everything is stored in `ordering.db`. If the program is killed at any moment and started again, it continues where it
was.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import eventfold as ef
from eventfold.processes import after, cancel, decide, effect


class OrderPlaced(ef.Event, type="order-placed"):
    """A customer orders something."""

    order: ef.Tag
    item: str


class Paid(ef.Event, type="order-paid"):
    """The customer has paid."""

    order: ef.Tag


class PaymentOverdue(ef.Event, type="payment-overdue"):
    """The time for payment is over."""

    order: ef.Tag


class OrderGivenUp(ef.Event, type="order-given-up"):
    """The order was not paid."""

    order: ef.Tag


class Order(ef.State):
    """The state of an order that decisions use."""

    order: ef.Tag
    open: bool = False

    def evolve(self, event: OrderPlaced | Paid | OrderGivenUp) -> None:
        self.open = isinstance(event, OrderPlaced)


def give_up(order: Order) -> list[ef.Event]:
    """Give an order up, unless it was paid or given up meanwhile."""
    return [OrderGivenUp(order.order)] if order.open else []


class Payment(ef.Process, start="beginning"):
    """Waits for the payment for a limited time."""

    order: ef.Tag
    finished: bool = False

    def evolve(self, event: OrderPlaced | Paid | OrderGivenUp) -> None:
        self.finished = not isinstance(event, OrderPlaced)

    def react(self, event: OrderPlaced | Paid | PaymentOverdue) -> Iterator[Any]:
        match event:
            case OrderPlaced():
                yield after(PaymentOverdue(self.order), seconds=1)
            case Paid():
                yield cancel(PaymentOverdue)
            case PaymentOverdue():
                yield decide(give_up, Order(self.order))

    def done(self) -> bool:
        return self.finished


@effect(start="now")
def notify(event: ef.Recorded[Paid | OrderGivenUp]) -> None:
    """Notify the customer, here on the screen. The event's id is printed: by it a repeated message is recognised."""
    what = "thank you" if isinstance(event.event, Paid) else "too late"
    print(f"{event.event.order}: {what} ({event.id})", flush=True)


def main(path: str = "ordering.db") -> None:
    """Place two orders and pay one of them."""
    with ef.Store(path) as store, store.run(Payment, notify):
        first, second = (f"o-{time.time_ns() + each}" for each in range(2))
        store.append(OrderPlaced(first, "a chair"), OrderPlaced(second, "a table"))
        store.append(Paid(first))
        with store.follow(ef.Query.of(types=[OrderGivenUp], tags=[f"order:{second}"])) as follower:
            next(iter(follower))
        store.wait("notify")


if __name__ == "__main__":
    main(*sys.argv[1:])
