"""Customers, and predictions of what they will buy: each names the position of the log up to which it knew anything.

A retired model predicts nothing, a customer who objected to profiling is not predicted, a model predicts a customer
once, and no prediction uses a purchase behind its model's day: decided over model and customer at once.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import msgspec

import eventfold as ef


class PurchaseMade(ef.Event, type="customers.PurchaseMade"):
    customer: ef.Tag
    day: date
    discs: int
    value: Decimal  # dollars


class ProfilingObjected(ef.Event, type="customers.ProfilingObjected"):
    customer: ef.Tag


class ModelTrained(ef.Event, type="customers.ModelTrained"):
    """`cursor`: the last position that was read; `cells`: purchases in `days` days by what was known before."""

    model: ef.Tag
    cursor: int
    until: date
    days: int
    cells: dict[str, float]


class ModelPromoted(ef.Event, type="customers.ModelPromoted"):
    model: ef.Tag


class ModelRetired(ef.Event, type="customers.ModelRetired"):
    model: ef.Tag
    why: str


class PurchasesPredicted(ef.Event, type="customers.PurchasesPredicted"):
    """`expected` purchases in the `days` after `until`, from the events up to the position `cursor`."""

    model: ef.Tag
    customer: ef.Tag
    cursor: int
    until: date
    days: int
    expected: float


class PredictionsScored(ef.Event, type="customers.PredictionsScored"):
    """How far a model's predictions were from what came, in purchases of a customer."""

    model: ef.Tag
    customers: int
    mean_error: float


class Refused(Exception):
    pass


class Known(msgspec.Struct, frozen=True):
    """What is known of a customer on a day. `frequency`: days with a purchase after the first one."""

    frequency: int
    first: date
    last: date
    until: date

    @property
    def recency_weeks(self) -> float:
        return (self.last - self.first).days / 7

    @property
    def age_weeks(self) -> float:
        return (self.until - self.first).days / 7

    @property
    def cell(self) -> str:
        """The cell of the model: purchases so far, and which part of the time the customer has been silent."""
        frequency = next(
            name for most, name in ((0, "0"), (1, "1"), (2, "2"), (4, "3-4"), (9_999, "5+")) if self.frequency <= most
        )
        silent = (self.until - self.last).days / max(1, (self.until - self.first).days)
        return f"{frequency}, silent for {int(min(silent, 0.99) * 4) * 25} % or more"


class Customer(ef.State):
    customer: ef.Tag
    days: list[date] = []
    spent: Decimal = Decimal(0)
    has_objected: bool = False
    predicted_by: set[str] = set()

    def evolve(self, event: PurchaseMade | ProfilingObjected | PurchasesPredicted) -> None:
        match event:
            case PurchaseMade():
                if event.day not in self.days:
                    self.days.append(event.day)
                self.spent += event.value
            case ProfilingObjected():
                self.has_objected = True
            case PurchasesPredicted():
                self.predicted_by.add(event.model)

    def known(self, until: date) -> Known:
        """What was known at the end of a day."""
        days = [day for day in self.days if day <= until]
        return Known(len(days) - 1, days[0], days[-1], until)


class Model(ef.State):
    model: ef.Tag
    trained: ModelTrained | None = None
    is_promoted: bool = False
    is_retired: bool = False

    def evolve(self, event: ModelTrained | ModelPromoted | ModelRetired) -> None:
        match event:
            case ModelTrained():
                self.trained = event
            case ModelPromoted():
                self.is_promoted = True
            case ModelRetired():
                self.is_retired = True


def predict(model: Model, customer: Customer, known: Known, days: int) -> PurchasesPredicted:
    """Predict the purchases of a customer, from what was known on the model's day."""
    trained = model.trained
    if trained is None or not model.is_promoted or model.is_retired:
        raise Refused(f"model {model.model} is not in use")
    if customer.has_objected:
        raise Refused(f"customer {customer.customer} objected")
    if model.model in customer.predicted_by:
        raise Refused(f"model {model.model} has predicted customer {customer.customer}")
    if max(known.until, known.last) > trained.until:
        raise Refused(f"this is known since {known.last}, and the model knows nothing behind {trained.until}")
    expected = trained.cells.get(known.cell, 0.0) * days / trained.days
    return PurchasesPredicted(model.model, customer.customer, trained.cursor, trained.until, days, round(expected, 4))


def retire(model: Model, why: str) -> ModelRetired:
    if model.trained is None or model.is_retired:
        raise Refused(f"model {model.model} is not in use")
    return ModelRetired(model.model, why)


def object_to_profiling(customer: Customer) -> list[ProfilingObjected]:
    return [] if customer.has_objected else [ProfilingObjected(customer.customer)]


class Value(ef.Projection, name="customers_value"):
    """What a customer has bought in all."""

    customer: str
    purchases: int = 0
    discs: int = 0
    spent: Decimal = Decimal(0)

    def evolve(self, event: PurchaseMade) -> None:
        self.purchases += 1
        self.discs += event.discs
        self.spent += event.value
