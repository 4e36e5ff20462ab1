"""Queues of resting orders, and the rules by which an incoming order is matched with them.

Knows: priority, two rules of allocation. Does not know: events, states, stores.
A queue is one side of a book: its best price first, and within a price the oldest order first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Literal, TypeAlias

import msgspec

Side: TypeAlias = Literal["buy", "sell"]


class Resting(msgspec.Struct, frozen=True):
    """An order in the book, with the contracts that are left of it."""

    order: str
    account: str
    price: int
    size: int


Fills: TypeAlias = Iterator[tuple[Resting, int]]
Rule: TypeAlias = Callable[[list[Resting], int], Fills]


def reaches(side: Side, limit: int, price: int) -> bool:
    """Whether an order of this side with this limit may trade at this price."""
    return limit >= price if side == "buy" else limit <= price


def insert(queue: list[Resting], side: Side, new: Resting) -> None:
    """Put an order behind all that have priority over it."""
    for place, each in enumerate(queue):
        if each.price != new.price and reaches(side, new.price, each.price):
            queue.insert(place, new)
            return
    queue.append(new)


def reduce(queue: list[Resting], order: str, size: int) -> None:
    """Take contracts from an order, and the order from the queue if none is left. It keeps its place."""
    for place, each in enumerate(queue):
        if each.order == order:
            left = each.size - size
            queue[place : place + 1] = [msgspec.structs.replace(each, size=left)] if left > 0 else []
            return


def price_time(queue: list[Resting], size: int) -> Fills:
    """Yield who trades how much: the best price first, within a price the oldest first."""
    for each in queue:
        if size <= 0:
            return
        yield each, min(size, each.size)
        size -= each.size


def pro_rata(queue: list[Resting], size: int) -> Fills:
    """Yield who trades how much: within a price in proportion to size, rounded down; the rest of it goes by time."""
    for _, orders in groupby(queue, key=lambda each: each.price):
        level = list(orders)
        total = sum(each.size for each in level)
        wanted = min(size, total)
        left = wanted - sum(wanted * each.size // total for each in level)
        for each in level:
            part = wanted * each.size // total
            more = min(left, each.size - part)
            left -= more
            if part + more:
                yield each, part + more
        size -= wanted
