"""One step of a projection: claim a partition, commit its next page, or return why nothing was done.

Knows: the order of these steps. Does not know: clocks (one is a parameter), threads, who runs it, how targets work.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import Enum, auto

from eventfold.core.envelope import StoredEvent
from eventfold.errors import CursorMismatch, LeaseLost, ProjectionDamaged, UnknownProjection
from eventfold.ports.messages import Page
from eventfold.ports.target import Checkpoint, CheckpointChanged, ParkedEvent, PartitionKey
from eventfold.projections.definition import ProjectionDefinition
from eventfold.projections.failures import (
    NO_EVENT,
    FailurePolicy,
    Park,
    ParkedEvents,
    Retry,
    Stop,
    StopReason,
    ahead_of_log_error,
    describe_error,
    entries_of,
)
from eventfold.projections.page import DecodedEvent, HandlerFailed
from eventfold.projections.page_commit import PageCommit
from eventfold.projections.partition_lease import PartitionLease, WorkerContext

_UNOBSERVED = nullcontext()
MAX_UNREPORTED = 100  # newest parked events that are kept in memory until the runner logs them


class StepResult(Enum):
    """The result of a step."""

    PROGRESSED = auto()
    IDLE = auto()
    LEASE_HELD_ELSEWHERE = auto()
    PAUSED = auto()
    STOPPED = auto()
    SUPERSEDED = auto()  # this generation is neither live nor being built


class PartitionWorker:
    """Works on one partition of one generation, for one lease holder: call `await step()` again and again.

    `newly_parked`: events that it parked and that are not logged yet; `paused_because`: the reason of a pause;
    `ended_by`: an exception of user code that stopped it and is not an Exception, such as SystemExit.
    `last_page`: of the last step, how many positions its page covered, and whether more events followed; None where it
    committed no whole page.
    """

    def __init__(
        self, definition: ProjectionDefinition, context: WorkerContext, partition_key: PartitionKey, holder: str
    ) -> None:
        self.definition, self.context, self.partition_key = definition, context, partition_key
        self.lease = PartitionLease(context, partition_key, holder)
        self.newly_parked: list[ParkedEvent] = []
        self.paused_because = ""
        self.ended_by: BaseException | None = None
        self.last_page: tuple[int, bool] | None = None
        self._parked = ParkedEvents()
        self._failures = FailurePolicy(definition)
        self._commit = PageCommit(definition, self.lease, self._parked)
        self._state = StepResult.PROGRESSED  # PAUSED, STOPPED and SUPERSEDED: no page may be committed

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint; None while its lease is not held."""
        return self.lease.checkpoint

    async def step(self) -> StepResult:
        """Claim the lease, retry a due event or commit a page, whichever is next.

        Raises TargetUnavailable, StoreUnavailable, CursorMismatch, ProjectionDamaged.
        """
        lease = self.lease
        self.last_page = None
        try:
            if self._commit.changed_meanwhile:
                self._commit.changed_meanwhile = False
                if lease.checkpoint is not None:
                    self._reload()
            if lease.checkpoint is not None and lease.may_expire_within(2 / 3):
                self.renew_lease()  # here, since a runner that always has work never gets to its idle renewal
            if lease.checkpoint is not None and lease.is_of_old_epoch:
                self.release()  # rows in memory may include events that the failover lost: reload the stored rows
            if lease.checkpoint is None:
                if self._is_paused():
                    return StepResult.PAUSED
                try:
                    if not await self.claim():
                        return StepResult.LEASE_HELD_ELSEWHERE
                except UnknownProjection:
                    if self._is_replaced():
                        return StepResult.SUPERSEDED
                    raise
            if self._state is StepResult.PAUSED:
                self.release()  # so that an operator who paused it sees that the page in progress is committed
            if self._state is not StepResult.PROGRESSED:
                return self._state
            if due := self._parked.first_due():
                await self._commit.retry(due)
                return StepResult.PROGRESSED
            return await self._commit_next_page()
        except CheckpointChanged:
            self._reload()
            return StepResult.PROGRESSED
        except LeaseLost:
            lease.note_lost()
            return StepResult.LEASE_HELD_ELSEWHERE
        except CursorMismatch as error:
            raise ahead_of_log_error(self.partition_key.name, self.definition.kind, error) from error

    # The lease

    async def claim(self) -> bool:
        """Claim the lease and load the stored state. Returns False while another holder has the lease."""
        if not await self.lease.claim():
            return False
        self._load_state()
        await self._commit.begin()
        return True

    def renew_lease(self) -> None:
        """Renew the lease, and reload the state if an operator changed it. Call it every few seconds while idle."""
        if self.lease.checkpoint is None:
            return
        try:
            if not self.lease.renew():
                self._reload()
        except LeaseLost:
            self.lease.note_lost()

    def release(self) -> None:
        """Release the lease, so that another holder can claim it at once."""
        self._commit.forget()
        self.lease.release()

    def _is_replaced(self) -> bool:
        """Whether this generation was dropped, and another one is the live one."""
        record = self.context.target.record(self.partition_key.name)
        return record is not None and self.partition_key.generation not in (record.live, record.building)

    def _is_paused(self) -> bool:
        record = self.context.target.record(self.partition_key.name)
        self.paused_because = "" if record is None else record.paused
        return bool(self.paused_because)

    def _reload(self) -> None:
        """Read the checkpoint and the parked events again, after an operator changed something."""
        self._commit.forget()
        self._failures.reset()
        if self.lease.reload():
            self._load_state()

    def _load_state(self) -> None:
        """Read the parked events, and whether the projection is paused, stopped or superseded."""
        target, checkpoint = self.context.target, self.lease.claimed
        try:
            self._parked.load(entries_of(target, checkpoint))
        except ProjectionDamaged:
            target.release(checkpoint)
            raise
        record = target.record(self.partition_key.name)
        if record is None or (
            checkpoint.until is None and self.partition_key.generation not in (record.live, record.building)
        ):
            self._state = StepResult.SUPERSEDED
        elif record.paused:
            self._state, self.paused_because = StepResult.PAUSED, record.paused
        else:
            self._state = StepResult.STOPPED if checkpoint.stopped else StepResult.PROGRESSED

    # Pages

    async def _commit_next_page(self) -> StepResult:
        checkpoint, began = self.lease.claimed, self.context.clock()
        page, items = await self._commit.read()
        if self.lease.is_of_old_epoch:
            return StepResult.PROGRESSED
        if page.scanned < checkpoint.position and (checkpoint.until is None or checkpoint.until >= checkpoint.position):
            raise CursorMismatch(
                f"{self.partition_key.name} is at position {checkpoint.position}, but the log ends at {page.scanned}.",
                "The log was restored.",
                position=checkpoint.position,
            )
        if page.scanned <= checkpoint.position:
            return await self._at_head(StepResult.IDLE)
        events = self._failures.select(page.events)
        result = await self._commit_events(page, events, items if events is page.events else None, began)
        if self.lease.claimed.position == page.scanned:
            self.last_page = page.scanned - checkpoint.position, page.more
            if not page.more and result is StepResult.PROGRESSED:
                return await self._at_head(result)
        return result

    async def _at_head(self, result: StepResult) -> StepResult:
        """Note that every event is stored, and return `result`; stop where user code fails without an event."""
        try:
            await self._commit.at_head()
        except HandlerFailed as failed:
            self.ended_by = None if isinstance(failed.error, Exception) else failed.error
            self._commit.stop(StopReason(NO_EVENT, "", failed.handler, describe_error(failed), 1))
            self._state = StepResult.STOPPED
            return StepResult.STOPPED
        return result

    async def _commit_events(
        self, page: Page, events: Sequence[StoredEvent], items: Sequence[DecodedEvent] | None, began: float
    ) -> StepResult:
        """Commit events of a page. `items`: the same events decoded, or None."""
        try:
            with self._observed(events):
                if items is None:
                    items = self._commit.decode(events)
                check_each_key = self._failures.isolating_through > 0
                if await self._commit.commit(page, events, items, began, check_each_key=check_each_key):
                    self._failures.reset()
        except HandlerFailed as failed:
            return await self._handle_failure(failed, events, items or ())
        return StepResult.PROGRESSED

    def _observed(self, events: Sequence[StoredEvent]) -> AbstractContextManager[None]:
        """Return what the observer puts around the commit of a page."""
        observer = self.context.observer
        return _UNOBSERVED if observer is None or not events else observer.page(self.definition, events, self.lease)

    async def _handle_failure(
        self, failed: HandlerFailed, events: Sequence[StoredEvent], items: Sequence[DecodedEvent]
    ) -> StepResult:
        """Find the event that failed; commit those before it; then do what the policy decides."""
        if self.lease.is_of_old_epoch:
            return StepResult.PROGRESSED  # a failover may have lost the event: the next step verifies the checkpoint
        index = failed.index
        if index is None:
            if self._failures.isolate(events, items):
                return StepResult.PROGRESSED
            index = items[0].at if items else 0
        event = events[index]
        before = self._failures.independent_before(event, events[:index])
        if before:  # they do not depend on the failed event
            page = Page(before, before[-1].position, False)
            return await self._commit_events(page, before, None, self.context.clock())
        match self._failures.decide(failed, event, self._commit.decode_one):
            case Retry(pause):
                await self.context.log.runtime.sleep(pause)
                return StepResult.PROGRESSED
            case Park(entry):
                self._commit.park(event, entry)
                self._failures.reset()
                self.newly_parked = [*self.newly_parked[1 - MAX_UNREPORTED :], entry]
                return StepResult.PROGRESSED
            case Stop(reason, cause):
                self.ended_by = cause
                self._commit.stop(reason)
                self._state = StepResult.STOPPED
                return StepResult.STOPPED
