"""2023: amounts become cents, which no older class can read: version 2."""

import sys

import eventfold as ef


class ShopOrderPlaced(ef.Event, version=2):
    order: ef.Tag
    cents: int
    customer: str | None = None


if __name__ == "__main__":
    ef.Store(sys.argv[1]).append(ShopOrderPlaced("o-2023", 3_000, "c-1"))
