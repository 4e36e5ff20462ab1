"""Compares a log with the acknowledgements of everything that was written to it.

Knows: receipts and their digests. Does not know: clusters.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

import eventfold as ef
from eventfold.concurrency.run import run
from eventfold.core.envelope import StoredEvent, digest
from eventfold.core.query import Query
from eventfold.ports.messages import Span

PAGE = 1_000


class Proof(msgspec.Struct, kw_only=True):
    """Numbers of appends: acknowledged and not in the log, in the log with other content; events besides them."""

    events: int = 0  # in the log
    missing: int = 0
    changed: int = 0
    unknown: int = 0

    @property
    def holds(self) -> bool:
        """Whether the log is exactly what was acknowledged."""
        return not (self.missing or self.changed or self.unknown)


def compare(store: ef.Store, receipts: Sequence[ef.Receipt]) -> Proof:
    """Read the whole log, and compare the digest of each append with that of its receipt."""
    proof, waiting = Proof(), {each.first: each for each in receipts}
    after, rest = 0, list[StoredEvent]()
    while True:
        page = run(store.engine.read(Query(), Span(after=after, limit=PAGE)))
        rest += page.events
        proof.events += len(page.events)
        while rest and len(rest) >= rest[0].size:
            events, rest = rest[: rest[0].size], rest[rest[0].size :]
            receipt = waiting.pop(events[0].position, None)
            if receipt is None:
                proof.unknown += len(events)
            elif receipt.last != events[-1].position or receipt.digest != digest(events):
                proof.changed += 1
        after = page.scanned
        if not page.more:
            proof.unknown += len(rest)
            proof.missing = len(waiting)
            return proof
