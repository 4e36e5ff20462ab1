"""2024: money gets a currency, nested: version 3."""

import sys

import msgspec

import eventfold as ef


class Money(msgspec.Struct, frozen=True):
    cents: int
    currency: str


class ShopOrderPlaced(ef.Event, version=3):
    order: ef.Tag
    price: Money
    customer: str | None = None


if __name__ == "__main__":
    ef.Store(sys.argv[1]).append(ShopOrderPlaced("o-2024", Money(4_000, "CHF"), None))
