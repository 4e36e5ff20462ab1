"""Filters of live readers and consumers: a line of the filter language as a predicate on stored events.

Knows: that filters are not served yet. Does not know: the filter language (search/ does).
"""

from __future__ import annotations

from collections.abc import Callable

from eventfold.core.envelope import StoredEvent
from eventfold.errors import InvalidQuery


def predicate_of(text: str) -> Callable[[StoredEvent], bool]:
    """Return the predicate of a filter; of an empty text, one that selects every event. Raises InvalidQuery."""
    if text:
        raise InvalidQuery("Filters are not supported yet.", "Select by types and tags.")
    return lambda stored: True
