"""Prices that change while people are buying.

Explained in docs/how-to/recipes/dynamic-prices.md, which shows the same code.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import eventfold as ef

GRACE = timedelta(minutes=10)


class PriceSet(ef.Event):
    product: ef.Tag
    price: Decimal
    at: datetime


class ProductOrdered(ef.Event):
    order: ef.Tag
    product: ef.Tag
    price: Decimal
    at: datetime


class Product(ef.State):
    product: ef.Tag
    price: Decimal | None = None
    ended: dict[Decimal, datetime] = {}  # earlier prices, and when each was replaced

    def evolve(self, event: PriceSet) -> None:
        if self.price is not None:
            self.ended[self.price] = event.at
        self.price = event.price

    def honours(self, shown: Decimal, now: datetime) -> bool:
        ended = self.ended.get(shown)
        return shown == self.price or (ended is not None and now - ended <= GRACE)


class PriceChanged(Exception):
    pass


def order(*basket: Product, order: str, shown: dict[str, Decimal], now: datetime) -> list[ProductOrdered]:
    for product in basket:
        if not product.honours(shown[product.product], now):
            raise PriceChanged(product.product, product.price)
    return [ProductOrdered(order, each.product, shown[each.product], now) for each in basket]
