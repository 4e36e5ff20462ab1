"""The service that is watched: a process that keeps a read model of orders up to date, until it is killed.

Knows: its events and its read model. Does not know: that it is watched.
"""

from __future__ import annotations

import eventfold as ef

READY = "ready"


class OrderPlaced(ef.Event, type="watch-order-placed"):
    """A customer placed an order; `cents` is its amount."""

    customer: ef.Tag
    cents: int


class CustomerTotal(ef.Projection, name="customer_total"):
    """What each customer has ordered."""

    customer: ef.Tag
    orders: int = 0
    cents: int = 0

    def evolve(self, event: OrderPlaced) -> None:
        """Add an order."""
        self.orders += 1
        self.cents += event.cents


def main(database: str) -> None:
    """Run the read model until the process ends."""
    with ef.Store(database) as store, store.run(CustomerTotal) as running:
        print(READY, flush=True)
        running.wait()
