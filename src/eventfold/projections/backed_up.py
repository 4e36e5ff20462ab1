"""Backups as events of the log: a copy was made, up to which head, so that its age can be watched.

Knows: the event, where the last one is. Does not know: how a copy is made, metrics.
"""

from __future__ import annotations

from eventfold.concurrency import run
from eventfold.core.event import Event
from eventfold.core.query import Query
from eventfold.log.context import Log
from eventfold.ports.messages import Span

TYPE = "$backed-up"
TAG = f"{TYPE}:log"


class BackedUp(Event, type="$backed-up"):
    """The log was copied. `head`: the last position in the copy; `bytes`: the size of the copy."""

    head: int
    bytes: int


def last_backup_at(log: Log, head: int) -> int | None:
    """Return when the last backup up to `head` was recorded, in µs since 1970 UTC; None if none was."""
    page = run(log.engine.read(Query.of(types=[TYPE]), Span(until=head, backwards=True, limit=1)))
    return page.events[-1].time if page.events else None
