"""Compaction: adjoining runs of the index are replaced by a single one, in slices, so that reads ask few runs.

Runs are of classes by their number of events: small ones, which short-lived processes leave, are joined in pairs, the
others eight at a time. So each event is copied once for each class, and a log of ten million events has about a dozen
runs. All that a compaction has done is in the tables: any process goes on where another one ended.
Knows: which runs are joined, slices. Does not know: transactions, when a slice is due (index_merging.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import apsw

from eventfold.engines.sqlite import runs
from eventfold.engines.sqlite.errors import index_error
from eventfold.engines.sqlite.postings import join
from eventfold.engines.sqlite.runs import BEING_WRITTEN, COMPLETE, POSTING_COLUMNS, REPLACED, Run

SMALL_EVENTS = 512  # runs below are joined as soon as there are two of a class, which spans a factor of two
FANOUT = 8  # larger runs of a class, which spans a factor of eight, are joined so many at a time
POSTINGS_IN_MEMORY = 8_192
SLICES_TOGETHER = 16  # of so many postings, for a process that closes or imports: some tenths of a second at most
MAX_JOINED = 48  # at once; SQLite joins at most 500 statements


def runs_to_join(complete: Sequence[Run]) -> Sequence[Run]:
    """The newest adjoining runs that are to be replaced by one; none if no compaction is due.

    A run is joined with smaller ones before it, so that the classes never increase from the oldest run to the newest:
    there are fewer than `FANOUT` runs of each class, and one of each class of small ones.
    """
    if not complete:
        return ()
    newest = _class(complete[-1].events)
    first = len(complete) - 1
    while first and _class(complete[first - 1].events) < newest:
        first -= 1
    if first == len(complete) - 1:  # none is smaller
        while first and _class(complete[first - 1].events) == newest:
            first -= 1
        if len(complete) - first < (2 if newest < _SMALL else FANOUT):
            return ()
    return complete[first:][-MAX_JOINED:]


def _class(events: int) -> int:
    """0, 1, … for small runs, by factors of two; then by factors of `FANOUT`."""
    if events < SMALL_EVENTS:
        return events.bit_length() - 1
    size = _SMALL
    while (events := events // FANOUT) >= SMALL_EVENTS:
        size += 1
    return size


_SMALL = SMALL_EVENTS.bit_length() - 1


def compact(connection: apsw.Connection, most: int, max_events: int | None = None) -> bool:
    """Copy or delete about `most` postings, within the caller's transaction. Returns whether more may be to be done.

    `max_events`: nothing is done for a compaction of more events.
    """
    known = runs.read_runs(connection)
    complete = [run for run in known if run.state == COMPLETE]
    through = complete[-1].end if complete else 0
    for run in known:
        if run.state == REPLACED:
            most = runs.delete_postings(connection, run, most)
            if most <= 0:
                return True
    target = next((run for run in known if run.state == BEING_WRITTEN and run.end <= through), None)
    if target is None:
        sources = runs_to_join(complete)
        if not sources or (max_events is not None and sources[-1].end - sources[0].start > max_events):
            return False
        target = runs.add_run(connection, sources[0].start, sources[-1].end)
    elif max_events is not None and target.events > max_events:
        return False
    else:
        sources = [run for run in complete if target.start <= run.start and run.end <= target.end]
    written = runs.last_key(connection, target)
    if written is None:  # changed on disk: begun again
        runs.discard(connection, target)
        return True
    if _copy(connection, sources, target, written, most):
        for run in sources:
            runs.set_state(connection, run, REPLACED)
        runs.set_state(connection, target, COMPLETE)
    return True


def compact_more(connection: apsw.Connection, max_events: int | None = None) -> None:
    """Compact as much as has time within one transaction. What is left is done by later slices, of any process."""
    for _ in range(SLICES_TOGETHER):
        if not compact(connection, POSTINGS_IN_MEMORY, max_events):
            return


def _copy(
    connection: apsw.Connection, sources: Sequence[Run], target: Run, written: tuple[int, int], most: int
) -> bool:
    """Copy the next postings of the sources. Returns whether all are copied, and the target is complete."""
    if not sources or (sources[0].start, sources[-1].end) != (target.start, target.end):
        raise index_error(f"run {target.id} of the index has other ends than the runs that it is made of")
    cursor = connection.execute(_in_order(sources), written)
    try:
        rows = list(islice(cursor, most))
    finally:
        cursor.close(True)
    runs.insert_postings(connection, target, join(rows))
    return len(rows) < most


def _in_order(sources: Sequence[Run]) -> str:
    """SQL for the postings of several runs after a key, in one order, read as far as they are fetched."""
    each = f"SELECT {POSTING_COLUMNS} FROM posting WHERE run = {{}} AND (tag, last) > (?1, ?2)"
    return f"{' UNION ALL '.join(each.format(run.id) for run in sources)} ORDER BY tag, last"
