"""The invoices of the source as events of the shop, with a stock that a policy makes.

Real: orders, credit notes, corrections of the stock, prices. Generated, since the source has no purchases: goods
arrive by an (s, S) policy. At the end of a day a product is ordered when what is there and on its way is less than
the demand of the last two weeks, up to three times that demand; it arrives three days later. What is still short in the
evening is bought in on that day, so the stock is never below zero. Returned goods do not go back into the stock.

Orders and credit notes are events of their own; what left the shop, what arrived, and the lowest prices follow at the
end of each day, in events of up to `PART` products. Knows: invoices, events. Does not know: how figures are checked.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import eventfold as ef
from eventfold.demo.fields import LoadCount, id_from, write
from eventfold.demo.shop.app import Bought
from eventfold.demo.shop.events import (
    PART,
    GoodsReturned,
    OrderLine,
    OrderPlaced,
    PricesSet,
    StockCorrected,
    StockReceived,
    StockShipped,
)
from eventfold.demo.shop.source import LONDON, Invoice, fold, in_utc, invoices, is_goods

Drafts = Iterator[tuple[ef.Draft[Any], int] | None]
OVERLAP = (in_utc(datetime(2010, 12, 1)), in_utc(datetime(2010, 12, 10)))  # the days of both sheets
EVENING, MORNING = time(22), time(5)
DEMAND_DAYS, UP_TO, DELIVERY_DAYS = 14, 3, 3
NOT_GOODS = "without a price, of what is not kept in stock"


class Warehouse:
    """The stock as the policy makes it: what is there, what is on its way, the demand of two weeks."""

    def __init__(self) -> None:
        self.on_hand: Counter[str] = Counter()
        self.coming: deque[tuple[date, dict[str, int]]] = deque()
        self.ordered: Counter[str] = Counter()
        self.days: deque[tuple[date, Counter[str]]] = deque()
        self.demand: Counter[str] = Counter()

    def arrivals(self, day: date) -> dict[str, int]:
        """Take in what arrives by a day."""
        found: Counter[str] = Counter()
        while self.coming and self.coming[0][0] <= day:
            found.update(self.coming.popleft()[1])
        self.on_hand.update(found)
        self.ordered.subtract(found)
        return dict(found)

    def shortage(self, shipped: Mapping[str, int]) -> dict[str, int]:
        """Buy in what is missing for a day's shipments."""
        short = {code: pieces - self.on_hand[code] for code, pieces in shipped.items() if pieces > self.on_hand[code]}
        self.on_hand.update(short)
        return short

    def ship(self, day: date, shipped: Counter[str]) -> None:
        """Take a day's shipments, and order what runs low."""
        self.on_hand.subtract(shipped)
        self.days.append((day, shipped))
        self.demand.update(shipped)
        while self.days[0][0] <= day - timedelta(days=DEMAND_DAYS):
            self.demand.subtract(self.days.popleft()[1])
        wanted: dict[str, int] = {}
        for code in shipped:
            there, demand = self.on_hand[code] + self.ordered[code], self.demand[code]
            if there < demand:
                wanted[code] = UP_TO * demand - there
        if wanted:
            self.coming.append((day + timedelta(days=DELIVERY_DAYS), wanted))
            self.ordered.update(wanted)


class History:
    """Makes the events of invoices, in their order, and those of each day at its end."""

    def __init__(self, count: LoadCount) -> None:
        self.count = count
        self.stock = Warehouse()
        self.customers: dict[str, Bought] = {}
        self.known: dict[str, ef.Draft[Any]] = {}  # of both sheets, for the second copies
        self.corrected: set[str] = set()
        self.shipped: Counter[str] = Counter()
        self.prices: dict[str, Decimal] = {}  # the lowest of the day
        self.before: dict[str, Decimal] = {}  # the lowest of the last day on which it was sold

    def drafts(self, given: Iterable[Invoice], is_whole: bool) -> Drafts:
        """Yield the events, each with the number of rows it stands for. `is_whole`: the last day is complete."""
        today: date | None = None
        for invoice in given:
            if invoice.number in self.known:
                yield self.known[invoice.number], len(invoice.lines)
                continue
            if invoice.number in self.corrected:
                self.count.repeated += len(invoice.lines)
                continue
            day = invoice.at.astimezone(LONDON).date()
            if day != today:
                if today is not None:
                    yield from self.evening(today)
                    yield None  # a moment of the log is a whole append: each day begins with one
                today = day
                yield from self.stock_events(StockReceived, self.stock.arrivals(day), day, MORNING, "delivered")
            yield from self.drafts_of(invoice)
        if today is not None and is_whole:
            yield from self.evening(today)

    def drafts_of(self, invoice: Invoice) -> Drafts:
        """The events of one invoice."""
        if not invoice.is_priced:
            self.corrected.add(invoice.number)
            yield from self.corrections(invoice)
            return
        event = returned_of(invoice) if invoice.is_credit else order_of(invoice)
        if event.customer is not None:
            bought = self.customers.setdefault(event.customer, Bought(event.customer))
            if isinstance(event, GoodsReturned):
                excess = tuple(filter(is_goods, bought.excess(event)))
                event = GoodsReturned(event.note, event.customer, event.country, event.lines, excess)
            bought.evolve(event)
        if isinstance(event, OrderPlaced):
            self.note_sales(event)
        made = draft(event, invoice.at, invoice.number)
        if OVERLAP[0] <= invoice.at <= OVERLAP[1]:
            self.known[invoice.number] = made
        yield made, len(invoice.lines)

    def note_sales(self, event: OrderPlaced) -> None:
        """Add an order to the day's shipments and lowest prices."""
        for line in event.lines:
            if is_goods(line.product) and line.pieces > 0:
                self.shipped[line.product] += line.pieces
                if line.price:
                    self.prices[line.product] = min(line.price, self.prices.get(line.product, line.price))

    def corrections(self, invoice: Invoice) -> Drafts:
        """The corrections of the stock; of pieces that cannot be there only those that are there."""
        for number, line in enumerate(invoice.lines):
            if not is_goods(line.code):
                self.count.reject(NOT_GOODS)
                continue
            code = fold(line.code)
            pieces = max(line.quantity, -self.stock.on_hand[code])
            self.stock.on_hand[code] += pieces
            event = StockCorrected((code,), (pieces,), line.quantity, line.words)
            yield draft(event, invoice.at, invoice.number, number), 1

    def evening(self, day: date) -> Drafts:
        """What left the shop in a day, what had to be bought in for it, and the prices that changed."""
        shipped, self.shipped = self.shipped, Counter()
        yield from self.stock_events(StockReceived, self.stock.shortage(shipped), day, EVENING, "bought in")
        yield from self.stock_events(StockShipped, shipped, day, EVENING, "")
        self.stock.ship(day, shipped)
        changed = {code: price for code, price in self.prices.items() if self.before.get(code) != price}
        self.before.update(self.prices)
        self.prices = {}
        for number, part in enumerate(parts_of(changed)):
            event = PricesSet(day, tuple(part), tuple(part.values()))
            yield draft(event, at(day, MORNING), "prices", number), 0

    def stock_events(
        self, kind: type[StockReceived] | type[StockShipped], moved: Mapping[str, int], day: date, hour: time, why: str
    ) -> Drafts:
        """Events of moved pieces, up to `PART` products each."""
        for number, part in enumerate(parts_of(moved)):
            event: StockReceived | StockShipped
            if kind is StockShipped:
                event = StockShipped(day.isoformat(), tuple(part), tuple(part.values()))
            else:
                event = StockReceived(tuple(part), tuple(part.values()), why)
            yield draft(event, at(day, hour), why, number), 0


def load(store: ef.Store, limit: int | None = None, progress: Callable[[int], None] | None = None) -> LoadCount:
    """Load the first `limit` lines of the source (None: all); what is in the log is not written again."""
    count = LoadCount()
    history = History(count)
    write(store, history.drafts(invoices(count, limit), limit is None), count, progress=progress)
    return count


def draft(event: Any, occurred: datetime, *parts: object) -> ef.Draft[Any]:
    """An event with an id from the source."""
    return ef.Draft(event, id=id_from(occurred, "shop", type(event).__name__, *parts), occurred=occurred)


def at(day: date, hour: time) -> datetime:
    """A time of a day in London, in UTC."""
    return in_utc(datetime.combine(day, hour))


def parts_of(given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The entries in the order of their keys, `PART` at a time."""
    entries = sorted(given.items())
    return (dict(entries[first : first + PART]) for first in range(0, len(entries), PART))


def order_of(invoice: Invoice) -> OrderPlaced:
    """The order of an invoice."""
    lines = tuple(OrderLine(fold(line.code), line.quantity, line.price) for line in invoice.lines)
    return OrderPlaced(invoice.number, invoice.customer, invoice.country, lines)


def returned_of(invoice: Invoice) -> GoodsReturned:
    """The goods of a credit note, with positive pieces."""
    lines = tuple(OrderLine(fold(line.code), -line.quantity, line.price) for line in invoice.lines)
    return GoodsReturned(invoice.number, invoice.customer, invoice.country, lines)
