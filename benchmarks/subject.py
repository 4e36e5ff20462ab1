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
    """Where a parcel is."""

    parcel: ef.Tag
    depot: str = ""
    weight: int = 0
    scans: int = 0

    def evolve(self, event: ParcelScanned) -> None:
        """One scan more."""
        self.depot = event.depot
        self.weight = event.weight
        self.scans += 1


class Totals(ef.State):
    """Everything, folded into one state."""

    scans: int = 0
    weight: int = 0
    depots: dict[str, int] = {}  # noqa: RUF012 (msgspec copies it)

    def evolve(self, event: ParcelScanned) -> None:
        """Counted by depot."""
        self.scans += 1
        self.weight += event.weight
        self.depots[event.depot] = self.depots.get(event.depot, 0) + 1


def event_of(each: Scan, parcel: str | None = None) -> ParcelScanned:
    """The typed event with these values."""
    return ParcelScanned(parcel or each.parcel, each.depot, each.weight, MOMENT, each.note)


def rescan(parcel: Parcel, each: Scan) -> ParcelScanned:
    """A decision that looks at its state: the weight only ever grows."""
    return ParcelScanned(parcel.parcel, each.depot, max(parcel.weight, each.weight), MOMENT, each.note)


def question(parcel: str) -> ef.Query:
    """What an append to a parcel is conditional on."""
    return ef.Query.of(types=TYPE, tags=f"parcel:{parcel}")


_numbers = itertools.count()


def fresh_parcel() -> str:
    """The name of a parcel nobody else writes to."""
    return f"own-{next(_numbers)}"


class Eventfold:
    """A `Store` in a folder, or at a URL, at its default, durable settings."""

    name = "eventfold"

    def __init__(self, folder: Path, stored: int, *, url: str = "", **options: Any) -> None:
        self.path = url or str(folder / "eventfold.db")
        self.store = ef.Store(self.path, **options)
        self.traffic = Traffic(stored)

    @staticmethod
    def seed(folder: Path, stored: int) -> None:
        """Write the stored events."""
        with ef.Store(str(folder / "eventfold.db")) as store:
            store.extend(map(event_of, scans(0, stored)))

    def caller(self, events: int = 1) -> Callable[[], Any]:
        """One caller: each call appends `events` new typed events."""
        append, traffic = self.store.append, self.traffic
        if events == 1:
            return lambda: append(event_of(traffic.one()))
        return lambda: append(*map(event_of, traffic.some(events)))

    def conditional(self) -> Callable[[], Any]:
        """One caller that owns a parcel and appends unless anyone else has written to it since."""
        append, traffic, parcel, after = self.store.append, self.traffic, fresh_parcel(), 0
        query = question(parcel)

        def call() -> None:
            nonlocal after
            after = append(event_of(traffic.one(), parcel), unless=query, after=after).last

        return call

    def owner(self) -> Callable[[], Any]:
        """The same appends to a parcel of one's own, without the condition: what a condition is compared with."""
        append, traffic, parcel = self.store.append, self.traffic, fresh_parcel()
        return lambda: append(event_of(traffic.one(), parcel))

    def command(self, parcel: str) -> Callable[[], Any]:
        """One caller that decides on a parcel again and again: it is folded once and then kept warm."""
        decide, traffic, entity = self.store.decide, self.traffic, Parcel(parcel)
        return lambda: decide(rescan, entity, traffic.one())

    def entity(self, events: int) -> str:
        """A parcel with so many events."""
        parcel = fresh_parcel()
        self.store.extend(event_of(self.traffic.one(), parcel) for _ in range(events))
        return parcel

    def load(self, parcel: str) -> Parcel:
        """The folded parcel."""
        return self.store.state(Parcel(parcel))

    def everything(self) -> Iterator[Any]:
        """The whole log as typed objects."""
        return self.store.read()

    def close(self) -> None:
        """Release the file."""
        self.store.close()


class EventfoldTasks:
    """An `AsyncStore` in a folder, or at a URL, with the loop it lives on."""

    name = "eventfold"

    def __init__(self, folder: Path, stored: int, *, url: str = "") -> None:
        self.loop = asyncio.Runner()
        self.store = ef.AsyncStore(url or str(folder / "eventfold.db"))
        self.loop.run(self.store.open())
        self.traffic = Traffic(stored)

    seed = Eventfold.seed

    def caller(self) -> Callable[[], Awaitable[Any]]:
        """One task that appends one typed event a call."""
        append, traffic = self.store.append, self.traffic
        return lambda: append(event_of(traffic.one()))

    def owner(self) -> Callable[[], Awaitable[Any]]:
        """Appends to a parcel of one's own, without a condition."""
        append, traffic, parcel = self.store.append, self.traffic, fresh_parcel()
        return lambda: append(event_of(traffic.one(), parcel))

    def conditional(self) -> Callable[[], Awaitable[Any]]:
        """One task that owns a parcel and appends unless anyone else has written to it since."""
        append, traffic, parcel, after = self.store.append, self.traffic, fresh_parcel(), 0
        query = question(parcel)

        async def call() -> None:
            nonlocal after
            after = (await append(event_of(traffic.one(), parcel), unless=query, after=after)).last

        return call

    def close(self) -> None:
        """Release the file and the loop."""
        self.loop.run(self.store.close())
        self.loop.close()
