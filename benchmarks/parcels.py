"""The benchmark's event for `eventsourcing`: an aggregate with two kinds of event.

Knows: the eventsourcing package, so it is imported only by peers.py when that is installed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event


class Parcel(Aggregate):
    """A parcel on its way."""

    @event("Begun")
    def __init__(self, parcel: str, depot: str, weight: int, scanned: datetime, note: str) -> None:
        self.parcel = parcel
        self.depot = depot
        self.weight = weight
        self.scanned = scanned
        self.scans = 1

    @event("Scanned")
    def scan(self, depot: str, weight: int, scanned: datetime, note: str) -> None:
        """Add one scan."""
        self.depot = depot
        self.weight = weight
        self.scanned = scanned
        self.scans += 1


class Parcels(Application[Any]):
    """The application that stores them."""


def application(env: dict[str, str]) -> Parcels:
    """Return the application with these settings."""
    return Parcels(env=env)
