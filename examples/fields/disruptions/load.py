"""Loads the flights of 2013 out of New York, as the flights demonstration does.

Knows: the demonstration's source and loader. Does not know: rules, disruptions. `eventfold.demo.flights.source`
describes the columns. A row here is an occurrence: a flight was announced, left, arrived, ….
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import eventfold as ef
from eventfold.demo.fields import LoadCount
from eventfold.demo.flights.load import load as load_flights
from eventfold.demo.flights.source import Source, unpack


def load(store: ef.Store, limit: int | None = None) -> LoadCount:
    """Write the flights; a second run finds them and writes nothing. `limit`: the first flights by their schedule.

    Raises InvalidInput if the store has other events, or another number of flights.
    """
    count = LoadCount()
    with tempfile.TemporaryDirectory(prefix="eventfold-disruptions-") as folder:
        source = Source(unpack(Path(folder)), limit)
        try:
            is_new = store.head() == 0
            loaded = load_flights(store, source, lambda _done, _all: None)
        finally:
            source.close()
    count.read, count.loaded, count.repeated = loaded.events, loaded.appended, loaded.found
    count.made = int(is_new)  # the mark of the load
    count.events = loaded.appended + count.made
    return count
