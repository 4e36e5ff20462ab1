"""Progress of followers, effects and processes, copied along with a log into another store.

Read models can be rebuilt from the log; which effects ran and which events were acknowledged cannot. So the copy gets
the checkpoints, ledgers and parked events of the original. If the copy takes over the store's identity, all work at
the original is ended before they are read there.
Knows: records, checkpoints, marks and parked events of two targets. Does not know: how a log is copied.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from eventfold.core.tally import Tally
from eventfold.log.copy import Copied, has_succeeded
from eventfold.ports.engine import Engine
from eventfold.ports.target import (
    Checkpoint,
    CheckpointUpdate,
    ControlTransaction,
    ParkedEvent,
    PartitionKey,
    ProjectionRecord,
    Target,
)
from eventfold.projections.commands import until_undisturbed
from eventfold.projections.failures import marks_of
from eventfold.projections.generations import COMPLETE_PROGRESS, complete_progress_record, keeps_progress
from eventfold.projections.leases import is_dead_holder

QUIET_TIMEOUT_S = 30.0  # how long to wait for pages in progress at the original
POLL_S = 0.05  # pause between two reads of the leases


class Handover:
    """Copies the progress that belongs to one copy of a log: create it before the copy, call `finish` afterwards.

    `here` and `there`: the targets with the progress of the original and of the copy, or None. `engines`: of both.
    `succeeds`: whether the copy takes over the store's identity; then call `begin` in between.
    """

    def __init__(
        self, here: Target | None, there: Target | None, engines: tuple[Engine, Engine], *, succeeds: bool
    ) -> None:
        self._engine, self._copy = engines
        self._names: list[str] = []
        shared = here is None or here is there or (there is not None and _is_same_place(here, there))
        self._here, self._there = (None, None) if shared else (here, there)
        succeeds = succeeds or has_succeeded(*engines)
        self._kept = [] if self._here is None or succeeds else read_progress(self._here)
        self._succeeds = succeeds

    def begin(self) -> None:
        """End all work at the original, before the copy gets its identity. Raises TargetUnavailable."""
        if self._here is not None:
            epoch = self._engine.epoch + 1
            moved = end_progress(self._here, epoch)
            if self._there is not None:
                self._names = write_progress(self._there, moved, self._engine.store_id, epoch)

    def finish(self, copied: Copied) -> Copied:
        """Write the progress after the log was copied; return the outcome with the names of what was written."""
        if self._there is not None and not self._succeeds:
            self._names = write_progress(self._there, self._kept, self._copy.store_id, self._copy.epoch)
        return msgspec.structs.replace(copied, progress=tuple(self._names))


def _is_same_place(here: Target, there: Target) -> bool:
    return here.address == there.address and ":memory:" not in here.address


class KeptProgress(msgspec.Struct, frozen=True):
    """The stored progress of one follower, effect or process: `marks` and `entries` for each of its checkpoints."""

    record: ProjectionRecord
    checkpoints: tuple[Checkpoint, ...]
    marks: tuple[tuple[tuple[int, Tally], ...], ...]
    entries: tuple[tuple[ParkedEvent, ...], ...]


def read_progress(target: Target) -> list[KeptProgress]:
    """Read from a target all progress that cannot be rebuilt from the log."""
    return [_read(target, each, target.checkpoints(each.name, each.live)) for each in target.records() if _moves(each)]


def end_progress(target: Target, epoch: int) -> list[KeptProgress]:
    """End all work on it, then read the progress: pause each, wait for pages in progress, take the leases away.

    `epoch`: of the store that takes over. Raises TargetUnavailable.
    """
    moving = [each for each in target.records() if _moves(each)]
    because = f"the store was copied, and this goes on in the copy, in epoch {epoch}"
    for each in moving:
        _pause(target, each.name, because)
    return [_end(target, each) for each in moving]


def write_progress(target: Target, progress: Sequence[KeptProgress], store: str, epoch: int) -> list[str]:
    """Write progress into the target of a copy; return the names that were written. `store` and `epoch`: of the copy.

    Skips names of which a runner or follower has claimed a lease there already.
    """
    names = [each.record.name for each in progress if _write(target, each, store, epoch)]
    with target.control(COMPLETE_PROGRESS) as tx:
        if tx.record() is None:
            tx.save_record(complete_progress_record())
    return names


def _moves(record: ProjectionRecord) -> bool:
    return record.kind in keeps_progress


def _read(target: Target, record: ProjectionRecord, checkpoints: Sequence[Checkpoint]) -> KeptProgress:
    return KeptProgress(
        record,
        tuple(checkpoints),
        tuple(tuple(marks_of(target, each.place)) for each in checkpoints),
        tuple(tuple(target.parked(each.place)) for each in checkpoints),
    )


def _pause(target: Target, name: str, because: str) -> None:
    def attempt() -> None:
        with target.control(name) as tx:
            record = tx.record()
            if record is not None and not record.paused:
                tx.save_record(msgspec.structs.replace(record, paused=because))

    until_undisturbed(target, name, attempt)


def _end(target: Target, record: ProjectionRecord) -> KeptProgress:
    """Wait until runners have noticed the pause and released their leases; after the timeout take the leases away."""
    ends = time.monotonic() + QUIET_TIMEOUT_S
    while record.kind != "follower" and time.monotonic() < ends and _is_worked_on(target, record):
        time.sleep(POLL_S)

    def attempt() -> None:
        with target.control(record.name) as tx:
            for each in tx.checkpoints(record.live):
                tx.update_checkpoint(each.place, token=each.token + 1, holder="", expires=0)

    until_undisturbed(target, record.name, attempt)
    return _read(target, record, target.checkpoints(record.name, record.live))


def _is_worked_on(target: Target, record: ProjectionRecord) -> bool:
    now = target.now()
    checkpoints = target.checkpoints(record.name, record.live)
    return any(each.holder and each.expires > now and not is_dead_holder(each.holder) for each in checkpoints)


def _write(target: Target, progress: KeptProgress, store: str, epoch: int) -> bool:
    """Write each checkpoint at its first mark, then advance it through the others, so that `verify` can recount it.

    Returns False and writes nothing if a lease was claimed here before.
    """
    record = msgspec.structs.replace(
        progress.record, live=1, previous=None, building=None, paused="", tables=(), kind=progress.record.kind
    )
    begun = [
        _begun(checkpoint, number, marks[0], store, epoch)
        for number, (checkpoint, marks) in enumerate(zip(progress.checkpoints, progress.marks, strict=True))
    ]
    with target.control(record.name) as tx:
        existing = tx.record()
        if existing is not None and (existing.kind != record.kind or any(each.token for each in tx.checkpoints())):
            return False
        _replace(tx, record, begun)
    begun = target.checkpoints(record.name, 1)  # read again, with the revisions that the target assigned
    for checkpoint, was, marks, entries in zip(
        begun, progress.checkpoints, progress.marks, progress.entries, strict=True
    ):
        for position, seen in marks[1:]:
            checkpoint = _advance(
                target,
                checkpoint,
                CheckpointUpdate(position=position, event_id="", epoch=epoch, seen=seen, handled=seen, mark=True),
            )
        _advance(
            target,
            checkpoint,
            CheckpointUpdate(
                position=was.position,
                event_id=was.event_id,
                epoch=epoch,
                seen=was.seen,
                handled=was.handled,
                parked=entries,
                stopped=was.stopped,
                stats=was.stats,
            ),
        )
    return True


def _replace(tx: ControlTransaction, record: ProjectionRecord, begun: Sequence[Checkpoint]) -> None:
    if tx.record() is not None:  # of an earlier copy, on which nothing has worked
        tx.forget(())
    tx.create(record, {}, begun)


def _begun(checkpoint: Checkpoint, partition: int, mark: tuple[int, Tally], store: str, epoch: int) -> Checkpoint:
    position, seen = mark
    return Checkpoint(
        place=PartitionKey(checkpoint.place.name, 1, partition),
        store=store,
        epoch=epoch,
        position=position,
        seen=seen,
        handled=seen,
        query=checkpoint.query,
        fingerprint=checkpoint.fingerprint,
        partitions=checkpoint.partitions,
    )


def _advance(target: Target, checkpoint: Checkpoint, step: CheckpointUpdate) -> Checkpoint:
    with target.transaction(checkpoint.place) as tx:
        return tx.advance(checkpoint, step)
