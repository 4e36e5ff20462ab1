"""The busiest day again, by 32 tasks at once, with the stock of that morning: reserve, pay, or release everything.

The orders are real; how the provider answers is generated: of a hundred orders about four are refused and three get no
answer, by the digest of the order's number. Knows: decisions, the process of payment. Does not know: the source.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

import msgspec

import eventfold as ef
from eventfold.demo.fields.contention import ATTEMPTS, TASKS
from eventfold.demo.shop.app import Moved, Order, Refused, Stock, abandon, place, reserve
from eventfold.demo.shop.events import (
    PART,
    OrderPlaced,
    PartReleased,
    PartReserved,
    PaymentAuthorised,
    PaymentRefused,
    StockCorrected,
    StockReceived,
    StockShipped,
)
from eventfold.demo.shop.payment import Payment, answer, request_payment

PATIENCE = timedelta(minutes=16)  # after which an unanswered payment has timed out
REFUSED_PERCENT, SILENT_PERCENT = 4, 3
PAYMENT_WORDS = {"shop.PaymentTimedOut": "timed out"}


class Day(msgspec.Struct):
    """What became of the orders of a day. `parts` were reserved in all, `released` of them again."""

    orders: int = 0
    lines: int = 0
    sold_out: int = 0
    parts: int = 0
    released: int = 0
    decisions: int = 0
    conflicts: int = 0
    payments: dict[str, int] = {}
    below_zero: list[str] = []
    held_by_cancelled: int = 0


def replay(url: str, orders: Sequence[OrderPlaced], morning: dict[str, int], tasks: int = TASKS) -> Day:
    """Sell a day's orders into a new store at `url`, from the stock of the morning. Raises what decisions raise."""
    day = Day(orders=len(orders), lines=sum(len(order.lines) for order in orders))
    with ef.Store(url) as store:
        stocked = sorted(morning.items())
        for first in range(0, len(stocked), PART):
            part = dict(stocked[first : first + PART])
            store.append(StockReceived(tuple(part), tuple(part.values()), "on hand in the morning"))
    asyncio.run(_sell(url, orders, day, tasks))
    with ef.Store(url) as store:
        pay(store, [order.order for order in orders])
        _count(store, day)
    return day


async def _sell(url: str, orders: Sequence[OrderPlaced], day: Day, tasks: int) -> None:
    queue = iter(orders)
    async with ef.AsyncStore(url, create=False) as store:
        await asyncio.gather(*[_work(store.using(attempts=ATTEMPTS), queue, day) for _ in range(tasks)])


async def _work(store: ef.AsyncStore, queue: Iterator[OrderPlaced], day: Day) -> None:
    for placed in queue:
        if not await check_out(store, placed, day):
            day.sold_out += 1


async def check_out(store: ef.AsyncStore, placed: OrderPlaced, day: Day | None = None) -> bool:
    """Place an order, reserve it part by part, and ask for its payment; if one part is refused, release all parts.

    Returns whether it was reserved. A part has at most `PART` products: an event has no place for more tags.
    """
    await store.decide(place, Order(placed.order), placed)
    order = await store.state(Order(placed.order))
    try:
        for number, part in enumerate(order.parts()):
            done = await store.decide(reserve, Order(placed.order), Stock(tuple(part)), number)
            if day is not None:
                day.decisions += 1
                day.conflicts += max(0, done.attempts - 1)
    except Refused as refused:
        await store.decide(abandon, Order(placed.order), str(refused))
        return False
    await store.decide(request_payment, Order(placed.order))
    return True


def pay(store: ef.Store, orders: Iterable[str]) -> None:
    """Let the provider answer for each order that waits, then let the time of the others run out."""
    for order in orders:
        said = answer_of(order)
        if said is not None:
            store.decide(answer, Order(order), said)
    store.run_until_idle(Payment)
    newest = next(iter(store.read(backwards=True, limit=1)))
    later = int((newest.time + PATIENCE).timestamp() * 1_000_000)
    store.run_until_idle(Payment, clock=lambda: later)


def answer_of(order: str) -> PaymentAuthorised | PaymentRefused | None:
    """What the generated provider says about an order; None if it never answers."""
    digest = hashlib.sha256(order.encode()).digest()
    share = int.from_bytes(digest[:4]) % 100
    if share < REFUSED_PERCENT:
        return PaymentRefused(order, "insufficient funds")
    return None if share < REFUSED_PERCENT + SILENT_PERCENT else PaymentAuthorised(order, digest.hex()[:12])


def _count(store: ef.Store, day: Day) -> None:
    """Read the result from the log."""
    day.below_zero = oversold(store)
    day.parts = store.count(ef.Query.of(types=[PartReserved]))
    day.released = store.count(ef.Query.of(types=[PartReleased]))
    kinds = Counter[str]()
    for each in store.types():
        if each.type.startswith("shop.Payment"):
            kinds[PAYMENT_WORDS.get(each.type, each.type.removeprefix("shop.Payment").lower())] = each.count
    day.payments = dict(kinds)
    numbers = [recorded.event.order for recorded in store.read(ef.Query.of(types=[OrderPlaced]))]
    states = [store.state(Order(number)) for number in numbers]
    day.held_by_cancelled = sum(order.is_cancelled and bool(order.reserved) for order in states)


def oversold(store: ef.Store) -> list[str]:
    """Follow the pieces of every product through the whole log: a sentence for each time that they are below zero."""
    on_hand: Counter[str] = Counter()
    found: list[str] = []
    kinds = [StockReceived, StockShipped, StockCorrected, PartReserved, PartReleased]
    for recorded in store.read(ef.Query.of(types=kinds)):
        event: Moved = recorded.event
        sign = -1 if isinstance(event, StockShipped | PartReserved) else 1
        for product, pieces in zip(event.product, event.pieces, strict=True):
            on_hand[product] += sign * pieces
            if on_hand[product] < 0:
                found.append(f"event {recorded.position:,}: {product} is at {on_hand[product]:,}")
    return found
