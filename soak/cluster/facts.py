"""The events of the rounds on a cluster, and the read model that is folded from them.

Knows: three types with two tags each. Does not know: who appends them, faults.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

import eventfold as ef
from eventfold.core.envelope import NewEvent, StoredEvent


class Rose(ef.Event, type="cluster-rose"):
    """One of three events with equal fields, so that queries can be for types."""

    group: ef.Tag
    item: ef.Tag
    op: str
    index: int
    pad: str = ""


class Fell(ef.Event, type="cluster-fell"):
    """See Rose."""

    group: ef.Tag
    item: ef.Tag
    op: str
    index: int
    pad: str = ""


class Rested(ef.Event, type="cluster-rested"):
    """See Rose."""

    group: ef.Tag
    item: ef.Tag
    op: str
    index: int
    pad: str = ""


TYPES = ("cluster-rose", "cluster-fell", "cluster-rested")


def fact(type: str, group: str, item: str, op: str = "", index: int = 0, pad: str = "") -> NewEvent:
    """Return an encoded event of one of the types, with a new id."""
    data = msgspec.json.encode({"group": group, "item": item, "op": op, "index": index, "pad": pad})
    return NewEvent.of(type, data, tags=[f"group:{group}", f"item:{item}"])


class PerGroup(ef.Projection, name="cluster_per_group"):
    """The number of events of each group, and the sum of their indexes."""

    group: str
    events: int = 0
    total: int = 0

    def evolve(self, event: Rose | Fell | Rested) -> None:
        """Apply the event."""
        self.events += 1
        self.total += event.index


def fold(log: Iterable[StoredEvent]) -> dict[str, tuple[int, int]]:
    """Return what the read model must have: events and sum by group."""
    events, totals = Counter[str](), Counter[str]()
    for event in log:
        fields = msgspec.json.decode(event.data)
        events[fields["group"]] += 1
        totals[fields["group"]] += fields["index"]
    return {group: (events[group], totals[group]) for group in events}
