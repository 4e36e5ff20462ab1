"""A warehouse: goods arrive in lots, and no unit leaves that is not there.

    store.decide(receive, Shelf("85123A"), Lot("85123A-091214"), units=11_172)
    store.decide(ship, Shelf("85123A"), order="489434", units=6, customer="13085")

The oldest lot leaves first, a recalled one never. What is not there waits: the line is backordered, and shipped when
the next lot of its product arrives. If more is written off than the books have, the books say so.
Knows: the trade's events, rules and read models. Does not know: purchasing (supply.py), the source.
"""

from __future__ import annotations

import eventfold as ef


class LotReceived(ef.Event):
    lot: ef.Tag
    product: ef.Tag
    units: int
    ordered: int | None = None  # more than `units`: the lot is short; None: the stock with which a product began


class LineShipped(ef.Event):
    order: ef.Tag
    product: ef.Tag
    lot: ef.Tag
    units: int
    customer: str  # "": one whom the source does not name
    waited: bool = False  # whether the line had been backordered


class LineBackordered(ef.Event):
    order: ef.Tag
    product: ef.Tag
    units: int
    customer: str


class StockFound(ef.Event):
    lot: ef.Tag  # a lot of its own: when these units arrived is unknown
    product: ef.Tag
    units: int
    reason: str  # in the words of those who counted


class StockWrittenOff(ef.Event):
    product: ef.Tag
    lot: ef.Tag
    units: int
    document: str
    reason: str


class WriteOffExceededStock(ef.Event):
    product: ef.Tag
    units: int  # by so many: a difference that a person has to explain
    document: str
    reason: str


class LotRecalled(ef.Event):
    lot: ef.Tag
    product: ef.Tag
    reason: str


Moved = LotReceived | StockFound | LineShipped | LineBackordered | StockWrittenOff | WriteOffExceededStock


class NotOnHand(Exception): ...


class Shelf(ef.State):
    """What there is of a product: units by lot, the oldest first, and the lines that wait, the first first."""

    product: ef.Tag
    lots: dict[str, int] = {}
    waiting: list[tuple[str, str, int]] = []  # order, customer, units

    def evolve(
        self, event: LotReceived | StockFound | LineShipped | StockWrittenOff | LineBackordered | LotRecalled
    ) -> None:
        match event:
            case LotReceived() | StockFound():
                self.lots[event.lot] = self.lots.get(event.lot, 0) + event.units
            case LineBackordered():
                self.waiting.append((event.order, event.customer, event.units))
            case LotRecalled():
                self.lots.pop(event.lot, None)
            case LineShipped() | StockWrittenOff():
                self.lots[event.lot] -= event.units
                if not self.lots[event.lot]:
                    del self.lots[event.lot]
                if isinstance(event, LineShipped) and event.waited:
                    order, customer, units = self.waiting.pop(0)
                    if units > event.units:
                        self.waiting.insert(0, (order, customer, units - event.units))

    def oldest_first(self, units: int) -> list[tuple[str, int]]:
        """From which lots so many units are taken; together fewer if there are not so many."""
        taken: list[tuple[str, int]] = []
        for lot, there in self.lots.items():
            if units:
                taken.append((lot, min(units, there)))
                units -= taken[-1][1]
        return taken


class Lot(ef.State):
    """Who has how much of a lot: the question of every recall."""

    lot: ef.Tag
    received: int | None = None
    recalled: bool = False
    orders: set[str] = set()
    customers: dict[str, int] = {}

    def evolve(self, event: LotReceived | LotRecalled | LineShipped) -> None:
        match event:
            case LotReceived():
                self.received = event.units
            case LotRecalled():
                self.recalled = True
            case LineShipped():
                self.orders.add(event.order)
                self.customers[event.customer] = self.customers.get(event.customer, 0) + event.units


def ship(shelf: Shelf, order: str, units: int, customer: str = "") -> list[LineShipped | LineBackordered]:
    """Ship from the oldest lots, behind the lines that wait; what is not there is backordered."""
    parts = [] if shelf.waiting else shelf.oldest_first(units)
    shipped = [LineShipped(order, shelf.product, lot, taken, customer) for lot, taken in parts]
    rest = units - sum(taken for _, taken in parts)
    return [*shipped, *([LineBackordered(order, shelf.product, rest, customer)] if rest else [])]


def pick(shelf: Shelf, lot: str, order: str, units: int, customer: str = "") -> list[LineShipped]:
    """Ship from a lot that a person names; a recalled lot has nothing to ship."""
    if not 0 < units <= shelf.lots.get(lot, 0):
        raise NotOnHand(lot, units)
    return [LineShipped(order, shelf.product, lot, units, customer)]


def receive(shelf: Shelf, lot: Lot, units: int, ordered: int | None = None) -> list[LotReceived | LineShipped]:
    """Receive a lot, once, and ship from the shelf what waits."""
    if lot.received is not None:
        return []
    events: list[LotReceived | LineShipped] = [LotReceived(lot.lot, shelf.product, units, ordered)]
    stock: list[tuple[str, int]] = [*shelf.lots.items(), (lot.lot, units)]
    for order, customer, wanted in shelf.waiting:
        while wanted and stock:
            name, there = stock.pop(0)
            taken = min(wanted, there)
            events.append(LineShipped(order, shelf.product, name, taken, customer, waited=True))
            wanted -= taken
            stock = [(name, there - taken), *stock] if there > taken else stock
    return events


def write_off(shelf: Shelf, units: int, document: str, reason: str) -> list[StockWrittenOff | WriteOffExceededStock]:
    """Write off units of the oldest lots; never more than there are."""
    parts = shelf.oldest_first(units)
    gone = [StockWrittenOff(shelf.product, lot, taken, document, reason) for lot, taken in parts]
    rest = units - sum(taken for _, taken in parts)
    return [*gone, *([WriteOffExceededStock(shelf.product, rest, document, reason)] if rest else [])]


def recall(shelf: Shelf, lot: Lot, reason: str) -> list[LotRecalled]:
    """Recall a lot, once: from now on it does not leave."""
    return [] if lot.received is None or lot.recalled else [LotRecalled(lot.lot, shelf.product, reason)]


class Stock(ef.Projection):
    product: str
    received: int = 0
    found: int = 0
    shipped: int = 0
    written_off: int = 0
    exceeded: int = 0
    backordered: int = 0
    released: int = 0

    def evolve(self, event: Moved) -> None:
        match event:
            case LotReceived():
                self.received += event.units
            case StockFound():
                self.found += event.units
            case LineShipped():
                self.shipped += event.units
                self.released += event.units if event.waited else 0
            case StockWrittenOff():
                self.written_off += event.units
            case WriteOffExceededStock():
                self.exceeded += event.units
            case LineBackordered():
                self.backordered += event.units
