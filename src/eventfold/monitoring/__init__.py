"""Metrics: what happens in a store and in which state it is, for Prometheus, with a dashboard and alert rules.

`measured(store)` counts what this process does with a store; `collector(store)` gives it, and the state of the store,
to a registry of prometheus_client. The server has `/metrics`, and `eventfold stats --metrics` needs neither.
Knows: the public names. Does not know: how anything is measured. It needs the extra `metrics`.
"""

from __future__ import annotations

from eventfold.aio import AsyncStore
from eventfold.monitoring.collector import Collector, measured_stores
from eventfold.monitoring.measured import measured
from eventfold.store import Store

__all__ = ["Collector", "collector", "measured"]


def collector(*stores: Store | AsyncStore, **named: Store | AsyncStore) -> Collector:
    """Return the metrics of stores for a registry: `REGISTRY.register(monitoring.collector(store))`.

    A store has the name that `measured` was given; give others by name, `collector(bank=store)`, or one store without a
    name, which is then `default`. A store that is not measured has metrics of its state only. For an AsyncStore call it
    on the event loop of the store, and let the registry collect in another thread (`asyncio.to_thread`). Raises
    InvalidInput (two stores of one name, another name than it is measured under), MissingExtra.
    """
    return Collector(measured_stores(stores, named))
