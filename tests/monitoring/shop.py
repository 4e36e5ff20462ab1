"""A store with something of everything that has a metric, and metrics read back from their text.

Knows: events, read models, a process, an effect. Does not know: what a test asserts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

import eventfold as ef
from eventfold.monitoring.exposition import Collecting, encode
from eventfold.processes import after, effect


class Placed(ef.Event, type="metrics-shop-placed"):
    """An order."""

    order: ef.Tag
    amount: int = 1


class Paid(ef.Event, type="metrics-shop-paid"):
    """It was paid."""

    order: ef.Tag


class Reminded(ef.Event, type="metrics-shop-reminded"):
    """Its customer was reminded."""

    order: ef.Tag


class Order(ef.State):
    """An order, as decisions see it."""

    order: ef.Tag
    placed: int = 0

    def evolve(self, event: Placed) -> None:
        self.placed += 1


class Sold(ef.Projection, name="metrics_sold", on_error="park", attempts=1):
    """The pieces of each order; it fails on the order "bad", whose events are parked."""

    order: str
    amount: int = 0

    def evolve(self, event: Placed) -> None:
        if event.order == "bad":
            raise ValueError("cannot be sold")
        self.amount += event.amount


class Strict(ef.Projection, name="metrics_strict", attempts=1):
    """The pieces of each order; the order "bad" stops it."""

    order: str
    amount: int = 0

    def evolve(self, event: Placed) -> None:
        if event.order == "bad":
            raise ValueError("cannot be counted")
        self.amount += event.amount


class Reminding(ef.Process, name="metrics_reminding", start="beginning"):
    """The process that waits for the payment; it fails on the order "bad"."""

    order: ef.Tag
    paid: bool = False

    def evolve(self, event: Placed | Paid | Reminded) -> None:
        self.paid = self.paid or isinstance(event, Paid)

    def react(self, event: Placed | Paid | Reminded) -> Iterator[Any]:
        if event.order == "bad":
            raise ValueError("cannot be reminded")
        if isinstance(event, Placed):
            yield after(Reminded(self.order), seconds=3_600)

    def done(self) -> bool:
        return self.paid


@effect(start="beginning", name="metrics_mail", attempts=1)
def mail(event: Paid) -> None:
    """Send a mail; it fails for the order "bad"."""
    if event.order == "bad":
        raise ConnectionError("no mail server")


def place(order: Order) -> Placed:
    """Decide: every order may be placed once more."""
    return Placed(order.order)


Found = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read_back(text: str) -> Found:
    """The samples of a text in the format of Prometheus, by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Samples:
    """The samples that a collector, or a text, has: `samples("appends_total", outcome="written")`."""

    def __init__(self, source: Collecting | str) -> None:
        self.text = source if isinstance(source, str) else encode(source)[0].decode()
        self.found = read_back(self.text)

    def __call__(self, name: str, /, **labels: str) -> float | None:
        """The value of one sample, of the store `default` unless it is named; None if there is none."""
        of_store = {"store": "default"} | labels
        for wanted in (of_store, labels):
            value = self.found.get((f"eventfold_{name}", frozenset(wanted.items())))
            if value is not None:
                return value
        return None

    @property
    def names(self) -> set[str]:
        """The names of all samples."""
        return {name for name, _ in self.found}

    def of(self, name: str) -> Iterator[dict[str, str]]:
        """The labels of each sample with a name."""
        return (dict(labels) for found, labels in self.found if found == f"eventfold_{name}")
