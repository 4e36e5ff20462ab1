"""Events of the shop: orders, payments, stock, prices.

Knows: event classes and their tags. Does not know: the source, decisions, stores.

An order is one event, tagged by order and customer: an event carries at most 64 tags, and an order has up to 1,114
products. What is known by product (stock, reservations, prices) is in events of up to `PART` products.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated

import msgspec

import eventfold as ef

PART = 50  # products of one event; the rest of the 64 tags is for orders and days
Products = Annotated[tuple[str, ...], ef.tag("product")]


class OrderLine(msgspec.Struct, frozen=True, array_like=True):
    """Pieces of a product, or a service such as carriage, and the price of one in pounds."""

    product: str
    pieces: int
    price: Decimal


class OrderPlaced(ef.Event, type="shop.OrderPlaced"):
    """A customer ordered."""

    order: ef.Tag
    customer: ef.Tag | None
    country: str
    lines: tuple[OrderLine, ...]


class OrderLineChanged(ef.Event, type="shop.OrderLineChanged"):
    """The pieces of one product were changed; 0 removes it."""

    order: ef.Tag
    product: str
    pieces: int


class OrderCancelled(ef.Event, type="shop.OrderCancelled"):
    """An order ended without a delivery."""

    order: ef.Tag
    why: str


class PartReserved(ef.Event, type="shop.PartReserved"):
    """Pieces of some products of an order were taken out of the stock."""

    order: ef.Tag
    part: int
    product: Products
    pieces: tuple[int, ...]


class PartReleased(ef.Event, type="shop.PartReleased"):
    """Reserved pieces were put back."""

    order: ef.Tag
    part: int
    product: Products
    pieces: tuple[int, ...]


class GoodsReturned(ef.Event, type="shop.GoodsReturned"):
    """A credit note. `unexplained`: products of which the customer had not bought as many."""

    note: ef.Tag
    customer: ef.Tag | None
    country: str
    lines: tuple[OrderLine, ...]
    unexplained: tuple[str, ...] = ()


class StockReceived(ef.Event, type="shop.StockReceived"):
    """Goods arrived."""

    product: Products
    pieces: tuple[int, ...]
    why: str


class StockShipped(ef.Event, type="shop.StockShipped"):
    """Goods left the shop in one day."""

    day: ef.Tag
    product: Products
    pieces: tuple[int, ...]


class StockCorrected(ef.Event, type="shop.StockCorrected"):
    """The shop counted, and found more or fewer: `stated` as the shop wrote, `pieces` of these as could be there."""

    product: Products
    pieces: tuple[int, ...]
    stated: int
    why: str


class PricesSet(ef.Event, type="shop.PricesSet"):
    """The lowest prices of a day, of the products for which they differ from the day they were sold on before."""

    day: date
    product: Products
    prices: tuple[Decimal, ...]


class PaymentRequested(ef.Event, type="shop.PaymentRequested"):
    """The provider was asked for the amount of an order."""

    order: ef.Tag
    amount: Decimal


class PaymentAuthorised(ef.Event, type="shop.PaymentAuthorised"):
    """The provider holds the amount."""

    order: ef.Tag
    reference: str


class PaymentRefused(ef.Event, type="shop.PaymentRefused"):
    """The provider refuses the amount."""

    order: ef.Tag
    why: str


class PaymentTimedOut(ef.Event, type="shop.PaymentTimedOut"):
    """The provider did not answer in time."""

    order: ef.Tag


class PaymentCaptured(ef.Event, type="shop.PaymentCaptured"):
    """The amount was taken; the order can be shipped."""

    order: ef.Tag
    amount: Decimal


class PaymentRefunded(ef.Event, type="shop.PaymentRefunded"):
    """The amount was given back."""

    order: ef.Tag
    amount: Decimal
    why: str
