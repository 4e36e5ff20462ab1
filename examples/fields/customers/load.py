"""The purchases of CDNOW as events by day, and a model that is trained and asked on its day, before later ones follow.

The file is by customer, with dates and without times: a day's purchases are in the order of the file. The model is
trained on 30 September 1997 from what was known on 31 May and what came in the four months since; then it
predicts every customer's purchases in the following nine months, of which the log has nothing yet.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any, NamedTuple

import eventfold as ef
from eventfold.demo.data import open_source
from eventfold.demo.fields import LoadCount, id_from, write
from examples.fields.customers.app import (
    Customer,
    Model,
    ModelPromoted,
    ModelTrained,
    PredictionsScored,
    PurchaseMade,
    predict,
)

MODEL = "cells-1997-09"
KNOWN, TRAINED, END = date(1997, 5, 31), date(1997, 9, 30), date(1998, 6, 30)
TRAINED_DAYS, AHEAD_DAYS = (TRAINED - KNOWN).days, (END - TRAINED).days
Drafts = Iterator[tuple[ef.Draft[Any], int] | None]


class Purchase(NamedTuple):
    """A line of the file. `number` counts a customer's lines of one day."""

    day: date
    customer: str
    number: int
    discs: int
    value: Decimal


def purchases(count: LoadCount, limit: int | None = None) -> list[Purchase]:
    """The first `limit` lines of the file, by day and then in the order of the file."""
    found: list[Purchase] = []
    same: Counter[tuple[str, date]] = Counter()
    with open_source("cdnow") as opened:
        next(opened)
        for row, line in enumerate(opened):
            if limit is not None and row >= limit:
                break
            count.read += 1
            customer, day, discs, value = line.decode().split()
            moment = date(int(day[:4]), int(day[4:6]), int(day[6:]))
            found.append(Purchase(moment, customer, same[customer, moment], int(discs), Decimal(value)))
            same[customer, moment] += 1
    return sorted(found, key=lambda each: each.day)


class History:
    """The customers while history is loaded."""

    def __init__(self) -> None:
        self.customers: dict[str, Customer] = {}
        self.events = 0

    def drafts(self, given: Iterable[Purchase]) -> Drafts:
        """Yield the purchases by day; after the model's day the model and its predictions, at the end its score."""
        model: Model | None = None
        expected: dict[str, float] = {}
        for purchase in given:
            if model is None and purchase.day > TRAINED:
                yield None
                model = Model(MODEL)
                for event in self.trained(model):
                    if not isinstance(event, ModelTrained | ModelPromoted):
                        expected[event.customer] = event.expected
                    yield self.draft(event, TRAINED, getattr(event, "customer", "")), 0
                yield None
            event = PurchaseMade(purchase.customer, purchase.day, purchase.discs, purchase.value)
            self.customers.setdefault(purchase.customer, Customer(purchase.customer)).evolve(event)
            yield self.draft(event, purchase.day, purchase.customer, purchase.number), 1
        if expected:
            came = {name: sum(day > TRAINED for day in self.customers[name].days) for name in expected}
            error = sum(abs(came[name] - expected[name]) for name in expected) / len(expected)
            yield self.draft(PredictionsScored(MODEL, len(expected), round(error, 6)), END), 0

    def trained(self, model: Model) -> Iterator[Any]:
        """The model, trained from what is known now, and its predictions."""
        cells = cells_of(self.customers.values(), KNOWN, TRAINED)
        for event in (ModelTrained(MODEL, self.events, TRAINED, TRAINED_DAYS, cells), ModelPromoted(MODEL)):
            model.evolve(event)
            yield event
        for _, customer in sorted(self.customers.items()):
            yield predict(model, customer, customer.known(TRAINED), AHEAD_DAYS)

    def draft(self, event: Any, day: date, *parts: object) -> ef.Draft[Any]:
        """An event with an id from the source, at the end of a day."""
        self.events += 1
        occurred = datetime.combine(day, time(20), tzinfo=UTC)
        return ef.Draft(event, id=id_from(occurred, type(event).__name__, *parts), occurred=occurred)


def cells_of(customers: Iterable[Customer], known: date, until: date) -> dict[str, float]:
    """The mean number of days with a purchase in (known, until], by the cell of what was known before."""
    sums: defaultdict[str, list[int]] = defaultdict(list)
    for customer in customers:
        if customer.days[0] <= known:
            sums[customer.known(known).cell].append(sum(known < day <= until for day in customer.days))
    return {cell: round(sum(counts) / len(counts), 6) for cell, counts in sorted(sums.items())}


def load(store: ef.Store, limit: int | None = None) -> LoadCount:
    """Load the first `limit` lines of the file; what is in the log is not written again."""
    count = LoadCount()
    write(store, History().drafts(purchases(count, limit)), count)
    return count
