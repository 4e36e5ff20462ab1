"""2022: a customer joins, optional; version 1 stays, since old events read as they are."""

import sys

import eventfold as ef


class ShopOrderPlaced(ef.Event):
    order: ef.Tag
    amount: int
    customer: str | None = None


if __name__ == "__main__":
    ef.Store(sys.argv[1]).append(ShopOrderPlaced("o-2022", 20, "c-1"))
