"""Events of the exchange: what happens to orders, trades and accounts, as typed facts.

Knows: event classes and their tags. Does not know: states, rules, stores.

Prices are whole ticks of a quarter of an index point, sizes whole contracts. `at` is the exchange's time stamp, which
regulation asks for (RTS 25); it is also the time at which the event occurred.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import eventfold as ef
from eventfold.demo.exchange.matching import Side


class SessionOpened(ef.Event):
    """The first event of the log: which trades are repeated, and with how many instructions."""

    source: str
    instructions: int


class LimitSet(ef.Event):
    """An account may hold and order this many contracts over all instruments."""

    account: ef.Tag
    contracts: int


class OrderSubmitted(ef.Event):
    """An order was accepted, to be traded at this price or a better one; `immediate`: at once or not at all."""

    instrument: ef.Tag
    order: ef.Tag
    account: ef.Tag
    side: Side
    price: int
    size: int
    at: datetime
    immediate: bool = False


class OrderRejected(ef.Event):
    """An order was refused, and why."""

    instrument: ef.Tag
    order: ef.Tag
    account: ef.Tag
    reason: str
    at: datetime


class OrderTraded(ef.Event):
    """The maker rested in the book, the taker came and met it; `side` is the taker's."""

    instrument: ef.Tag
    trade: ef.Tag
    maker: Annotated[str, ef.tag("order")]
    taker: Annotated[str, ef.tag("order")]
    maker_account: Annotated[str, ef.tag("account")]
    taker_account: Annotated[str, ef.tag("account")]
    side: Side
    price: int
    size: int
    at: datetime


class OrderCancelled(ef.Event):
    """What was left of an order was taken out of the book, and why."""

    instrument: ef.Tag
    order: ef.Tag
    account: ef.Tag
    size: int
    reason: str
    at: datetime


class TradeBusted(ef.Event):
    """A trade was declared void: its contracts leave both accounts, the book stays as it is."""

    instrument: ef.Tag
    trade: ef.Tag
    maker_account: Annotated[str, ef.tag("account")]
    taker_account: Annotated[str, ef.tag("account")]
    side: Side
    price: int
    size: int
    at: datetime  # of the trade
    reason: str


class TradingHalted(ef.Event):
    """The instrument takes no orders."""

    instrument: ef.Tag
    reason: str


class TradingResumed(ef.Event):
    """The instrument takes orders again."""

    instrument: ef.Tag
