"""2025: the class is renamed and keeps its old stored name as an alias; Moved is split into two facts."""

import sys

import msgspec

import eventfold as ef


class Money(msgspec.Struct, frozen=True):
    cents: int
    currency: str


class ShopOrderAccepted(ef.Event, version=3, aliases=("ShopOrderPlaced",)):
    order: ef.Tag
    price: Money
    customer: str | None = None


class Left(ef.Event):
    order: ef.Tag
    place: str


class Arrived(ef.Event):
    order: ef.Tag
    place: str


if __name__ == "__main__":
    store = ef.Store(sys.argv[1])
    store.append(ShopOrderAccepted("o-2025", Money(5_000, "EUR"), "c-2"))
    store.append(Left("o-2025", "Kiel"), Arrived("o-2025", "Jena"))
