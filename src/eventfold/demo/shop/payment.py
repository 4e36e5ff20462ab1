"""The payment of an order, as a process: requested, authorised, captured; refused, timed out, refunded.

Knows: orders, timers. Does not know: any provider; its answers come in through `answer` (webhooks.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import eventfold as ef
from eventfold.demo.shop.app import Order, Refused, abandon
from eventfold.demo.shop.events import (
    OrderCancelled,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentRefused,
    PaymentRequested,
    PaymentTimedOut,
)
from eventfold.processes import after, cancel, decide


def request_payment(order: Order) -> list[PaymentRequested]:
    """Ask for the amount, once every part is reserved."""
    if order.is_cancelled or len(order.reserved) < len(order.parts()):
        raise Refused(f"order {order.order} is not reserved")
    return [] if order.payment else [PaymentRequested(order.order, order.amount)]


def answer(order: Order, said: PaymentAuthorised | PaymentRefused) -> list[PaymentAuthorised | PaymentRefused]:
    """Record the provider's answer, if one is awaited: a second answer, or one that comes too late, is dropped."""
    return [said] if order.payment == "requested" else []


def capture(order: Order) -> list[PaymentCaptured]:
    """Take the amount that the provider holds."""
    return [PaymentCaptured(order.order, order.amount)] if order.payment == "authorised" else []


class Payment(ef.Process, start="beginning", name="shop_payment"):
    """The payment of an order: the provider answers within a quarter of an hour, or the order is cancelled."""

    order: ef.Tag
    is_ended: bool = False

    def evolve(self, event: PaymentRequested | PaymentCaptured | OrderCancelled) -> None:
        """Note the end."""
        self.is_ended = not isinstance(event, PaymentRequested)

    def react(self, event: PaymentRequested | PaymentAuthorised | PaymentRefused | PaymentTimedOut) -> Iterator[Any]:
        """Wait for the answer, then capture or cancel."""
        match event:
            case PaymentRequested():
                yield after(PaymentTimedOut(self.order), minutes=15)
            case PaymentAuthorised():
                yield cancel(PaymentTimedOut)
                yield decide(capture, Order(self.order))
            case PaymentRefused():
                yield cancel(PaymentTimedOut)
                yield decide(abandon, Order(self.order), "the payment was refused")
            case PaymentTimedOut():
                yield decide(abandon, Order(self.order), "the payment timed out")
