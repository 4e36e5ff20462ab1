"""Rebuilds a table after a change of its rule: rebuild, compare, switch, verify, roll back.

Knows: the order of these steps. Does not know: what the rules are (tables.py), how results are shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import eventfold as ef
from eventfold.demo.flights.tables import AirportHour, CarrierMonth, CarrierMonthAsReported, RuleChange


def project(store: ef.Store, progress: Callable[[int, int], None]) -> None:
    """Bring both tables up to the head of the log; do nothing if they are current."""
    store.project(CarrierMonth, AirportHour, timeout=600, progress=progress)


def change_the_rule(store: ef.Store, progress: Callable[[int, int], None]) -> RuleChange:
    """Rebuild the table by the new rule, compare, switch, verify, and roll back to the old one.

    It rolls back so that the demonstration can be repeated on one store.
    """
    admin = store.projections
    before = _late(store)
    began = time.perf_counter()
    admin.rebuild(CarrierMonthAsReported, progress=progress)
    seconds = time.perf_counter() - began
    comparison = admin.compare(CarrierMonthAsReported)
    admin.switch(CarrierMonthAsReported)
    after = _late(store)
    proofs = admin.verify(CarrierMonthAsReported, AirportHour)
    admin.rollback(CarrierMonth)
    return RuleChange(
        rows=comparison.rows,
        digests=comparison.digests,
        different=comparison.different,
        late={carrier: (before[carrier], after[carrier]) for carrier in before},
        events=max(proof.counted for proof in proofs),
        seconds=round(seconds, 3),
        proofs={proof.name: proof.verdict for proof in proofs},
        proved=all(proof.proved for proof in proofs),
    )


def _late(store: ef.Store) -> dict[str, int]:
    """Departures that count as late in the live table, by carrier."""
    late: dict[str, int] = {}
    for row in store.rows(CarrierMonth):
        late[row.carrier] = late.get(row.carrier, 0) + row.late
    return late
