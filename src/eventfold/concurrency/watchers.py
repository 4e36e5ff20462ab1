"""Calling those who watch an engine for commits. A watcher that raises harms no writer and no other watcher.

Knows: functions. Does not know: who registered them, or what was committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable


def call_all(watchers: Iterable[Callable[[], None]]) -> None:
    """Call each. What one raises goes to the logger "eventfold": what was committed stays committed."""
    for watcher in watchers:
        try:
            watcher()
        except Exception:
            import logging  # here: hardly any process needs it

            logging.getLogger("eventfold").exception("A function that watches a store for commits raised an error.")
