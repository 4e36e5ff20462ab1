"""Counters that everyone wants.

Explained in docs/how-to/recipes/hot-counters.md, which shows the same code.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import eventfold as ef

SHELVES = 16


class StockAdded(ef.Event):
    item: ef.Tag
    shelf: ef.Tag
    count: int


class StockTaken(ef.Event):
    item: ef.Tag
    shelf: ef.Tag
    order: ef.Tag
    count: int


class Shelf(ef.State):
    item: ef.Tag
    shelf: ef.Tag
    left: int = 0

    def evolve(self, event: StockAdded | StockTaken) -> None:
        self.left += event.count if isinstance(event, StockAdded) else -event.count


class SoldOut(Exception):
    pass


def delivered(item: str, count: int) -> list[StockAdded]:
    share, rest = divmod(count, SHELVES)
    return [StockAdded(item, str(n), share + (n < rest)) for n in range(SHELVES)]


def take(*shelves: Shelf, order: str, count: int) -> list[StockTaken]:
    if sum(shelf.left for shelf in shelves) < count:
        raise SoldOut(order)
    taken: list[StockTaken] = []
    for shelf in shelves:
        part = min(shelf.left, count)
        if part > 0:
            taken.append(StockTaken(shelf.item, shelf.shelf, order, part))
            count -= part
    return taken


def places(item: str) -> Iterator[tuple[Shelf, ...]]:
    shelves = [Shelf(item, str(n)) for n in range(SHELVES)]
    yield (random.choice(shelves),)  # noqa: S311 (chance, not a secret)
    yield tuple(shelves)  # that shelf has too few: decide over all of them together


def buy(store: ef.Store, item: str, order: str, count: int) -> ef.Decided:
    once = store.using(command_id=f"buy:{order}", attempts=100)
    refused = SoldOut(order)
    for shelves in places(item):
        try:
            return once.decide(take, *shelves, order=order, count=count)
        except SoldOut as sold_out:
            refused = sold_out
    raise refused
