"""One step of a projection: read a page, fold it, write rows and checkpoint together, or say why not.

Knows: the order of these steps, what follows a failure, what the ledger counts. Does not know: clocks (it is given
one), threads, who runs it, what a target is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal

import msgspec

from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Cursor
from eventfold.core.tally import tally
from eventfold.errors import CursorMismatch, LeaseLost, ProjectionDamaged
from eventfold.log.context import Log, writing_to
from eventfold.log.cursors import verify
from eventfold.ports.messages import Page, Span
from eventfold.ports.target import Checkpoint, CheckpointChanged, CheckpointUpdate, ParkedEvent, PartitionKey, Target
from eventfold.projections.definition import ProjectionDefinition
from eventfold.projections.failures import (
    KEYLESS_NOTE,
    StopReason,
    ahead_of_log_error,
    blocked_keys,
    entries_of,
    first_due,
    key_for_keyless,
    keys_of,
    must_wait,
    parked_entry,
    split_by_blocked,
)
from eventfold.projections.fold import HandlerDispatch, RowCache, Throughput, Timing
from eventfold.projections.page import DecodedEvent, HandlerFailed, PageDecoder, storable, stored_events
from eventfold.projections.prefetch import Prefetcher, StartInThread

MAX_ATTEMPTS = 5  # times it is kept that an effect was done, because commands change something else meanwhile
MARK_EVERY_EVENTS = 10_000  # positions between two marks of the ledger
PAGE = 2_000  # events
SMALL_PAGE = 50  # events of the first page, and of the next one after an event was parked: others like it may follow
LONG_PAGE_S = 0.5  # seconds: pages that take longer get shorter, so that a lease outlives them
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 30.0  # seconds before it is tried again: four times as long with every attempt
StepResult = Literal["worked", "idle", "held", "paused", "stopped", "superseded"]


class WorkerContext(msgspec.Struct, frozen=True):
    """What a worker works with. `clock` gives seconds; `dead` knows of holders that were killed.

    `lease` in seconds, `page` in events; `aside` reads ahead while a page is written. `catches`: what the user's code
    raises that is a failure of its own; in a thread that no signal reaches also SystemExit and the like.
    """

    log: Log
    target: Target
    clock: Callable[[], float]
    dead: Callable[[str], bool] = lambda _holder: False
    lease: float = 10.0
    page: int = PAGE
    aside: StartInThread | None = None
    catches: type[BaseException] = Exception


class PartitionWorker:
    """One partition of one generation, worked on by one holder: `await step()` again and again."""

    def __init__(
        self, definition: ProjectionDefinition, context: WorkerContext, place: PartitionKey, holder: str
    ) -> None:
        self.definition, self.context, self.place, self.holder = definition, context, place, holder
        self.checkpoint: Checkpoint | None = None
        self._epoch = -1  # of the store, in which the checkpoint was found to be of its history
        self._pace = Throughput()
        self.set_aside: list[
            ParkedEvent
        ] = []  # what it parked, for whoever tells of it; those that wait behind are not here
        self._why: StepResult = "worked"  # other than "worked": nothing may be done now
        self.entries: dict[int, ParkedEvent] = {}
        self._blocked: set[str] = set()
        self._attempts: dict[int, int] = {}
        self._hopeless: set[tuple[type, str]] = set()
        self._limit = min(SMALL_PAGE, context.page)
        self._events_per_checkpoint = definition.events_per_checkpoint
        self._single_to = 0  # up to this position, one append at a time
        self._rows: RowCache | None = None
        self._ends = 0.0  # when the lease may end, by our own clock
        self.paused_because = ""
        self._disturbed = False  # a command changed something while an effect was done
        self.ended_by: BaseException | None = None  # what is no Exception, and stopped it
        self._handlers = HandlerDispatch(definition, context.catches)
        self._decoder: PageDecoder | None = None
        self._ahead: Prefetcher | None = None

    async def step(self) -> StepResult:
        """Do what there is to do next. Raises TargetUnavailable, CursorMismatch, StoreUnavailable errors."""
        try:
            if self._disturbed:
                self._disturbed = False
                self._reload()
            if self.checkpoint is not None and self._may_end_within(2 / 3):
                self.renew_lease()  # also while there is always work to do
            if self.checkpoint is not None and self._is_of_old_epoch():
                self.release()  # what is in memory may be folded from events that are lost: begin with what is kept
            if self.checkpoint is None and self._is_paused():
                return "paused"
            if self.checkpoint is None and not await self._claim():
                return "held"
            if self._why == "paused":
                self.release()  # so that a command that pauses it can tell when what was in hand is done
            if self._why != "worked":
                return self._why
            if due := first_due(self.entries.values()):
                await self._retry(due)
                return "worked"
            return await self._forward()
        except CheckpointChanged:
            self._reload()
            return "worked"
        except LeaseLost:
            self.checkpoint = None
            return "held"
        except CursorMismatch as error:
            raise ahead_of_log_error(self.place.name, self.definition.kind, error) from error

    # Holding the work

    def _is_paused(self) -> bool:
        """Whether it is paused, and why: `paused_because`."""
        record = self.context.target.record(self.place.name)
        self.paused_because = "" if record is None else record.paused
        return bool(self.paused_because)

    def _is_of_old_epoch(self) -> bool:
        """Whether the store has come to another epoch since it was found that what is kept is of its history."""
        return self.context.log.engine.epoch != self._epoch

    def _may_end_within(self, share: float) -> bool:
        """Whether less than this share of the lease may be left, by our own clock; of one without length, never."""
        lease = self.context.lease
        return lease > 0 and self._ends - self.context.clock() < lease * share

    def renewed(self, asked: float) -> None:
        """The lease was renewed, by a call that was made at this reading of the clock."""
        self._ends = max(self._ends, asked + self.context.lease)

    def _check_lease(self) -> None:
        """Called before an effect: it begins only under our lease. Raises LeaseLost, CheckpointChanged."""
        if not self._may_end_within(1 / 3):
            return
        checkpoint, asked = _checkpoint(self.checkpoint), self.context.clock()
        revision = self.context.target.renew_lease(checkpoint, self.context.lease)
        self.renewed(asked)
        if revision != checkpoint.revision:
            raise CheckpointChanged

    async def _claim(self) -> bool:
        context, asked = self.context, self.context.clock()
        checkpoint = context.target.claim(self.place, self.holder, context.lease)
        if checkpoint is None:
            claimed = context.target.checkpoint(self.place)
            other = "" if claimed is None else claimed.holder
            if not other or not context.dead(other):
                return False
            asked = context.clock()
            checkpoint = context.target.claim(self.place, self.holder, context.lease, take_over_from=other)
            if checkpoint is None:
                return False
        self._ends = asked + context.lease
        self._epoch = context.log.engine.epoch
        try:
            await verify(
                context.log, Cursor(checkpoint.store, checkpoint.epoch, checkpoint.position, checkpoint.event_id)
            )
        except BaseException:
            context.target.release(checkpoint)
            raise
        self._hold(checkpoint)
        fresh = checkpoint.seen.count == 0 and not self.entries
        self._decoder = PageDecoder(
            self.definition, context.log.registry, self.place.partition, checkpoint.partitions, context.catches
        )
        if self.definition.kind == "rows":
            self._ahead = Prefetcher(context.log, self.definition.query, self._decoder, context.aside)
            self._rows = RowCache(
                self.definition, context.target, self.place, fresh and checkpoint.partitions == 1, context.catches
            )
        return True

    def _hold(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        try:
            entries = entries_of(self.context.target, checkpoint)
        except ProjectionDamaged:
            self.context.target.release(checkpoint)
            raise
        self.entries = {entry.position: entry for entry in entries}
        self._blocked = blocked_keys(entries)
        record = self.context.target.record(self.place.name)
        if record is None or (checkpoint.until is None and self.place.generation not in (record.live, record.building)):
            self._why = "superseded"
        elif record.paused:
            self._why, self.paused_because = "paused", record.paused
        else:
            self._why = "stopped" if checkpoint.stopped else "worked"

    def _reload(self) -> None:
        """Somebody changed something by hand: look again."""
        assert self.checkpoint is not None
        self._forget()
        self._attempts.clear()
        checkpoint = self.context.target.checkpoint(self.place)
        if checkpoint is None or checkpoint.token != self.checkpoint.token:
            self.checkpoint = None
            return
        self._hold(checkpoint)

    def renew_lease(self) -> None:
        """Keep the lease, and notice what was changed by hand. To be called every few seconds while idle."""
        if self.checkpoint is None:
            return
        asked = self.context.clock()
        try:
            revision = self.context.target.renew_lease(self.checkpoint, self.context.lease)
            self.renewed(asked)
            if revision != self.checkpoint.revision:
                self._reload()
        except LeaseLost:
            self.checkpoint = None

    def release(self) -> None:
        """Let somebody else have it at once."""
        self._forget()
        if self.checkpoint is not None:
            self.context.target.release(self.checkpoint)
            self.checkpoint = None

    # Forward

    async def _forward(self) -> StepResult:
        checkpoint, context = self.checkpoint, self.context
        assert checkpoint is not None and self._decoder is not None
        began = context.clock()
        span = Span(after=checkpoint.position, until=checkpoint.until, limit=self._limit)
        ready = self._ahead.take(span) if self._ahead is not None else None
        page = ready.page if ready else await context.log.engine.read(self.definition.query, span)
        if self._is_of_old_epoch():
            return "worked"
        if page.scanned < checkpoint.position and (checkpoint.until is None or checkpoint.until >= checkpoint.position):
            what = f"{self.place.name} has come to position {checkpoint.position}, and the log ends at {page.scanned}."
            raise CursorMismatch(what, "It was restored.", position=checkpoint.position)
        if page.scanned <= checkpoint.position:
            return "idle"
        events = self._events(page)
        try:
            items = ready.items if ready and events is page.events else self._decoder.items(events, self.entries)
        except HandlerFailed as failed:
            return await self._handle_failure(failed, events, failed.index or 0)
        return await self._fold_or_park(page, events, items, began)

    async def _fold_or_park(
        self, page: Page, events: list[StoredEvent], items: Sequence[DecodedEvent], began: float
    ) -> StepResult:
        try:
            return await self._fold_and_commit(page, events, items, began)
        except HandlerFailed as failed:
            if self._is_of_old_epoch():
                return "worked"  # what failed may be lost: the next step looks whether it is
            if failed.index is None:
                return await self._isolate_failure(failed, events, items)
            return await self._handle_failure(failed, events, failed.index)

    def _events(self, page: Page) -> list[StoredEvent]:
        """The page's events, or only its first append while looking for the one at fault."""
        events = page.events
        if self._single_to and events and events[0].position <= self._single_to:
            first_append = [event for event in events if event.first == events[0].first]
            return first_append[:1] if self.definition.on_error == "park" else first_append
        self._single_to = 0
        return events

    async def _fold_and_commit(
        self, page: Page, events: list[StoredEvent], items: Sequence[DecodedEvent], began: float
    ) -> StepResult:
        """Fold and commit. Failed carries the index into `events`."""
        todo, behind = split_by_blocked(items, self.entries, self._blocked)
        timing, clock = Timing(), self.context.clock
        through = len(events)
        whole = through == len(page.events)
        scanned = await self._identity(page) if whole else b""
        if self._is_of_old_epoch():
            return "worked"

        def page_step() -> CheckpointUpdate:
            last = events[through - 1] if through < len(events) or not whole else None
            place = (last.position, last.id) if last else (page.scanned, scanned)
            seen = stored_events(items, through)
            made = self._step(place, seen, todo, [entry for entry in behind if entry.position <= place[0]])
            made.stats = self._pace.updated(timing, len(seen), clock() - began)
            return made

        try:
            if self._rows is not None:
                self._rows.fold(todo, timing, clock, each=bool(self._single_to))
            elif self.definition.kind == "effects":
                todo = todo[: self._events_per_checkpoint]
                self._check_lease()
                self._handlers.handle(todo, None, timing, clock)
                through = self._cut(items, todo, through)
            self._prefetch(page, whole)
            if self.definition.kind == "effects":
                entries = self._keep_done(page_step).parked
            else:
                with self.context.target.transaction(self.place) as tx:
                    if self._rows is not None:
                        self._rows.write(tx)
                    else:
                        with writing_to(self.context.target.address):
                            done = self._handlers.handle(todo, tx, timing, clock, LONG_PAGE_S)
                        if done < len(todo):
                            todo = todo[:done]
                            through = self._cut(items, todo, through)
                    step = page_step()
                    self.checkpoint, entries = tx.advance(_checkpoint(self.checkpoint), step), step.parked
        except HandlerFailed as failed:
            self._forget()
            index = None if failed.index is None else todo[failed.index].at
            raise HandlerFailed(index, failed.error, failed.handler) from failed.error
        except BaseException:
            self._forget()
            raise
        self.entries.update((entry.position, entry) for entry in entries)
        self._blocked.update(key for entry in entries for key in keys_of(entry))
        self._attempts.clear()
        long = clock() - began > LONG_PAGE_S
        most = (
            SMALL_PAGE if self.definition.kind == "effects" else self.context.page
        )  # what is left of a page is read again
        self._limit = max(1, self._limit // 4) if long else min(self._limit * 2, most)
        return "worked"

    def _keep_done(self, step: Callable[[], CheckpointUpdate]) -> CheckpointUpdate:
        """Keep that effects were done, also where a command (pause, skip) changed something else meanwhile."""
        tries = 0
        while True:
            made = step()
            try:
                with self.context.target.transaction(self.place) as tx:
                    self.checkpoint = tx.advance(_checkpoint(self.checkpoint), made)
                return made
            except CheckpointChanged:
                tries += 1
                if tries == MAX_ATTEMPTS or not self._has_not_moved():
                    raise
                self._disturbed = True

    def _has_not_moved(self) -> bool:
        """Whether the checkpoint is still ours and has not moved; it is looked at again, with its revision."""
        was = _checkpoint(self.checkpoint)
        now = self.context.target.checkpoint(self.place)
        if now is None or (now.token, now.position, now.handled) != (was.token, was.position, was.handled):
            return False
        self.checkpoint = now
        return True

    def _prefetch(self, page: Page, whole: bool) -> None:
        if self._ahead is not None and page.more and whole and not self.entries:
            limit = min(self._limit * 2, self.context.page)
            self._ahead.begin(Span(after=page.scanned, until=_checkpoint(self.checkpoint).until, limit=limit))

    async def _identity(self, page: Page) -> bytes:
        if page.events and page.events[-1].position == page.scanned:
            return page.events[-1].id
        return await self.context.log.engine.event_id(page.scanned) or b""

    def _cut(self, items: Sequence[DecodedEvent], todo: Sequence[DecodedEvent], through: int) -> int:
        """How far a page was taken when only `todo` of it was handled: up to the next item that is left to be."""
        last = todo[-1].at if todo else -1
        entries, blocked = self.entries, self._blocked
        left = (i.at for i in items if i.at > last and i.stored.position not in entries and not must_wait(i, blocked))
        return next(left, through)

    def _forget(self) -> None:
        if self._rows is not None and self._ahead is not None:
            self._ahead.drop()
            self._rows.forget()

    def _step(
        self,
        place: tuple[int, bytes],
        seen: list[StoredEvent],
        handled: Sequence[DecodedEvent],
        entries: Sequence[ParkedEvent],
    ) -> CheckpointUpdate:
        checkpoint, (position, identity) = _checkpoint(self.checkpoint), place
        sum_seen = self._ahead.tally(seen) if self._ahead is not None else tally(seen)
        sum_handled = sum_seen if len(handled) == len(seen) else tally(stored_events(handled))
        return CheckpointUpdate(
            position=position,
            event_id=identity.hex(),
            epoch=self._epoch,
            seen=checkpoint.seen + sum_seen,
            handled=checkpoint.handled + sum_handled,
            parked=entries,
            mark=position // MARK_EVERY_EVENTS != checkpoint.position // MARK_EVERY_EVENTS,
            stats=checkpoint.stats,
        )

    # When it fails

    async def _isolate_failure(
        self, failed: HandlerFailed, events: list[StoredEvent], items: Sequence[DecodedEvent]
    ) -> StepResult:
        """Something in the page is at fault: from here one at a time, to find out which."""
        if len(items) <= 1 or (self._single_to and len({event.first for event in events}) == 1):
            return await self._handle_failure(failed, events, items[0].at if items else 0)
        self._single_to = events[-1].position
        return "worked"

    async def _handle_failure(self, failed: HandlerFailed, events: list[StoredEvent], index: int) -> StepResult:
        """The event at this index failed: first commit what stands before it; then try again; then the policy."""
        stored = events[index]
        parks = self.definition.on_error == "park"
        before = events[:index] if parks else [event for event in events[:index] if event.first != stored.first]
        if before:
            return await self._before(before)
        tried = self._attempts[stored.position] = self._attempts.get(stored.position, 0) + 1
        kind = (type(failed.error), stored.type)
        if tried < self.definition.attempts and kind not in self._hopeless:
            await self.context.log.runtime.sleep(min(FIRST_PAUSE_S * 4 ** (tried - 1), LONGEST_PAUSE_S))
            return "worked"
        if parks:
            self._hopeless.add(kind)  # tried often enough: the next of its kind need not wait as long
        error = _describe_error(failed)
        if parks and (item := self._item(stored)):
            return await self._park(item, error, tried)
        if not isinstance(failed.error, Exception):
            self.ended_by = failed.error
        why = error + KEYLESS_NOTE if parks else error
        return self._stop(StopReason(stored.position, stored.type, failed.handler, why, tried))

    async def _before(self, events: list[StoredEvent]) -> StepResult:
        """What stands before a failure does not wait for it."""
        assert self._decoder is not None
        items = self._decoder.items(events, self.entries)
        return await self._fold_or_park(Page(events, events[-1].position, False), events, items, self.context.clock())

    def _item(self, stored: StoredEvent) -> DecodedEvent | None:
        assert self._decoder is not None
        with suppress(HandlerFailed):
            item = next(iter(self._decoder.items([stored], {})), None)
            if item is not None and item.keys:
                return item
        return key_for_keyless(stored) if self.definition.without_key == "park" else None

    async def _park(self, item: DecodedEvent, error: str, tried: int) -> StepResult:
        entry, stored = parked_entry(item, error, tried), item.stored
        step = self._step((stored.position, stored.id), [stored], [], [entry])
        with self.context.target.transaction(self.place) as tx:
            self.checkpoint = tx.advance(_checkpoint(self.checkpoint), step)
        self.entries[entry.position] = entry
        self.set_aside = [*self.set_aside[-99:], entry]
        self._blocked.update(item.key_text.split(" | "))
        self._attempts.clear()
        self._limit = SMALL_PAGE
        return "worked"

    def _stop(self, why: StopReason) -> StepResult:
        checkpoint = _checkpoint(self.checkpoint)
        step = self._step((checkpoint.position, bytes.fromhex(checkpoint.event_id)), [], [], [])
        step.stopped = msgspec.json.encode(why).decode()
        with self.context.target.transaction(self.place) as tx:
            self.checkpoint = tx.advance(checkpoint, step)
        self._why = "stopped"
        return "stopped"

    async def _retry(self, entry: ParkedEvent) -> None:
        """Try one parked event again: rows, entry and ledger in one transaction."""
        checkpoint, clock = _checkpoint(self.checkpoint), self.context.clock
        assert self._decoder is not None
        page = await self.context.log.engine.read(
            self.definition.query, Span(after=entry.position - 1, until=entry.position)
        )
        if self._is_of_old_epoch():
            return
        step = self._step((checkpoint.position, bytes.fromhex(checkpoint.event_id)), [], [], [])
        try:
            items = self._decoder.items(page.events, {})
            if self._rows is not None:
                self._rows.fold(items, Timing(), clock)
            elif self.definition.kind == "effects":  # it may write to this log, so not while we hold its database
                self._check_lease()
                self._handlers.handle(items, None, Timing(), clock)
            with self.context.target.transaction(self.place) as tx:
                if self._rows is not None:
                    self._rows.write(tx)
                elif self.definition.kind == "sql":
                    with writing_to(self.context.target.address):
                        self._handlers.handle(items, tx, Timing(), clock)
                step.handled = checkpoint.handled + tally(page.events)
                step.settled = [entry.position]
                self.checkpoint = tx.advance(checkpoint, step)
            del self.entries[entry.position]
        except HandlerFailed as failed:
            self._forget()
            if self._is_of_old_epoch():
                return
            again = msgspec.structs.replace(
                entry, state="parked", error=_describe_error(failed), attempts=entry.attempts + 1
            )
            step.handled, step.settled, step.parked = checkpoint.handled, [], [again]
            with self.context.target.transaction(self.place) as tx:
                self.checkpoint = tx.advance(checkpoint, step)
            self.entries[entry.position] = again
        except BaseException:
            self._forget()
            raise
        self._blocked = blocked_keys(self.entries.values())


def _describe_error(failed: HandlerFailed) -> str:
    return storable(f"{type(failed.error).__name__}: {failed.error}"[:2_000])


def _checkpoint(checkpoint: Checkpoint | None) -> Checkpoint:
    assert checkpoint is not None
    return checkpoint
