"""Read models of the shop: revenue by month and country, what a customer spent, what was sold of a product.

Knows: the events. Does not know: the source, how results are shown.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import eventfold as ef
from eventfold.demo.shop.events import GoodsReturned, OrderLine, OrderPlaced

LONDON = ZoneInfo("Europe/London")
Traded = OrderPlaced | GoodsReturned


def amount_of(lines: tuple[OrderLine, ...]) -> Decimal:
    """The sum of lines, in pounds."""
    return sum((line.pieces * line.price for line in lines), Decimal(0))


def month_of(occurred: datetime | None) -> str:
    """The month of a time in London."""
    assert occurred is not None, "every event of the shop has the time at which it occurred"
    return f"{occurred.astimezone(LONDON):%Y-%m}"


class Revenue(ef.Projection, name="shop_revenue"):
    """Orders and credit notes of a month and a country, in pounds."""

    month: str
    country: str
    orders: int = 0
    ordered: Decimal = Decimal(0)
    notes: int = 0
    credited: Decimal = Decimal(0)

    @staticmethod
    def key(event: Traded, recorded: ef.Recorded[Any]) -> tuple[str, str]:
        """The key of the row that an event changes."""
        return month_of(recorded.occurred), event.country

    def evolve(self, event: Traded) -> None:
        """Count one order or credit note."""
        if isinstance(event, OrderPlaced):
            self.orders += 1
            self.ordered += amount_of(event.lines)
        else:
            self.notes += 1
            self.credited += amount_of(event.lines)


class Spent(ef.Projection, name="shop_spent"):
    """What a customer spent in all, less what came back, in pounds."""

    customer: str
    orders: int = 0
    spent: Decimal = Decimal(0)

    @staticmethod
    def key(event: Traded) -> str | None:
        """The key of the row that an event changes."""
        return event.customer

    def evolve(self, event: Traded) -> None:
        """Add an order, or take a credit note."""
        sign = 1 if isinstance(event, OrderPlaced) else -1
        self.orders += sign > 0
        self.spent += sign * amount_of(event.lines)


class Sold(ef.Projection, name="shop_sold"):
    """Pieces and pounds of a product, sold and returned."""

    product: str
    sold: int = 0
    earned: Decimal = Decimal(0)
    returned: int = 0
    refunded: Decimal = Decimal(0)

    @staticmethod
    def key(event: Traded) -> list[str]:
        """The keys of the rows that an event changes."""
        return sorted({line.product for line in event.lines})

    def evolve(self, event: Traded) -> None:
        """Add the lines of this product."""
        own = tuple(line for line in event.lines if line.product == self.product)
        pieces, amount = sum(line.pieces for line in own), amount_of(own)
        if isinstance(event, OrderPlaced):
            self.sold, self.earned = self.sold + pieces, self.earned + amount
        else:
            self.returned, self.refunded = self.returned + pieces, self.refunded + amount
