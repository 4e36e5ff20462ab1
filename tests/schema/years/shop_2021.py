"""The shop's events as they were in 2021: amounts are whole euros."""

import sys

import eventfold as ef


class ShopOrderPlaced(ef.Event):
    order: ef.Tag
    amount: int


class Moved(ef.Event):
    order: ef.Tag
    came: str
    went: str


if __name__ == "__main__":
    store = ef.Store(sys.argv[1])
    store.append(ShopOrderPlaced("o-2021", 10))
    store.append(Moved("o-2021", "Bremen", "Ulm"))
