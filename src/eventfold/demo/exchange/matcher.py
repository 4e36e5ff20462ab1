"""A second matcher, which knows no events: it replays instructions, and must make the same trades in the same order.

Knows: heaps of orders by price and number. Does not know: the log, states, the decisions that it is compared with.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import datetime
from heapq import heappop, heappush
from typing import Literal, NamedTuple

from eventfold.demo.exchange.matching import Side


class Instruction(NamedTuple):
    """What a member sends: a new order, or the cancellation of an earlier one."""

    kind: Literal["submit", "cancel"]
    instrument: str
    order: str
    account: str
    side: Side
    price: int
    size: int
    at: datetime
    immediate: bool = False  # what cannot trade at once is cancelled


class MatchedTrade(NamedTuple):
    """A trade, as both matchers must make it."""

    maker: str
    taker: str
    price: int
    size: int


class Matcher:
    """The books of all instruments, and what each account has; `live` are the orders that rest, with their size."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self.live: dict[str, tuple[Instruction, int]] = {}
        self.rejected: list[str] = []
        self._limits = limits
        self._heaps: dict[tuple[str, Side], list[tuple[int, int, str]]] = defaultdict(list)
        self._held: dict[str, Counter[str]] = defaultdict(Counter)
        self._open: Counter[str] = Counter()
        self._number = 0

    def apply(self, given: Instruction) -> list[MatchedTrade]:
        """Carry out an instruction, and return the trades that it makes."""
        if given.kind == "cancel":
            if given.order in self.live:
                self._take(given.order, self.live[given.order][1])
            return []
        used = sum(abs(held) for held in self._held[given.account].values()) + self._open[given.account]
        if used + given.size > self._limits[given.account]:
            self.rejected.append(given.order)
            return []
        trades, left = self._match(given)
        if left and not given.immediate:
            self._number += 1
            key = -given.price if given.side == "buy" else given.price
            heappush(self._heaps[given.instrument, given.side], (key, self._number, given.order))
            self.live[given.order] = given, left
            self._open[given.account] += left
        return trades

    def _match(self, given: Instruction) -> tuple[list[MatchedTrade], int]:
        trades: list[MatchedTrade] = []
        left, sign = given.size, 1 if given.side == "buy" else -1
        opposite: Side = "sell" if given.side == "buy" else "buy"
        for order, (resting, size) in list(self.live.items()):  # an account does not trade with itself
            same = (resting.account, resting.instrument, resting.side) == (given.account, given.instrument, opposite)
            if same and resting.price * sign <= given.price * sign:
                self._take(order, size)
        heap = self._heaps[given.instrument, opposite]
        while left and heap and heap[0][0] <= given.price * sign:
            maker = heap[0][2]
            if maker not in self.live:
                heappop(heap)
                continue
            resting, size = self.live[maker]
            part = min(left, size)
            self._take(maker, part)
            self._held[resting.account][given.instrument] -= sign * part
            self._held[given.account][given.instrument] += sign * part
            trades.append(MatchedTrade(maker, given.order, resting.price, part))
            left -= part
        return trades, left

    def _take(self, order: str, size: int) -> None:
        given, left = self.live[order]
        self._open[given.account] -= size
        if left > size:
            self.live[order] = given, left - size
        else:
            del self.live[order]
