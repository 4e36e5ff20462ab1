"""A small shop: orders that are paid or reminded of, stock that is reserved, mails that are sent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import eventfold as ef
from eventfold.processes import after, cancel, decide, effect


class OrderPlaced(ef.Event, type="shop-order-placed"):
    """A customer ordered an item."""

    order: ef.Tag
    amount: int = 1


class Paid(ef.Event, type="shop-paid"):
    """The order was paid."""

    order: ef.Tag


class ReminderDue(ef.Event, type="shop-reminder-due"):
    """The order has waited long enough."""

    order: ef.Tag


class Reminded(ef.Event, type="shop-reminded"):
    """The customer was reminded."""

    order: ef.Tag


class Reserved(ef.Event, type="shop-reserved"):
    """Pieces were reserved for the order."""

    order: ef.Tag
    item: ef.Tag
    amount: int


class Declined(ef.Event, type="shop-declined"):
    """The order was declined: there is not enough stock."""

    order: ef.Tag
    reason: str


class SoldOut(Exception):
    """The error for too little stock."""


class Stock(ef.State):
    """The reserved amount of an item."""

    item: ef.Tag
    reserved: int = 0
    times: int = 0

    def evolve(self, event: Reserved) -> None:
        self.reserved += event.amount
        self.times += 1


class Order(ef.State):
    """An order, as decisions see it."""

    order: ef.Tag
    paid: bool = False

    def evolve(self, event: OrderPlaced | Paid) -> None:
        self.paid = self.paid or isinstance(event, Paid)


def reserve(stock: Stock, order: str, amount: int, most: int = 1_000_000) -> list[ef.Event]:
    """Reserve. It does not check for an earlier reservation: only the process prevents a second one."""
    if stock.reserved + amount > most:
        raise SoldOut(f"{stock.reserved} of {most} are gone")
    return [Reserved(order, stock.item, amount)]


def remind(order: Order) -> list[ef.Event]:
    """Remind, unless paid. It does not check for an earlier reminder."""
    return [] if order.paid else [Reminded(order.order)]


class Payment(ef.Process, name="shop_payment", start="beginning"):
    """The process that waits for the payment."""

    order: ef.Tag
    paid: bool = False
    reminded: bool = False

    def evolve(self, event: OrderPlaced | Paid | ReminderDue) -> None:
        self.paid = self.paid or isinstance(event, Paid)
        self.reminded = self.reminded or isinstance(event, ReminderDue)

    def react(self, event: OrderPlaced | Paid | ReminderDue) -> Iterator[Any]:
        match event:
            case OrderPlaced():
                yield decide(reserve, Stock("bolt"), self.order, event.amount)
                yield after(ReminderDue(self.order), seconds=0.03)
            case Paid():
                yield cancel(ReminderDue)
            case ReminderDue():
                yield decide(remind, Order(self.order))

    def done(self) -> bool:
        return self.paid or self.reminded


@effect(start="beginning", name="shop_mail", first_delay=0.01, max_delay=0.05)
def mail(event: ef.Recorded[Reminded]) -> None:
    """Send a mail: a line in a file, with the event's id as its key."""
    out = os.open(os.environ["SHOP_MAILS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(out, f"{event.id} {event.event.order}\n".encode())
    finally:
        os.close(out)
