"""A futures exchange: orders match by price, then by time, and no account exceeds its limit over all instruments.

Knows: states, decisions, read models; the events are in events.py, the rules of allocation in matching.py. Does not
know: where orders come from, how results are shown.
"""

from __future__ import annotations

from datetime import datetime

import eventfold as ef
from eventfold.demo.exchange.events import (
    LimitSet,
    OrderCancelled,
    OrderRejected,
    OrderSubmitted,
    OrderTraded,
    TradeBusted,
    TradingHalted,
    TradingResumed,
)
from eventfold.demo.exchange.matching import Resting, Rule, Side, insert, price_time, reaches, reduce


class Book(ef.State):
    """The orders of an instrument: on each side the best price first, and within a price the oldest first."""

    instrument: ef.Tag
    buy: list[Resting] = []
    sell: list[Resting] = []
    halted: bool = False

    def evolve(self, event: OrderSubmitted | OrderTraded | OrderCancelled | TradingHalted | TradingResumed) -> None:
        """Put an order into its queue, or take contracts out of it."""
        match event:
            case OrderSubmitted(side=side):
                insert(self.queue(side), side, Resting(event.order, event.account, event.price, event.size))
            case OrderTraded(side=side):
                reduce(self.queue(side), event.taker, event.size)
                reduce(self.opposite(side), event.maker, event.size)
            case OrderCancelled():
                reduce(self.buy, event.order, event.size)
                reduce(self.sell, event.order, event.size)
            case _:
                self.halted = isinstance(event, TradingHalted)

    def queue(self, side: Side) -> list[Resting]:
        """The orders of a side."""
        return self.buy if side == "buy" else self.sell

    def opposite(self, side: Side) -> list[Resting]:
        """The orders with which one of this side trades."""
        return self.sell if side == "buy" else self.buy


class Account(ef.State):
    """An account over all instruments: contracts held, and contracts of its open orders."""

    account: ef.Tag
    limit: int = 0
    positions: dict[str, int] = {}
    open: dict[str, int] = {}

    def evolve(self, event: LimitSet | OrderSubmitted | OrderTraded | OrderCancelled | TradeBusted) -> None:
        """Count what the account holds and what it has open."""
        match event:
            case LimitSet():
                self.limit = event.contracts
            case OrderSubmitted():
                self.open[event.order] = event.size
            case OrderCancelled():
                self._close(event.order, event.size)
            case OrderTraded() | TradeBusted():
                taken = event.size if (event.side == "buy") == isinstance(event, OrderTraded) else -event.size
                change = taken * ((event.taker_account == self.account) - (event.maker_account == self.account))
                self.positions[event.instrument] = self.positions.get(event.instrument, 0) + change
                if isinstance(event, OrderTraded):
                    self._close(event.maker, event.size)
                    self._close(event.taker, event.size)

    def _close(self, order: str, size: int) -> None:
        if order in self.open:
            self.open[order] -= size
            if self.open[order] <= 0:
                del self.open[order]

    def allows(self, size: int) -> bool:
        """Whether another order of this size stays within the limit over all instruments."""
        return sum(map(abs, self.positions.values())) + sum(self.open.values()) + size <= self.limit


class Trade(ef.State):
    """One trade, and whether it was declared void."""

    trade: ef.Tag
    made: OrderTraded | None = None
    busted: bool = False

    def evolve(self, event: OrderTraded | TradeBusted) -> None:
        """Remember the trade, and whether it stands."""
        if isinstance(event, OrderTraded):
            self.made = event
        else:
            self.busted = True


def submit(
    book: Book,
    account: Account,
    order: str,
    side: Side,
    price: int,
    size: int,
    at: datetime,
    immediate: bool = False,
    rule: Rule = price_time,
) -> list[ef.Draft]:
    """Reject an order, or match it by the rule; what is left rests in the book, unless it is `immediate`."""
    instrument, own = book.instrument, account.account
    if book.halted or size <= 0 or not account.allows(size):
        reason = "trading is halted" if book.halted else "size" if size <= 0 else "limit over all instruments"
        return [ef.Draft(OrderRejected(instrument, order, own, reason, at), occurred=at)]
    events: list[ef.Event] = [OrderSubmitted(instrument, order, own, side, price, size, at, immediate)]
    matched = [each for each in book.opposite(side) if reaches(side, price, each.price)]
    # An account does not trade with itself: its older orders give way.
    gone = [each for each in matched if each.account == own]
    events += [OrderCancelled(instrument, each.order, own, each.size, "self-trade", at) for each in gone]
    left = size
    for number, (maker, part) in enumerate(rule([each for each in matched if each.account != own], size), start=1):
        trade = f"{order}.{number}"
        events.append(
            OrderTraded(instrument, trade, maker.order, order, maker.account, own, side, maker.price, part, at)
        )
        left -= part
    if left and immediate:
        events.append(OrderCancelled(instrument, order, own, left, "immediate or cancel", at))
    return [ef.Draft(each, occurred=at) for each in events]


def cancel(book: Book, account: Account, order: str, at: datetime) -> list[ef.Draft]:
    """Take what is left of an own order out of the book; nothing if it has traded meanwhile."""
    left = next((each for each in (*book.buy, *book.sell) if each.order == order), None)
    if left is None or left.account != account.account:
        return []
    event = OrderCancelled(book.instrument, order, left.account, left.size, "by the account", at)
    return [ef.Draft(event, occurred=at)]


def halt(book: Book, reason: str) -> list[TradingHalted]:
    """Stop trading in an instrument; its orders stay in the book."""
    return [] if book.halted else [TradingHalted(book.instrument, reason)]


def resume(book: Book) -> list[TradingResumed]:
    """Let orders trade again."""
    return [TradingResumed(book.instrument)] if book.halted else []


def bust(trade: Trade, reason: str) -> list[TradeBusted]:
    """Declare a trade void, once."""
    made = trade.made
    if made is None or trade.busted:
        return []
    accounts = made.maker_account, made.taker_account
    return [TradeBusted(made.instrument, trade.trade, *accounts, made.side, made.price, made.size, made.at, reason)]


class Minute(ef.Projection, name="exchange_minute"):
    """The trades of an instrument within a minute that stand; `value` is the sum of price times size."""

    instrument: str
    minute: datetime
    trades: int = 0
    volume: int = 0
    value: int = 0

    @staticmethod
    def key(event: OrderTraded | TradeBusted) -> tuple[str, datetime]:
        """The minute of the trade, also if it is busted later."""
        return event.instrument, event.at.replace(second=0, microsecond=0)

    def evolve(self, event: OrderTraded | TradeBusted) -> None:
        """Count a trade, or take a busted one out again."""
        sign = 1 if isinstance(event, OrderTraded) else -1
        self.trades += sign
        self.volume += sign * event.size
        self.value += sign * event.size * event.price
