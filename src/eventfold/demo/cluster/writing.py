"""Writes the flights into a store, in appends of 1,000, and keeps every acknowledgement.

Knows: appends, what is done when one is not confirmed. Does not know: clusters, which node is killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

import eventfold as ef
from eventfold.core.envelope import NewEvent

if TYPE_CHECKING:
    from eventfold.demo.flights.source import Source

EVENTS = 1_000  # of an append
MAX_REPEATS = 20


class Written(msgspec.Struct, kw_only=True):
    """What was acknowledged. `pause`: the longest time between two acknowledgements after the kill, in seconds."""

    receipts: list[ef.Receipt] = msgspec.field(default_factory=list[ef.Receipt])
    repeated: int = 0
    pause: float = 0.0

    @property
    def appends(self) -> int:
        """How many appends were acknowledged."""
        return len(self.receipts)

    @property
    def events(self) -> int:
        """How many events were acknowledged."""
        return sum(len(each.positions) for each in self.receipts)


def write_all(store: ef.Store, source: Source, after: Callable[[int], bool]) -> Written:
    """Append everything. `after` is called with the last position of each append; returns whether a node was killed."""
    from eventfold.demo.flights.source_rows import draft

    written, before, killed = Written(), time.monotonic(), False
    events: Iterator[NewEvent] = (store.registry.encode(draft(row)) for row in source.rows())
    while some := list(islice(events, EVENTS)):
        receipt = _append(store, some, written)
        written.receipts.append(receipt)
        now = time.monotonic()
        if killed:
            written.pause = max(written.pause, now - before)
        killed |= after(receipt.last)
        before = now if not killed else time.monotonic()
    return written


def _append(store: ef.Store, events: list[NewEvent], written: Written) -> ef.Receipt:
    """Append until it is acknowledged. The same ids again are the same append."""
    for _ in range(MAX_REPEATS):
        try:
            return store.append_encoded(*events)
        except ef.AppendUnconfirmed:
            written.repeated += 1
    return store.append_encoded(*events)
