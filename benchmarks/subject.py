"""Eventfold as it is measured: the event and state classes of a small application, and a store.

Knows: the public API, as a user would write it. Does not know: how anything is measured.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import eventfold as ef
from benchmarks.traffic import MOMENT, TYPE, Scan, Traffic, scans


class ParcelScanned(ef.Event):
    """A parcel was scanned at a depot: 200 bytes of JSON, two tags."""

    parcel: ef.Tag
    depot: ef.Tag
    weight: int
    scanned: datetime
    note: str


class Parcel(ef.State):
    """The latest scan of a parcel."""

    parcel: ef.Tag
    depot: str = ""
    weight: int = 0
    scans: int = 0

    def evolve(self, event: ParcelScanned) -> None:
        """Apply one scan."""
        self.depot = event.depot
        self.weight = event.weight
        self.scans += 1


class Totals(ef.State):
    """All scans, folded into one state."""

    scans: int = 0
    weight: int = 0
    depots: dict[str, int] = {}  # noqa: RUF012 (msgspec copies it)

    def evolve(self, event: ParcelScanned) -> None:
        """Count a scan, also by depot."""
        self.scans += 1
        self.weight += event.weight
        self.depots[event.depot] = self.depots.get(event.depot, 0) + 1


def event_of(each: Scan, parcel: str | None = None) -> ParcelScanned:
    """Return the typed event with these values."""
    return ParcelScanned(parcel or each.parcel, each.depot, each.weight, MOMENT, each.note)


def rescan(parcel: Parcel, each: Scan) -> ParcelScanned:
    """Decide over a state: the weight never decreases."""
    return ParcelScanned(parcel.parcel, each.depot, max(parcel.weight, each.weight), MOMENT, each.note)


def question(parcel: str) -> ef.Query:
    """Return the query of the condition of an append to a parcel."""
    return ef.Query.of(types=TYPE, tags=f"parcel:{parcel}")


_numbers = itertools.count()


def fresh_parcel() -> str:
    """Return the name of a parcel that no other caller writes to."""
    return f"own-{next(_numbers)}"


class Eventfold:
    """A `Store` in a folder, or at a URL, at its default, durable settings."""

    name = "eventfold"

    def __init__(self, folder: Path, stored: int, *, url: str = "", drawn: int | None = None, **options: Any) -> None:
        self.path = url or str(folder / "eventfold.db")
        self.store = ef.Store(self.path, **options)
        self.traffic = Traffic(stored, drawn)

    @staticmethod
    def seed(folder: Path, stored: int) -> None:
        """Write the stored events."""
        with ef.Store(str(folder / "eventfold.db")) as store:
            store.extend(map(event_of, scans(0, stored)))

    def caller(self, events: int = 1) -> Callable[[], Any]:
        """Return a caller: each call appends `events` new typed events."""
        append, traffic = self.store.append, self.traffic
        if events == 1:
            return lambda: append(event_of(traffic.one()))
        return lambda: append(*map(event_of, traffic.some(events)))

    def conditional(self) -> Callable[[], Any]:
        """Return a caller that owns a parcel and appends unless another caller has written to it since."""
        append, traffic, parcel, after = self.store.append, self.traffic, fresh_parcel(), 0
        query = question(parcel)

        def call() -> None:
            nonlocal after
            after = append(event_of(traffic.one(), parcel), unless=query, after=after).last

        return call

    def owner(self) -> Callable[[], Any]:
        """Return a caller that appends to a parcel of its own without a condition, for comparison."""
        append, traffic, parcel = self.store.append, self.traffic, fresh_parcel()
        return lambda: append(event_of(traffic.one(), parcel))

    def command(self, parcel: str) -> Callable[[], Any]:
        """Return a caller that decides repeatedly over one parcel, which is folded once and then cached."""
        decide, traffic, entity = self.store.decide, self.traffic, Parcel(parcel)
        return lambda: decide(rescan, entity, traffic.one())

    def entity(self, events: int) -> str:
        """Write a parcel with so many events. Returns its name."""
        parcel = fresh_parcel()
        self.store.extend(event_of(self.traffic.one(), parcel) for _ in range(events))
        return parcel

    def load(self, parcel: str) -> Parcel:
        """Return the folded parcel."""
        return self.store.state(Parcel(parcel))

    def everything(self) -> Iterator[Any]:
        """Yield the whole log as typed objects."""
        return self.store.read()

    def close(self) -> None:
        """Close the store."""
        self.store.close()


class EventfoldTasks:
    """An `AsyncStore` in a folder, or at a URL, with its event loop."""

    name = "eventfold"

    def __init__(self, folder: Path, stored: int, *, url: str = "") -> None:
        self.loop = asyncio.Runner()
        self.store = ef.AsyncStore(url or str(folder / "eventfold.db"))
        self.loop.run(self.store.open())
        self.traffic = Traffic(stored)

    seed = Eventfold.seed

    def caller(self) -> Callable[[], Awaitable[Any]]:
        """Return a task's call that appends one typed event."""
        append, traffic = self.store.append, self.traffic
        return lambda: append(event_of(traffic.one()))

    def owner(self) -> Callable[[], Awaitable[Any]]:
        """Return a call that appends to a parcel of its own, without a condition."""
        append, traffic, parcel = self.store.append, self.traffic, fresh_parcel()
        last = 0

        async def call() -> None:  # keeps the position, as in `conditional`: only the condition differs
            nonlocal last
            last = (await append(event_of(traffic.one(), parcel))).last

        return call

    def conditional(self) -> Callable[[], Awaitable[Any]]:
        """Return a call that owns a parcel and appends unless another caller has written to it since."""
        append, traffic, parcel, after = self.store.append, self.traffic, fresh_parcel(), 0
        query = question(parcel)

        async def call() -> None:
            nonlocal after
            after = (await append(event_of(traffic.one(), parcel), unless=query, after=after)).last

        return call

    def close(self) -> None:
        """Close the store and the loop."""
        self.loop.run(self.store.close())
        self.loop.close()
