"""The car parks for Prometheus: open alerts by rule, and the share of places taken, as text that it scrapes.

    python -m examples.fields.carparks.metrics carparks.db > carparks.prom

Knows: rows, Prometheus' client. Does not know: HTTP (node_exporter's textfile collector reads the file).
"""

from __future__ import annotations

import sys

from prometheus_client import CollectorRegistry, Gauge, generate_latest

import eventfold as ef
from examples.fields.carparks.app import AlertRaised, AlertResolved, OccupancyReported


class OpenAlerts(ef.Projection, name="park_open_alerts"):
    """The open alert of a park and rule; the row goes when it is resolved."""

    park: ef.Tag
    rule: ef.Tag
    alert: str | None = None

    def evolve(self, event: AlertRaised | AlertResolved) -> None:
        """Open or close it."""
        self.alert = event.alert if isinstance(event, AlertRaised) else None

    def keep(self) -> bool:
        """Keep open ones only."""
        return self.alert is not None


class LatestOccupancy(ef.Projection, name="park_latest"):
    """The latest reading of a park."""

    park: ef.Tag
    cars: int = 0
    capacity: int = 1

    def evolve(self, event: OccupancyReported) -> None:
        """Take the reading."""
        self.cars, self.capacity = event.cars, event.capacity


def exposition(store: ef.Store) -> bytes:
    """Return the metrics in Prometheus' text format."""
    store.project(OpenAlerts, LatestOccupancy)
    registry = CollectorRegistry()
    alerts = Gauge("carpark_alerts_open", "Open alerts", ["park", "rule"], registry=registry)
    for row in store.rows(OpenAlerts):
        alerts.labels(row.park, row.rule).set(1)
    taken = Gauge("carpark_places_taken_ratio", "Places taken, by the latest reading", ["park"], registry=registry)
    for latest in store.rows(LatestOccupancy):
        taken.labels(latest.park).set(latest.cars / latest.capacity)
    return generate_latest(registry)


if __name__ == "__main__":
    with ef.Store(sys.argv[1], create=False) as opened:
        sys.stdout.buffer.write(exposition(opened))
