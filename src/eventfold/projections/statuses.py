"""The statuses of many projections: each target is asked for all its checkpoints and parked events at once.

So the number of statements does not grow with the number of projections, except for those that are behind. Knows: which
facts a status needs. Does not know: what it says (status.py does).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from eventfold.concurrency import run
from eventfold.errors import EventfoldError, InvalidProjection, TargetUnavailable, UnknownProjection
from eventfold.log.context import Log
from eventfold.ports.target import Checkpoint, ParkedEvent, PartitionKey, ProjectionRecord, Target
from eventfold.projections.failures import entries_of, is_complete
from eventfold.projections.log_facts import LogFacts
from eventfold.projections.status import Status, status_from, unreachable_status

AWAY = (TargetUnavailable, InvalidProjection, UnknownProjection)  # errors about where the rows of one projection are


class LiveProgress:
    """The checkpoints and parked events of all live generations of one target, and its time when they were read."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._checkpoints: dict[tuple[str, int], list[Checkpoint]] = {}
        for checkpoint in target.live_checkpoints():
            place = checkpoint.place
            self._checkpoints.setdefault((place.name, place.generation), []).append(checkpoint)
        self._parked: dict[PartitionKey, list[ParkedEvent]] = {}
        for key, entry in target.live_parked():
            self._parked.setdefault(key, []).append(entry)
        self.now = target.now()

    def checkpoints(self, record: ProjectionRecord) -> list[Checkpoint]:
        """Return the checkpoints of the live generation. Raises ProjectionDamaged if some are missing."""
        found = self._checkpoints.get((record.name, record.live), [])
        if [each.place.partition for each in found] == list(range(found[0].partitions if found else 1)):
            return found
        return self._target.checkpoints(record.name, record.live)  # it changed meanwhile, or is damaged

    def entries(self, checkpoint: Checkpoint) -> list[ParkedEvent]:
        """Return the parked events of a checkpoint. Raises ProjectionDamaged if some are missing."""
        found = self._parked.get(checkpoint.place, [])
        return found if is_complete(checkpoint, found) else entries_of(self._target, checkpoint)


Located = tuple[ProjectionRecord, Target | EventfoldError]  # the error says why the target cannot be found


class Observed(msgspec.Struct, frozen=True):
    """A projection at one moment: its status, and the checkpoints and entries of the live generation that it shows."""

    status: Status
    checkpoints: list[Checkpoint] = []
    entries: list[ParkedEvent] = []


def statuses(log: Log, projections: Sequence[Located], *, tolerant: bool) -> list[Status]:
    """Return the status of each projection. `tolerant`: one whose target is unavailable gets a status that says so.

    Otherwise its error is raised.
    """
    return [each.status for each in observe(log, projections, tolerant=tolerant)]


def observe(log: Log, projections: Sequence[Located], *, tolerant: bool) -> list[Observed]:
    """Return the same with what each status was made from."""
    facts = LogFacts(log)
    head = run(facts.head())  # before the checkpoints: an append moves both for an inline projection
    targets: dict[int, LiveProgress | EventfoldError] = {}
    found: list[Observed] = []
    for record, target in projections:
        try:
            if isinstance(target, EventfoldError):
                raise target
            progress = _progress_of(target, targets)
            checkpoints = progress.checkpoints(record)
            entries = [entry for each in checkpoints for entry in progress.entries(each)]
            status = run(status_from(facts, target, record, progress.now, checkpoints, entries))
            found.append(Observed(status, checkpoints, entries))
        except AWAY as error:
            if not tolerant:
                raise
            found.append(Observed(unreachable_status(record, head, error)))
    return found


def _progress_of(target: Target, known: dict[int, LiveProgress | EventfoldError]) -> LiveProgress:
    """The progress of a target, read once; so is the error of one that cannot be read."""
    found = known.get(id(target))
    if found is None:
        try:
            found = LiveProgress(target)
        except TargetUnavailable as error:
            found = error
        known[id(target)] = found
    if isinstance(found, EventfoldError):
        raise found
    return found
