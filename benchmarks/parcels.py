"""The benchmark's event as `eventsourcing` has it: an aggregate with two kinds of event.

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
        """One more scan."""
        self.depot = depot
        self.weight = weight
        self.scanned = scanned
        self.scans += 1


class Parcels(Application[Any]):
    """The application that keeps them."""


def application(env: dict[str, str]) -> Parcels:
    """The application with these settings."""
    return Parcels(env=env)
