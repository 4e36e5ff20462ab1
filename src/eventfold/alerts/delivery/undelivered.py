"""What was not delivered: for each target the messages that failed or wait, since when, and the last error.

Knows: the progress of effects, messages in the log. Does not know: targets themselves, runners.
"""

from __future__ import annotations

import msgspec

from eventfold.alerts.delivery.delivery import PREFIX
from eventfold.alerts.delivery.message import MESSAGE, target_tag
from eventfold.concurrency import run
from eventfold.core.query import Item, Query
from eventfold.ports.messages import Span
from eventfold.processes.retries import live_checkpoints
from eventfold.projections.admin import ProjectionAdmin


class TargetStatus(msgspec.Struct, frozen=True):
    """A target that was run on the store.

    `failed`: the messages that were tried and not delivered, or wait for such a one of the same alert. `waiting`: those
    that were not tried yet. `since`: when the first of the failed ones was written, in µs since 1970 UTC; 0: none
    failed. `error`, `attempts`: of that one. `runs`: whether a runner holds its lease.
    """

    name: str
    failed: int
    waiting: int
    since: int = 0
    error: str = ""
    attempts: int = 0
    runs: bool = False

    @property
    def undelivered(self) -> int:
        """How many messages were not delivered."""
        return self.failed + self.waiting

    @property
    def progress(self) -> str:
        """The name of its progress, for `eventfold processes`."""
        return f"{PREFIX}{self.name}"


def target_statuses(admin: ProjectionAdmin) -> list[TargetStatus]:
    """Return the targets that were run on a store, those with undelivered messages first, then by name."""
    rows = admin.catalog.target_at()
    names = [each.name for each in rows.records() if each.kind == "effects" and each.name.startswith(PREFIX)]
    found = [_status_of(admin, name) for name in names]
    return sorted(found, key=lambda each: (not each.failed, each.name))


def _status_of(admin: ProjectionAdmin, progress: str) -> TargetStatus:
    name = progress.removeprefix(PREFIX)
    checkpoints = live_checkpoints(admin.catalog.target_at(), progress)
    failed = sorted(
        (each for each in admin.parked(progress) if each.state != "skipped"), key=lambda each: each.position
    )
    position = min((each.position for each in checkpoints), default=0)
    waiting = run(admin.log.engine.count(Query((Item((MESSAGE,), (target_tag(name),)),)), position))
    runs = any(each.holder for each in checkpoints)
    if not failed:
        return TargetStatus(name, 0, waiting, runs=runs)
    first = failed[0]
    page = run(admin.log.engine.read(Query(), Span(after=first.position - 1, until=first.position)))
    since = page.events[0].time if page.events else 0
    return TargetStatus(name, len(failed), waiting, since, first.error, first.attempts, runs)
