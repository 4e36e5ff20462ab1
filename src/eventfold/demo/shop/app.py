"""A shop: no piece is sold twice, across a basket of any size; nothing is returned that was not bought.

Knows: states and decisions; the payment of orders is in payment.py. Does not know: the source, how results are shown.
"""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import eventfold as ef
from eventfold.demo.shop.events import (
    PART,
    GoodsReturned,
    OrderCancelled,
    OrderLineChanged,
    OrderPlaced,
    PartReleased,
    PartReserved,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentRefunded,
    PaymentRefused,
    PaymentRequested,
    PaymentTimedOut,
    PricesSet,
    Products,
    StockCorrected,
    StockReceived,
    StockShipped,
)

Moved = StockReceived | StockShipped | StockCorrected | PartReserved | PartReleased
OrderEvent = OrderPlaced | OrderLineChanged | OrderCancelled | PartReserved | PartReleased
PaymentEvent = (
    PaymentRequested | PaymentAuthorised | PaymentRefused | PaymentTimedOut | PaymentCaptured | PaymentRefunded
)


class Refused(Exception):
    """The shop does not do this."""


class Stock(ef.State):
    """The pieces on hand of some products."""

    product: Products
    on_hand: dict[str, int] = {}

    def evolve(self, event: Moved) -> None:
        """Add or take pieces."""
        sign = -1 if isinstance(event, StockShipped | PartReserved) else 1
        for product, pieces in zip(event.product, event.pieces, strict=True):
            if product in self.product:
                self.on_hand[product] = self.on_hand.get(product, 0) + sign * pieces


class Order(ef.State):
    """An order: its lines, what is reserved for it, and the state of its payment."""

    order: ef.Tag
    lines: dict[str, int] = {}
    amount: Decimal = Decimal(0)
    prices: dict[str, Decimal] = {}
    reserved: dict[int, PartReserved] = {}
    is_cancelled: bool = False
    payment: str = ""

    def evolve(self, event: OrderEvent | PaymentEvent) -> None:
        """Follow the order."""
        match event:
            case OrderPlaced():
                for line in event.lines:
                    self.lines[line.product] = self.lines.get(line.product, 0) + line.pieces
                    self.prices[line.product] = line.price
                self.amount = sum((line.pieces * line.price for line in event.lines), Decimal(0))
            case OrderLineChanged():
                change = event.pieces - self.lines.get(event.product, 0)
                self.lines[event.product] = event.pieces
                self.amount += change * self.prices[event.product]
            case PartReserved():
                self.reserved[event.part] = event
            case PartReleased():
                del self.reserved[event.part]
            case OrderCancelled():
                self.is_cancelled = True
            case _:
                self.payment = type(event).__name__.removeprefix("Payment").lower()

    def parts(self) -> list[dict[str, int]]:
        """The pieces to reserve, `PART` products at a time."""
        wanted = sorted((product, pieces) for product, pieces in self.lines.items() if pieces > 0)
        return [dict(wanted[first : first + PART]) for first in range(0, len(wanted), PART)]


class Bought(ef.State):
    """The pieces of each product that a customer has bought and not returned."""

    customer: ef.Tag
    pieces: dict[str, int] = {}

    def evolve(self, event: OrderPlaced | GoodsReturned) -> None:
        """Add what was bought, take what was returned and explained."""
        returned = isinstance(event, GoodsReturned)
        for line in event.lines:
            if not (isinstance(event, GoodsReturned) and line.product in event.unexplained):
                change = -line.pieces if returned else line.pieces
                self.pieces[line.product] = self.pieces.get(line.product, 0) + change

    def excess(self, note: GoodsReturned) -> tuple[str, ...]:
        """The products of which a credit note returns more than there is."""
        returned: dict[str, int] = {}
        for line in note.lines:
            returned[line.product] = returned.get(line.product, 0) + line.pieces
        return tuple(sorted(each for each, pieces in returned.items() if pieces > max(0, self.pieces.get(each, 0))))


class Prices(ef.State):
    """The lowest price of a product from each day on."""

    product: ef.Tag
    since: list[tuple[date, Decimal]] = []

    def evolve(self, event: PricesSet) -> None:
        """Add a price."""
        self.since.append((event.day, event.prices[event.product.index(self.product)]))

    def lowest(self, until: date, days: int = 30) -> Decimal | None:
        """The lowest price in the days before a day (exclusive), with the price that was in force when they began."""
        first = until - timedelta(days=days)
        before = [price for day, price in self.since if day < first][-1:]
        return min([*before, *(price for day, price in self.since if first <= day < until)], default=None)


def place(order: Order, placed: OrderPlaced) -> OrderPlaced:
    """Place an order, once."""
    if order.lines:
        raise Refused(f"order {order.order} was placed already")
    return placed


def change_line(order: Order, product: str, pieces: int) -> OrderLineChanged:
    """Change the pieces of a product, while nothing is reserved."""
    if product not in order.lines or order.reserved or order.is_cancelled or order.payment or pieces < 0:
        raise Refused(f"order {order.order} cannot be changed")
    return OrderLineChanged(order.order, product, pieces)


def reserve(order: Order, stock: Stock, part: int) -> list[PartReserved]:
    """Reserve one part of an order: all of its pieces, or none."""
    if order.is_cancelled:
        raise Refused(f"order {order.order} was cancelled")
    if part in order.reserved:
        return []
    wanted = order.parts()[part]
    if short := [product for product, pieces in wanted.items() if stock.on_hand.get(product, 0) < pieces]:
        raise Refused(f"order {order.order} wants more than there is of {', '.join(short)}")
    return [PartReserved(order.order, part, tuple(wanted), tuple(wanted.values()))]


def abandon(order: Order, why: str) -> list[PartReleased | OrderCancelled | PaymentRefunded]:
    """Cancel an order: release every part, and refund what was taken."""
    if order.is_cancelled:
        return []
    parts = [PartReleased(each.order, each.part, each.product, each.pieces) for each in order.reserved.values()]
    refund = [PaymentRefunded(order.order, order.amount, why)] if order.payment == "captured" else []
    return [*parts, *refund, OrderCancelled(order.order, why)]


def give_back(bought: Bought, note: GoodsReturned) -> GoodsReturned:
    """Take goods back, of which the customer has bought at least as many."""
    if excess := bought.excess(note):
        raise Refused(f"{note.note} returns more than was bought of {', '.join(excess)}")
    return note
