"""The orders around the trades: drawn, so that each trade finds its price and its size in the book.

Knows: a Poisson flow of orders. Does not know: events, states, the log.

The source has trades and no orders. Each trade becomes an order that comes at its millisecond with its price and size.
The orders that rest are drawn in the shape of Cont, Stoikov & Talreja, "A stochastic model for order book dynamics",
Operations Research 58(3), 2010: limit orders arrive at distance i from the opposite best quote at a rate proportional
to i to the power of -ALPHA, and each resting order is cancelled at a rate of its own. The unit of time is a trade. The
rates are chosen, since the source has no quotes to which they could be fitted. After a trade, orders that the next
price would pass over are cancelled; before it, orders are added for what its size lacks.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from eventfold.demo.exchange.matcher import Instruction, Matcher
from eventfold.demo.exchange.matching import Side
from eventfold.demo.exchange.ticks import SEED, Tick

DISTANCES, ALPHA = 5, 0.52
WEIGHTS = [distance**-ALPHA for distance in range(1, DISTANCES + 1)]
LIMIT_ORDERS = 2.4  # for each trade, on both sides together
CANCELLED = 0.035  # the chance that a resting order is cancelled between two trades
FAR = 10  # ticks from the trade, from which on an order is cancelled
MORE = 0.75  # the chance of one contract more in a limit order: sizes are geometric, 4 on average
SMALL_PART = 0.05  # of the limit orders come from small accounts, whose limit some of them reach
MAKERS, TAKERS, SMALL = ([f"{kind}-{n}" for n in range(1, 9)] for kind in ("maker", "taker", "small"))
LIMITS = dict.fromkeys(MAKERS + TAKERS, 1_000_000) | dict.fromkeys(SMALL, 30)


def instructions(ticks: Iterable[Tick]) -> Iterator[Instruction]:
    """Yield the orders and cancellations around the trades, and an order for each trade, by time."""
    market, since = Market(), None
    for tick in ticks:
        yield from market.until(tick, since or tick.at)
        since = tick.at


class Market:
    """Draws what members send. What rests in the books it asks the second matcher, never the exchange itself."""

    def __init__(self) -> None:
        self._matcher = Matcher(LIMITS)
        self._chance = random.Random(f"{SEED}/orders")  # noqa: S311
        self._count: Counter[str] = Counter()

    def until(self, tick: Tick, since: datetime) -> Iterator[Instruction]:
        """Yield what is sent after the trade before, and then the order of this trade."""
        for given in self._cancellations(tick, since):
            yield self._send(given)
        for at in sorted(self._moment(since, tick.at) for _ in range(self._poisson(LIMIT_ORDERS))):
            yield self._send(self._limit_order(tick, at))
        lacking = tick.size - sum(left for _, left in self._resting(tick, other(tick.side), tick.price))
        if lacking > 0:
            maker, size = self._chance.choice(MAKERS), lacking + self._size()
            yield self._send(self._new(tick, maker, other(tick.side), tick.price, size, tick.at))
        taker = self._new(tick, self._chance.choice(TAKERS), tick.side, tick.price, tick.size, tick.at)
        yield self._send(taker._replace(immediate=True))

    def _send(self, given: Instruction) -> Instruction:
        self._matcher.apply(given)
        return given

    def _new(self, tick: Tick, account: str, side: Side, price: int, size: int, at: datetime) -> Instruction:
        self._count[tick.instrument] += 1
        order = f"{tick.instrument}-{self._count[tick.instrument]}"
        return Instruction("submit", tick.instrument, order, account, side, price, size, at)

    def _resting(self, tick: Tick, side: Side, price: int | None = None) -> list[tuple[Instruction, int]]:
        return [
            (given, left)
            for given, left in self._matcher.live.values()
            if given.instrument == tick.instrument and given.side == side and price in (None, given.price)
        ]

    def _cancellations(self, tick: Tick, at: datetime) -> Iterator[Instruction]:
        """Cancel by chance, and every order that is far away or that the next trade would pass over."""
        up = 1 if tick.side == "buy" else -1
        for side in (tick.side, other(tick.side)):
            for given, _ in self._resting(tick, side):
                beyond = (given.price - tick.price) * up
                passed = beyond >= 0 if side == tick.side else beyond < 0
                if passed or abs(beyond) > FAR or self._chance.random() < CANCELLED:
                    yield given._replace(kind="cancel", at=at)

    def _limit_order(self, tick: Tick, at: datetime) -> Instruction:
        """An order at a distance from the opposite best quote: the trade's price is one of the two quotes."""
        up = 1 if tick.side == "buy" else -1
        side = tick.side if self._chance.random() < 0.5 else other(tick.side)
        distance = self._chance.choices(range(1, DISTANCES + 1), WEIGHTS)[0]
        price = tick.price - up * distance if side == tick.side else tick.price + up * (distance - 1)
        small = self._chance.random() < SMALL_PART
        return self._new(tick, self._chance.choice(SMALL if small else MAKERS), side, price, self._size(), at)

    def _size(self) -> int:
        """A geometric size of at least one contract."""
        return 1 + int(math.log(1.0 - self._chance.random()) / math.log(MORE))

    def _poisson(self, mean: float) -> int:
        """A Poisson number: how many exponential times fit into one."""
        count, elapsed = 0, self._chance.expovariate(mean)
        while elapsed < 1:
            count, elapsed = count + 1, elapsed + self._chance.expovariate(mean)
        return count

    def _moment(self, since: datetime, until: datetime) -> datetime:
        """A whole millisecond between two moments."""
        span = (until - since) // timedelta(milliseconds=1)
        return since + timedelta(milliseconds=int(self._chance.random() * span))


def other(side: Side) -> Side:
    """The side against which this one trades."""
    return "sell" if side == "buy" else "buy"
