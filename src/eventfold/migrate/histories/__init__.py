"""Histories that a source already has: tables of well-known packages, recognised by their columns.

Knows: the list of packages. Does not know: events.
"""

from __future__ import annotations

from eventfold.migrate.mapping import History
from eventfold.migrate.reflection import Schema


def recognise(schema: Schema) -> dict[str, History]:
    """Return the history tables of a source, by label."""
    return {}
