"""The comparison: both sides as totals by key and period, and where they differ.

Knows: totals. Does not know: how events and rows are read.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from eventfold.reconcile.events import Cell, positions_of, totals_of
from eventfold.reconcile.measures import Ours, Theirs, check
from eventfold.reconcile.result import Difference, Result, Total
from eventfold.reconcile.sources import rows_of
from eventfold.reconcile.values import MISSING, key_of, moment_of, number_of, whole_number_of
from eventfold.store import Store

LISTED = 20  # differences that are listed, by default
NAMED = 3  # keys that the verdict names


def reconcile(store: Store, ours: Ours, theirs: Theirs, *, limit: int = LISTED) -> Result:
    """Compare the events of a store with rows outside, by key and perhaps by period: counts, and sums if named.

    `limit` is how many differences are listed. The rows outside are read first, then the events up to the head at that
    moment: what is recorded while both are read may be missing outside. Leave it out by `until`.

    Raises InvalidInput, InvalidFilter, SourceUnavailable, MissingExtra, StoreUnavailable errors.
    """
    check(ours, theirs)
    outside = _outside(ours, theirs)
    head = store.head()
    here = totals_of(store, ours, head)
    cells = here.keys() | outside.keys()
    differing = [cell for cell in cells if here.get(cell, Total()) != outside.get(cell, Total())]
    differing.sort(key=lambda cell: (-_size(here.get(cell), outside.get(cell)), cell))
    listed = differing[: max(limit, 0)]
    positions = positions_of(store, ours, head, {cell for cell in listed if cell in here})
    has_sums = ours.sum is not None
    differences = tuple(
        Difference(
            key=cell[0],
            period=cell[1],
            events=(mine := here.get(cell, Total())).count,
            rows=(other := outside.get(cell, Total())).count,
            sum=mine.sum if has_sums else None,
            sum_outside=other.sum if has_sums else None,
            positions=positions.get(cell, ()),
        )
        for cell in listed
    )
    events, rows = (sum(each.count for each in side.values()) for side in (here, outside))
    result = Result(
        equal=not differing,
        verdict="",
        head=head,
        events=events,
        rows=rows,
        keys=len(cells),
        differing=len(differing),
        differences=differences,
    )
    return msgspec.structs.replace(result, verdict=_verdict(result, ours))


def _outside(ours: Ours, theirs: Theirs) -> dict[Cell, Total]:
    found: dict[Cell, Total] = {}
    for number, row in enumerate(rows_of(theirs), 1):
        moment = None
        if theirs.time is not None:
            moment = moment_of(row.get(theirs.time, MISSING), f"{theirs.time} of row {number} outside", ours.zone)
            if not ours.contains(moment):
                continue
        count, amount = 1, Decimal(0)
        if theirs.count is not None:
            count = whole_number_of(row.get(theirs.count, MISSING), f"{theirs.count} of row {number} outside")
        if theirs.sum is not None:
            amount = number_of(row.get(theirs.sum, MISSING), f"{theirs.sum} of row {number} outside")
        period = "" if moment is None else ours.period(moment)
        found.setdefault((key_of(row.get(theirs.key)), period), Total()).add(count, amount)
    return found


def _size(mine: Total | None, other: Total | None) -> Decimal:
    """How large a difference is, to list the largest first: by sums, else by counts."""
    mine, other = mine or Total(), other or Total()
    return abs(mine.sum - other.sum) or Decimal(abs(mine.count - other.count))


def _verdict(result: Result, ours: Ours) -> str:
    what = "key" if ours.by is None else f"key and {ours.by}"
    if result.equal:
        return f"Both sides agree: {_counted(result.events, 'event')} by {what}, {_counted(result.keys, 'value')}."
    names = ", ".join(each.key + (f" ({each.period})" if each.period else "") for each in result.differences[:NAMED])
    more = " and others" if result.differing > NAMED else ""
    return (
        f"{result.differing:,} of {_counted(result.keys, 'value')} by {what} differ"
        + (f", first {names}{more}" if names else "")
        + f": {_counted(result.events, 'event')} here, {result.rows:,} outside."
    )


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" + "s" * (number != 1)
