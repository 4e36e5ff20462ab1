"""Collects the metrics of stores: what was recorded in this process, and the state, as prometheus_client's families.

Knows: recorders, states, families. Does not know: when a state is read, HTTP, how families become text.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from eventfold.aio import AsyncStore, opened_admin
from eventfold.errors import InvalidInput, MissingExtra, StoreClosed
from eventfold.monitoring.instruments import Distribution
from eventfold.monitoring.labels import check_name
from eventfold.monitoring.measured import MeasuredAsyncStore, MeasuredStore
from eventfold.monitoring.recorder import Recorder
from eventfold.monitoring.scrapes import Measured, Scrapes, StateNow
from eventfold.monitoring.state import StateReader
from eventfold.monitoring.table import METRICS, Metric
from eventfold.projections.admin import ProjectionAdmin
from eventfold.store import Store

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family


class Collector:
    """The metrics of stores, for `prometheus_client`: `REGISTRY.register(monitoring.collector(store))`.

    `collect()` is called by the registry at each scrape.
    """

    def __init__(self, stores: Sequence[Measured]) -> None:
        require_client()
        self._scrapes = Scrapes(stores)

    def describe(self) -> Iterable[Family]:
        """Return the families without values, so that a registry refuses a second collector of the same metrics."""
        return [empty_family(metric) for metric in METRICS if metric.source != "server"]

    def collect(self) -> Iterator[Family]:
        """Yield the families of all stores."""
        yield from families(self._scrapes.states())


def families(stores: Sequence[tuple[Measured, StateNow]], *, states: bool = True) -> Iterator[Family]:
    """Yield a family for each metric of stores that has a value. `states` False: the states are written otherwise."""
    samples: dict[str, list[tuple[tuple[str, ...], float]]] = {}
    for each, state in stores:
        for sample in state.samples if states else ():
            samples.setdefault(sample.metric, []).append(((each.name, *sample.labels), sample.value))
        samples.setdefault("scrape_error", []).append(((each.name,), float(state.is_late)))
        samples.setdefault("scrape_duration_seconds", []).append(((each.name,), state.seconds))
    recorders = [(each.name, each.recorder) for each, _ in stores if each.recorder is not None]
    for metric in METRICS:
        if metric.source == "state" and (found := samples.get(metric.name)):
            yield gauge_family(metric, found)
        elif metric.source == "recorded" and (family := recorded_family(metric, recorders)).samples:
            yield family


def empty_family(metric: Metric) -> Family:
    """Return the family of a metric, to which samples are added."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    if metric.kind == "counter":
        return CounterMetricFamily(metric.full_name, metric.help, labels=metric.all_labels)
    if metric.kind == "gauge":
        return GaugeMetricFamily(metric.full_name, metric.help, labels=metric.all_labels)
    return HistogramMetricFamily(metric.full_name, metric.help, labels=metric.all_labels)


def gauge_family(metric: Metric, samples: Iterable[tuple[tuple[str, ...], float]]) -> Family:
    """Return a family of numbers."""
    family, names = empty_family(metric), metric.all_labels
    for values, value in samples:
        family.add_sample(metric.full_name, dict(zip(names, values, strict=True)), value)
    return family


def recorded_family(metric: Metric, recorders: Sequence[tuple[str, Recorder]]) -> Family:
    """Return a family of what was recorded."""
    if metric.kind != "histogram":
        return gauge_family(
            metric,
            [
                ((store, *key), value)
                for store, recorder in recorders
                for key, value in recorder.counters[metric.name].values().items()
            ],
        )
    family = empty_family(metric)
    for store, recorder in recorders:
        for key, found in recorder.histograms[metric.name].distributions().items():
            add_distribution(family, metric, (store, *key), found)
    return family


def add_distribution(family: Family, metric: Metric, values: tuple[str, ...], found: Distribution) -> None:
    """Add the buckets, the sum and the count of one key, with exemplars."""
    from prometheus_client.samples import Exemplar

    labels = dict(zip(metric.all_labels, values, strict=True))
    total, name = 0, metric.full_name
    for bucket, bound in enumerate((*metric.buckets, float("inf"))):
        total += found.counts[bucket]
        seen = found.exemplars.get(bucket)
        exemplar = None if seen is None else Exemplar({"trace_id": seen.trace_id}, seen.value, seen.at)
        family.add_sample(
            f"{name}_bucket",
            {**labels, "le": "+Inf" if bound == float("inf") else str(bound)},
            total,
            exemplar=exemplar,
        )
    family.add_sample(f"{name}_sum", labels, found.sum)
    family.add_sample(f"{name}_count", labels, total)


def state_families(store: Store, name: str) -> Iterator[Family]:
    """Return the families of the state of a store, read now, however long that takes.

    Raises what the store raises, InvalidInput for a name that cannot be shown, and MissingExtra.
    """
    require_client()
    (each,) = measured_stores((), {name: store})
    started = time.monotonic()
    samples = StateReader(store.projections).read()
    return families([(each, StateNow(samples, False, time.monotonic() - started))])


def measured_stores(
    stores: Sequence[Store | AsyncStore], named: Mapping[str, Store | AsyncStore], *, writes: bool = False
) -> list[Measured]:
    """Return the stores of a collector.

    Raises InvalidInput for none, for two of one name, for a name that cannot be shown, and for another object.

    `writes`: see Measured.
    """
    found: dict[str, Measured] = {}
    for name, store in [*((None, each) for each in stores), *named.items()]:
        recorder = store.recorder if isinstance(store, MeasuredStore | MeasuredAsyncStore) else None
        shown = check_name(name or (recorder.store if recorder is not None else "default"))
        if recorder is not None and shown != recorder.store:
            raise InvalidInput(
                f"The store that is measured as {recorder.store!r} was given as {shown!r}.",
                f"Give it the name where it is measured: monitoring.measured(store, {shown!r}).",
                name=shown,
            )
        if shown in found:
            raise InvalidInput(
                f"Two stores have the name {shown!r}.", "Name them: monitoring.collector(bank=…, shop=…).", name=shown
            )
        found[shown] = Measured(shown, recorder, admin_of(store), writes=writes)
    if not found:
        raise InvalidInput("A collector was given no store.", "Write monitoring.collector(store).")
    return list(found.values())


def admin_of(store: Store | AsyncStore) -> Callable[[], ProjectionAdmin]:
    """Return the function that returns the administration of a store in any thread."""
    if isinstance(store, Store):
        admin = store.unmeasured if isinstance(store, MeasuredStore) else store.projections
        return lambda: admin
    if not isinstance(store, AsyncStore):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput(f"{store!r} is not a store.", "Give an ef.Store or an ef.AsyncStore.")
    return AdminOfLoop(store.unmeasured if isinstance(store, MeasuredAsyncStore) else store)


class AdminOfLoop:
    """The administration of an AsyncStore, which is opened on the event loop of the store, for any other thread."""

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        self._admin: ProjectionAdmin | None = None
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            raise InvalidInput(
                "A collector was given an AsyncStore outside of its event loop.",
                "Call monitoring.collector(store) in a coroutine, on the loop on which the store is used.",
            ) from None

    def __call__(self) -> ProjectionAdmin:
        """Return it. Raises StoreClosed if the loop has ended."""
        if self._admin is None:
            opening = opened_admin(self._store)
            try:
                self._admin = asyncio.run_coroutine_threadsafe(opening, self._loop).result()
            except RuntimeError as error:
                opening.close()
                raise StoreClosed("The event loop of the store has ended.", "Open the store again.") from error
        return self._admin


def require_client() -> None:
    """Raise MissingExtra if prometheus_client is not installed."""
    try:
        import prometheus_client  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "Metrics need the package 'prometheus-client', which is not installed.",
            "Install the extra: pip install 'eventfold[metrics]'",
            extra="metrics",
        ) from error
