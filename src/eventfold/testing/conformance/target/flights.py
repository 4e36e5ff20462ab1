"""Events and read models for the suite, and the plain fold that every read model must equal.

Knows: flights. Does not know: targets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from eventfold.core.event import Event
from eventfold.core.tags import Tag
from eventfold.core.tally import EMPTY_TALLY
from eventfold.ports.target import Checkpoint, PartitionKey
from eventfold.projections.classes import Projection
from eventfold.store import Store


class Departed(Event, type="conformance.departed"):
    """A flight left."""

    carrier: Tag
    month: int
    delay: int


class Cancelled(Event, type="conformance.cancelled"):
    """A flight did not leave."""

    carrier: Tag
    month: int


class CarrierMonth(Projection, name="conformance_carrier_month", indexes=["month"]):
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


class Split(CarrierMonth, name="conformance_split_month", partitions=3):
    """The same, in three partitions."""

    def evolve(self, event: Departed | Cancelled) -> None:
        """Count one."""
        super().evolve(event)


def flights(count: int, start: int = 0) -> Iterator[Departed | Cancelled]:
    """Yield events of eight carriers, the same in each call."""
    for n in range(start, start + count):
        carrier, month = f"c{n * 7 % 8}", n * 13 % 12 + 1
        yield Cancelled(carrier, month) if n % 11 == 3 else Departed(carrier, month, n % 90 - 10)


Row = tuple[str, int, int, int, int]


def folded(events: Iterable[object]) -> list[Row]:
    """The rows of CarrierMonth, by a plain loop."""
    found: dict[tuple[str, int], list[int]] = {}
    for event in events:
        match event:
            case Departed():
                row = found.setdefault((event.carrier, event.month), [0, 0, 0])
                row[0] += 1
                row[1] += event.delay
            case Cancelled():
                found.setdefault((event.carrier, event.month), [0, 0, 0])[2] += 1
            case _:
                continue
    return sorted((*key, row[0], row[1], row[2]) for key, row in found.items())


def as_tuples(found: Iterable[CarrierMonth]) -> list[Row]:
    """Rows in the form that `folded` returns."""
    return sorted((row.carrier, row.month, row.flights, row.delay, row.cancelled) for row in found)


def rows(store: Store, projection: type[CarrierMonth] = CarrierMonth) -> list[Row]:
    """The rows that readers see, as tuples."""
    return as_tuples(store.rows(projection))


def proved(store: Store) -> bool:
    """Whether every ledger of a store is verified."""
    proofs = store.projections.verify()
    assert proofs
    return all(proof.proved for proof in proofs)


def new_checkpoints(name: str, generation: int = 1, partitions: int = 1, **fields: Any) -> Sequence[Checkpoint]:
    """The checkpoints of a new generation, at the beginning of a log."""
    empty: dict[str, Any] = {"store": "s", "epoch": 1, "query": "{}", "fingerprint": "f", "partitions": partitions}
    return [
        Checkpoint(place=PartitionKey(name, generation, partition), seen=EMPTY_TALLY, **(empty | fields))
        for partition in range(partitions)
    ]
