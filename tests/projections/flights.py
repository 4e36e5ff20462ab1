"""Events and read models for the tests, and the plain fold that every one of them must equal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import eventfold as ef
from eventfold.ports.target import PartitionKey, Target


class Departed(ef.Event):
    """A flight left."""

    carrier: ef.Tag
    month: int
    delay: int


class Cancelled(ef.Event):
    """A flight did not leave."""

    carrier: ef.Tag
    month: int


class CarrierMonth(ef.Projection, indexes=["month"]):
    """Flights and delay by carrier and month."""

    carrier: str
    month: int
    flights: int = 0
    delay: int = 0
    cancelled: int = 0

    def evolve(self, event: Departed | Cancelled) -> None:
        """Count one."""
        match event:
            case Departed():
                self.flights += 1
                self.delay += event.delay
            case Cancelled():
                self.cancelled += 1


class Split(CarrierMonth, name="split_month", partitions=3):
    """The same, in three partitions."""

    def evolve(self, event: Departed | Cancelled) -> None:
        """Count one."""
        super().evolve(event)


def flights(count: int, start: int = 0) -> Iterator[Departed | Cancelled]:
    """Return events of eight carriers, the same in each call."""
    for n in range(start, start + count):
        carrier, month = f"c{n * 7 % 8}", n * 13 % 12 + 1
        yield Cancelled(carrier, month) if n % 11 == 3 else Departed(carrier, month, n % 90 - 10)


def edit(target: Target, place: PartitionKey, **fields: Any) -> None:
    """Change fields of a checkpoint, as no runner would."""
    with target.control(place.name) as tx:
        tx.update_checkpoint(place, **fields)


Row = tuple[str, int, int, int, int]


def folded(events: Iterable[object]) -> list[Row]:
    """Return the rows of CarrierMonth, computed by a plain loop."""
    found: dict[tuple[str, int], list[int]] = {}
    for event in events:
        match event:
            case Departed(carrier=carrier, month=month, delay=delay):
                row = found.setdefault((carrier, month), [0, 0, 0])
                row[0] += 1
                row[1] += delay
            case Cancelled(carrier=carrier, month=month):
                found.setdefault((carrier, month), [0, 0, 0])[2] += 1
            case _:
                continue
    return sorted((*key, *row) for key, row in found.items())  # type: ignore[misc]


def rows(store: ef.Store, projection: type[CarrierMonth] = CarrierMonth) -> list[Row]:
    """Return the rows that readers see."""
    return sorted((r.carrier, r.month, r.flights, r.delay, r.cancelled) for r in store.rows(projection))


def proved(store: ef.Store) -> bool:
    """Return whether verify proves every ledger of a store."""
    proofs = store.projections.verify()
    assert proofs
    return all(proof.proved for proof in proofs)
