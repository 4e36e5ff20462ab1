"""An order, from placing to paying, reminding or giving up: a process, a timer, an effect, in a minute of reading.

    python examples/ordering.py

Everything is kept in `ordering.db`; kill it at any moment and start it again: it goes on where it was.
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
    """The money is here."""

    order: ef.Tag


class PaymentOverdue(ef.Event, type="payment-overdue"):
    """The money should have been here."""

    order: ef.Tag


class OrderGivenUp(ef.Event, type="order-given-up"):
    """The order was not paid."""

    order: ef.Tag


class Order(ef.State):
    """An order, as decisions see it."""

    order: ef.Tag
    open: bool = False

    def evolve(self, event: OrderPlaced | Paid | OrderGivenUp) -> None:
        self.open = isinstance(event, OrderPlaced)


def give_up(order: Order) -> list[ef.Event]:
    """Give an order up, unless it was paid or given up meanwhile."""
    return [OrderGivenUp(order.order)] if order.open else []


class Payment(ef.Process, start="beginning"):
    """Waits for the money, and not for ever."""

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
def tell(event: ef.Recorded[Paid | OrderGivenUp]) -> None:
    """Tell the customer: here on the screen, with the event's id, by which a repeated message is recognised."""
    what = "thank you" if isinstance(event.event, Paid) else "too late"
    print(f"{event.event.order}: {what} ({event.id})", flush=True)


def main(path: str = "ordering.db") -> None:
    """Two orders; one of them is paid."""
    with ef.Store(path) as store, store.run(Payment, tell):
        first, second = (f"o-{time.time_ns() + each}" for each in range(2))
        store.append(OrderPlaced(first, "a chair"), OrderPlaced(second, "a table"))
        store.append(Paid(first))
        with store.follow(ef.Query.of(types=[OrderGivenUp], tags=[f"order:{second}"])) as follower:
            next(iter(follower))
        store.wait("tell")


if __name__ == "__main__":
    main(*sys.argv[1:])
