"""The lease of one worker on one partition, and the checkpoint that it protects.

Knows: when a lease is claimed, renewed and checked, in which epoch the checkpoint was verified. Does not know: clocks
(one is a parameter), threads, the work that the lease protects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from eventfold.core.query import Cursor
from eventfold.log.context import Log
from eventfold.log.cursors import verify
from eventfold.ports.target import (
    Checkpoint,
    CheckpointChanged,
    CheckpointUpdate,
    PartitionKey,
    Target,
    TargetTransaction,
)
from eventfold.projections.observer import Observer
from eventfold.projections.prefetch import StartInThread

PAGE_EVENTS = 2_000  # the largest page


class JointCommit(Protocol):
    """Commits pages of several workers in one transaction. See joint_commit.JointCommits."""

    def commit(self, key: PartitionKey, events: int, write: Callable[[TargetTransaction], Checkpoint], /) -> Checkpoint:
        """Commit a page of so many events, which `write` writes, perhaps together with others."""
        ...


class WorkerContext(msgspec.Struct, frozen=True):
    """What a worker uses. `clock` returns seconds; `is_dead_holder` recognizes holders whose process was killed.

    `lease` in seconds. `page`: the most events of a page, and `quiet_page` while no one appends, since no append waits
    for it then; it is not used where pages are prefetched. `start_in_thread` prefetches a page while one is written.
    `catches`: the exceptions that count as failures of user code; outside the main thread also SystemExit and
    KeyboardInterrupt, which no signal handler raises there. `joint`: commits pages of rows together with those of other
    workers; None: alone. `wall_clock` returns the time in µs since 1970 UTC, for watchers of rows.
    `observer`: sees each page that is committed.
    """

    log: Log
    target: Target
    clock: Callable[[], float]
    is_dead_holder: Callable[[str], bool] = lambda _holder: False
    lease: float = 10.0
    page: int = PAGE_EVENTS
    quiet_page: int = 0
    start_in_thread: StartInThread | None = None
    catches: type[BaseException] = Exception
    joint: JointCommit | None = None
    wall_clock: Callable[[], int] = lambda: 0
    observer: Observer | None = None


class PartitionLease:
    """The lease of one holder on one partition of one generation. `checkpoint` is None while it is not held."""

    def __init__(self, context: WorkerContext, partition_key: PartitionKey, holder: str) -> None:
        self.context, self.partition_key, self.holder = context, partition_key, holder
        self.checkpoint: Checkpoint | None = None
        self.verified_epoch = -1  # the store's epoch in which the checkpoint was verified to be of its history
        self._expires = 0.0  # when the lease may expire, by this process's clock

    @property
    def claimed(self) -> Checkpoint:
        """The checkpoint, while the lease is held."""
        assert self.checkpoint is not None
        return self.checkpoint

    @property
    def is_of_old_epoch(self) -> bool:
        """Whether the store has begun another epoch since the checkpoint was verified to be of its history."""
        return self.context.log.engine.epoch != self.verified_epoch

    def may_expire_within(self, share: float) -> bool:
        """Whether less than this share of the lease may be left, by this process's clock. False for a lease of 0 s."""
        lease = self.context.lease
        return lease > 0 and self._expires - self.context.clock() < lease * share

    async def claim(self) -> bool:
        """Claim the lease, also from a dead holder. Returns False if another holder has it. Raises CursorMismatch."""
        context, asked_at = self.context, self.context.clock()
        checkpoint = context.target.claim(self.partition_key, self.holder, context.lease)
        if checkpoint is None:
            current = context.target.checkpoint(self.partition_key)
            if current is None or not current.holder or not context.is_dead_holder(current.holder):
                return False
            asked_at = context.clock()
            checkpoint = context.target.claim(
                self.partition_key, self.holder, context.lease, take_over_from=current.holder
            )
            if checkpoint is None:
                return False
        self._expires = asked_at + context.lease
        self.verified_epoch = context.log.engine.epoch
        cursor = Cursor(checkpoint.store, checkpoint.epoch, checkpoint.position, checkpoint.event_id)
        try:
            await verify(context.log, cursor)
        except BaseException:
            context.target.release(checkpoint)
            raise
        self.checkpoint = checkpoint
        return True

    def renew(self) -> bool:
        """Renew the lease. Returns False if an operator changed the checkpoint since it was read. Raises LeaseLost."""
        checkpoint, asked_at = self.claimed, self.context.clock()
        revision = self.context.target.renew_lease(checkpoint, self.context.lease)
        self.note_renewed(asked_at)
        return revision == checkpoint.revision

    def note_renewed(self, asked_at: float) -> None:
        """Record that the lease was renewed by a call that began at this time of the clock."""
        self._expires = max(self._expires, asked_at + self.context.lease)

    def ensure(self) -> None:
        """Renew the lease if an effect could outlast it. Raises LeaseLost, CheckpointChanged."""
        if self.may_expire_within(1 / 3) and not self.renew():
            raise CheckpointChanged

    def advance(self, tx: TargetTransaction, update: CheckpointUpdate) -> None:
        """Advance the checkpoint in a transaction of its target. Raises LeaseLost, CheckpointChanged."""
        self.checkpoint = tx.advance(self.claimed, update)

    def note_advanced(self, checkpoint: Checkpoint) -> None:
        """Record the checkpoint after a transaction that advanced it was committed."""
        self.checkpoint = checkpoint

    def reload(self) -> bool:
        """Read the checkpoint again, after an operator changed it. Returns False if the lease is lost."""
        current = self.context.target.checkpoint(self.partition_key)
        if current is None or current.token != self.claimed.token:
            self.checkpoint = None
            return False
        self.checkpoint = current
        return True

    def reload_unless_moved(self) -> bool:
        """Read the checkpoint again. Returns False and changes nothing if the lease is lost or the position changed."""
        current, last = self.context.target.checkpoint(self.partition_key), self.claimed
        if current is None or (current.token, current.position, current.handled) != (
            last.token,
            last.position,
            last.handled,
        ):
            return False
        self.checkpoint = current
        return True

    def note_lost(self) -> None:
        """Forget the checkpoint, since another holder has the lease."""
        self.checkpoint = None

    def release(self) -> None:
        """Release the lease, so that another holder can claim it at once."""
        if self.checkpoint is not None:
            self.context.target.release(self.checkpoint)
            self.checkpoint = None
