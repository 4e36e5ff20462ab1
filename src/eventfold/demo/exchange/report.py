"""The exchange's results as lines of a terminal of 80 columns: the ladder, the story of an order, two rules compared.

Knows: text. Does not know: how results are found.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING

from eventfold.demo.exchange.app import Book, Minute
from eventfold.demo.exchange.events import OrderCancelled, OrderTraded
from eventfold.demo.exchange.matching import Resting
from eventfold.demo.exchange.replay import WhatIf
from eventfold.demo.exchange.ticks import CHICAGO, NEAR
from eventfold.demo.fields.report import bars, heading, numbers, table

if TYPE_CHECKING:
    from eventfold.demo.exchange.check import OrderStory, Rush

LEVELS = 5  # of the ladder, on each side
BAR = 26  # columns
SHOWN = 8  # lines of a list


def points(price: float) -> str:
    """A price in index points: four ticks are one."""
    return f"{price / 4:,.2f}"


def counted(counts: Mapping[str, int], minutes: Sequence[Minute]) -> list[str]:
    """The numbers of events, and contracts and mean price of each minute."""
    kinds = ("OrderSubmitted", "OrderTraded", "OrderCancelled", "OrderRejected")
    near = [each for each in sorted(minutes, key=lambda each: each.minute) if each.instrument == NEAR]
    names = {
        each.minute: f"{each.minute.astimezone(CHICAGO):%H:%M}  {points(each.value / each.volume)}" for each in near
    }
    return [
        *numbers({kind.removeprefix("Order").lower(): counts.get(kind, 0) for kind in kinds}),
        "",
        f"Contracts of {NEAR} by minute, each after its mean price by volume:",
        *bars({names[each.minute]: each.volume for each in near[:SHOWN]}),
    ]


def ladder(book: Book) -> list[str]:
    """The levels of a book: who buys left, who sells right, the best prices in the middle."""
    bids, asks = _levels(book.buy), _levels(book.sell)
    most = max([size for _, size, _ in (*bids, *asks)] or [1])
    lines = [f"{'bids':>{BAR + 8}}  {'price':^9}  asks"]
    for price, size, orders in reversed(asks):
        lines.append(f"{'':{BAR + 8}}  {points(price):^9}  {_bar(size, most)} {size} in {orders}")
    for price, size, orders in bids:
        words = f"{size} in {orders} {_bar(size, most)}"
        lines.append(f"{words:>{BAR + 8}}  {points(price):^9}".rstrip())
    return lines


def _levels(queue: Sequence[Resting]) -> list[tuple[int, int, int]]:
    """Price, contracts and number of orders of the best levels."""
    levels = [(price, list(orders)) for price, orders in groupby(queue, key=lambda each: each.price)]
    return [(price, sum(each.size for each in orders), len(orders)) for price, orders in levels[:LEVELS]]


def _bar(size: int, most: int) -> str:
    return "█" * max(1, round(size / most * (BAR - 6)))


def story(found: OrderStory, other: WhatIf) -> list[str]:
    """An order, those ahead of it, its later events, and what it would have traded under the other rule."""
    own = found.order
    lines = [
        f"{own.account} bids for {own.size} at {points(own.price)}; ahead of it at this price: "
        + (f"{sum(each.size for each in found.ahead)} contracts" if found.ahead else "nothing")
    ]
    lines += [f"  {each.order:<12} {each.account:<9} {each.size:>4} contracts" for each in found.ahead[:SHOWN]]
    for event in found.events[:SHOWN]:
        match event:
            case OrderTraded():
                lines.append(f"{_clock(event.at)}  traded {event.size} with {event.taker_account} ({event.taker})")
            case OrderCancelled():
                lines.append(f"{_clock(event.at)}  cancelled with {event.size} left: {event.reason}")
            case _:
                lines.append(f"{_clock(event.at)}  {type(event).__name__}")
    if not found.events:
        lines.append("It rests until the end of the session.")
    _, would = other.different.get(own.order, (0, None))
    instead = "as many contracts" if would is None else f"{would} contracts"
    return [*lines, f"Under pro-rata it would have traded {instead} in all."]


def _clock(at: datetime) -> str:
    return f"{at.astimezone(CHICAGO):%H:%M:%S.%f}"[:-3]


def differences(found: WhatIf) -> list[str]:
    """The resting orders that would have traded more or less."""
    was, would = found.contracts
    more = sorted(found.different.items(), key=lambda each: (-abs(each[1][1] - each[1][0]), each[0]))[:SHOWN]
    return [
        f"{found.trades[0]:,} trades of {was:,} contracts; under pro-rata {found.trades[1]:,} trades of {would:,}.",
        f"{len(found.different):,} resting orders would have traded more or less, most of all:",
        *table(("order", "price-time", "pro-rata"), [(order, *both) for order, both in more]),
    ]


def rushes(held: Rush, broken: Rush, offered: int) -> list[str]:
    """What 32 tasks met, with the condition of a decision and without it."""
    return [
        f"by store.decide:        {held.sold:>2} of {offered} sold to {held.contention.tasks} tasks at once",
        f"without its condition:  {broken.sold:>2} of {offered} sold, by the same function over the same book",
    ]


def explore(url: str, is_real: bool) -> list[str]:
    """Commands to explore the store with, and where the trades come from."""
    demo, store = "eventfold.demo.exchange", shlex.quote(url)
    source = [] if is_real else ["The trades are drawn. For real ones: eventfold demo fetch emini, and a new store."]
    return [
        *heading("Explore the store"),
        f"eventfold state {store} {demo}:Book {NEAR} \\",
        "    --occurred-until 2013-09-03T10:30:07.123-05:00",
        f"eventfold read {store} --tag order:{NEAR}-1",
        f"eventfold history {store} {demo}:Account small-1",
        *source,
    ]
