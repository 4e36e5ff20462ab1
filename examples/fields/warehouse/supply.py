"""Purchasing: eight suppliers, their lead times and the lots they send. **Generated**: the source has demand only.

Knows: the policy and its parameters, chosen here. Does not know: stores, the source's file.

- A product's supplier is chosen by a hash of its code. Median lead times are 10 to 56 days, log-normal with sigma 0.3.
- Each Monday at six: if what is there and on its way, less what waits, is below the demand of lead time + 28 days (as
  in the last four weeks), so much is ordered that it lasts for lead time + 56 days, in dozens.
- 2 % of the lots arrive a tenth short. A product begins with a lot of twice the sales of its first 28 days.
- Supplier S5 sends nothing from 2011-03-11 to 05-10: the dates of an earthquake, the effect is chosen. What is ordered
  meanwhile leaves when it reopens.

Each order draws from a seed of its own, `20091201/LOT`, so that a change in one supplier leaves the others as they are.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import random
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from statistics import NormalDist
from typing import Any, NamedTuple

import eventfold as ef
from examples.fields.warehouse.app import Lot, Shelf, StockFound, receive, ship, write_off

SEED = 20091201
DAY = timedelta(days=1)
WEEK = 7 * DAY
LAUNCH = 28 * DAY
MEDIAN_DAYS = (10, 14, 21, 28, 35, 42, 49, 56)
SPREAD = 0.3  # sigma of the log-normal lead times
SHORT_SHARE = 0.02
DOZEN = 12
CLOSED: Mapping[str, tuple[datetime, datetime]] = {"S5": (datetime(2011, 3, 11), datetime(2011, 5, 10))}
_NORMAL = NormalDist()


class StockOrdered(ef.Event):
    """A lot was ordered from a supplier."""

    lot: ef.Tag
    product: ef.Tag
    supplier: ef.Tag
    units: int


class SupplierClosed(ef.Event):
    """A supplier sends nothing from now on."""

    supplier: ef.Tag


class SupplierReopened(ef.Event):
    """A supplier sends goods again."""

    supplier: ef.Tag


class Move(NamedTuple):
    """A line of an order (`reason` is None), or a correction of the stock with the words of those who counted."""

    at: datetime
    document: str
    customer: str
    product: str
    units: int
    reason: str | None = None


class Happened(NamedTuple):
    """Events of one decision, at a time of the shop's clock; `of` is the move that they follow from, if any."""

    at: datetime
    events: Sequence[Any]
    of: Move | None = None


class Ordered(NamedTuple):
    """A lot on its way. `units` will arrive of what was `wanted`."""

    arrives: datetime
    lot: str
    product: str
    units: int
    wanted: int


@cache
def supplier_of(product: str) -> str:
    """The supplier of a product."""
    return f"S{hashlib.sha256(product.encode()).digest()[0] % len(MEDIAN_DAYS)}"


class Warehouse:
    """The history of the warehouse, decided move after move by the rules of app.py, over shelves in memory."""

    def __init__(self, moves: Sequence[Move], closed: Mapping[str, tuple[datetime, datetime]] = CLOSED) -> None:
        self._moves, self._closed = moves, closed
        self.shelves: dict[str, Shelf] = {}
        self.on_its_way: list[Ordered] = []
        self._units_on_its_way: defaultdict[str, int] = defaultdict(int)
        self._recent: dict[str, deque[tuple[datetime, int]]] = {}
        self._found = Counter[str]()
        self._launch = launch_sales(moves)

    def history(self) -> Iterator[Happened]:
        """Yield what happens, in order of time; call it once."""
        if not self._moves:
            return
        notices = _notices(self._closed, self._moves[-1].at)
        review = first_review(self._moves[0].at)
        for move in self._moves:
            while review <= move.at:
                while notices and notices[0].at <= review:
                    yield from self._arrivals(notices[0].at)
                    yield notices.pop(0)
                yield from self._arrivals(review)
                yield from self._review(review)
                review += WEEK
            while notices and notices[0].at <= move.at:
                yield from self._arrivals(notices[0].at)
                yield notices.pop(0)
            yield from self._arrivals(move.at)
            yield from self._decide(move)

    def _decide(self, move: Move) -> Iterator[Happened]:
        """Carry out a line of an order, or a correction."""
        product, shelf = move.product, self._shelf(move.product)
        if move.reason is None:
            if (sold := self._launch.pop(product, 0)) > 0:
                yield self._happens(move.at, receive(shelf, Lot(f"OPEN-{product}"), 2 * sold))
            self._recent.setdefault(product, deque()).append((move.at, move.units))
            yield self._happens(move.at, ship(shelf, move.document, move.units, move.customer), move)
        elif move.units > 0:
            lot = f"FOUND-{move.document}-{product}"
            self._found[lot] += 1
            found = StockFound(f"{lot}-{self._found[lot]}", product, move.units, move.reason)
            yield self._happens(move.at, [found], move)
        else:
            yield self._happens(move.at, write_off(shelf, -move.units, move.document, move.reason), move)

    def _arrivals(self, now: datetime) -> Iterator[Happened]:
        """Receive the lots that arrived until now."""
        while self.on_its_way and self.on_its_way[0].arrives <= now:
            due = heapq.heappop(self.on_its_way)
            self._units_on_its_way[due.product] -= due.wanted
            received = receive(self._shelf(due.product), Lot(due.lot), due.units, due.wanted)
            yield self._happens(due.arrives, received)

    def _review(self, now: datetime) -> Iterator[Happened]:
        """Order what will be short."""
        for product in sorted(self._recent):
            recent = self._recent[product]
            while recent and recent[0][0] < now - LAUNCH:
                recent.popleft()
            daily = sum(units for _, units in recent) / LAUNCH.days
            days, shelf = median_days(product), self._shelf(product)
            there = sum(shelf.lots.values()) - sum(units for _, _, units in shelf.waiting)
            there += self._units_on_its_way[product]
            if there < daily * (days + 28):
                wanted = math.ceil((daily * (days + 56) - there) / DOZEN) * DOZEN
                yield self._order(now, product, wanted)

    def _order(self, now: datetime, product: str, wanted: int) -> Happened:
        lot, supplier = f"{product}-{now:%y%m%d}", supplier_of(product)
        draw = random.Random(f"{SEED}/{lot}")  # noqa: S311 (a simulation)
        days = median_days(product) * math.exp(SPREAD * _NORMAL.inv_cdf(draw.random() or 0.5))
        units = wanted if draw.random() >= SHORT_SHARE else wanted * 9 // 10
        since, until = self._closed.get(supplier, (now, now))
        arrives = (until if since <= now < until else now) + timedelta(hours=round(24 * days))
        self._units_on_its_way[product] += wanted
        heapq.heappush(self.on_its_way, Ordered(arrives, lot, product, units, wanted))
        return Happened(now, [StockOrdered(lot, product, supplier, wanted)])

    def _happens(self, at: datetime, events: Sequence[Any], of: Move | None = None) -> Happened:
        for event in events:
            self._shelf(event.product).evolve(event)
        return Happened(at, events, of)

    def _shelf(self, product: str) -> Shelf:
        shelf = self.shelves.get(product)
        if shelf is None:
            shelf = self.shelves[product] = Shelf(product)
        return shelf


def launch_sales(moves: Iterable[Move]) -> dict[str, int]:
    """The units of each product that were ordered within four weeks of its first order: the buyer's plan."""
    first: dict[str, datetime] = {}
    sold: dict[str, int] = {}
    for move in moves:
        if move.reason is None and move.at < first.setdefault(move.product, move.at) + LAUNCH:
            sold[move.product] = sold.get(move.product, 0) + move.units
    return sold


def first_review(first: datetime) -> datetime:
    """The first Monday at six on or after the day of the first move."""
    morning = first.replace(hour=6, minute=0, second=0)
    return morning + (7 - morning.weekday()) % 7 * DAY


@cache
def median_days(product: str) -> int:
    """The median lead time of the product's supplier."""
    return MEDIAN_DAYS[int(supplier_of(product)[1:])]


def _notices(closed: Mapping[str, tuple[datetime, datetime]], last: datetime) -> list[Happened]:
    """The closures and reopenings until the last move, in order of time."""
    found = [Happened(since, [SupplierClosed(supplier)]) for supplier, (since, _) in closed.items()]
    found += [Happened(until, [SupplierReopened(supplier)]) for supplier, (_, until) in closed.items()]
    return sorted((each for each in found if each.at <= last), key=lambda each: each.at)
