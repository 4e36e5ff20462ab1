"""Commits a page: folds or handles its events, then writes rows, parked events and checkpoint in one transaction.

Knows: what the ledger counts, how large the next page is. Does not know: other holders, what to do after a failure.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from eventfold.core.envelope import StoredEvent
from eventfold.core.tally import MARK_EVERY_EVENTS, tally
from eventfold.log.context import writing_to
from eventfold.ports.messages import Page, Span
from eventfold.ports.target import Checkpoint, CheckpointChanged, CheckpointUpdate, ParkedEvent, TargetTransaction
from eventfold.projections.definition import ProjectionDefinition
from eventfold.projections.failures import ParkedEvents, StopReason, describe_error
from eventfold.projections.fold import HandlerDispatch, RowCache, RowChanges, RowsExist, Throughput, Timing
from eventfold.projections.page import DecodedEvent, HandlerFailed, PageDecoder, stored_events
from eventfold.projections.partition_lease import JointCommit, PartitionLease
from eventfold.projections.prefetch import Prefetcher, can_prefetch

MAX_ATTEMPTS = 5  # to record that effects ran, while operators change the checkpoint
SMALL_PAGE_EVENTS = 50  # the first page, and the one after a parked event, since similar events may follow
LONG_PAGE_S = 0.5  # after a page that took longer, pages get smaller, so that the lease outlives them


class _Work(msgspec.Struct):
    """A page in progress.

    `todo`: the events to handle; `waiting`: those to park because an earlier event of their key is parked.
    """

    items: Sequence[DecodedEvent]
    events: Sequence[StoredEvent]
    todo: Sequence[DecodedEvent]
    waiting: list[ParkedEvent]
    end: tuple[int, bytes] | None  # position and event id at the end of the page; None: `events` are a part of it
    through: int  # how many of `events` this commit covers
    timing: Timing
    began: float


class PageCommit:
    """Commits the pages of one partition. Effects run before the transaction, which records that they ran."""

    def __init__(self, definition: ProjectionDefinition, lease: PartitionLease, parked: ParkedEvents) -> None:
        self._definition, self._lease, self._parked, self._context = definition, lease, parked, lease.context
        self._has_effects = definition.kind == "effects"
        self._effects_per_commit = definition.events_per_checkpoint  # as many may be repeated after a crash
        self._limit = min(SMALL_PAGE_EVENTS, self._context.page)
        self._largest, self._quiet_page, self._last_head = self._context.page, 0, 0
        self._throughput = Throughput()
        self._handlers = HandlerDispatch(definition, self._context.catches)
        self._rows: RowCache | None = None
        self._prefetcher: Prefetcher | None = None
        self._watcher = definition.watch and definition.watch(definition, self._context, lease.partition_key)
        self.changed_meanwhile = False  # an operator changed the checkpoint while effects ran: it has to be reloaded

    async def begin(self) -> None:
        """Begin with the stored checkpoint, after a claim."""
        definition, context, checkpoint = self._definition, self._context, self._lease.claimed
        partition_key, partitions = checkpoint.place, checkpoint.partitions
        self._decoder = PageDecoder(
            definition, context.log.registry, partition_key.partition, partitions, context.catches
        )
        if definition.kind == "rows":
            is_empty = checkpoint.seen.count == 0 and not self._parked.by_position and partitions == 1
            start = context.start_in_thread if can_prefetch(context.log, context.target) else None
            self._quiet_page = context.quiet_page if start is None else 0
            self._prefetcher = Prefetcher(context.log, definition.query, self._decoder, start)
            self._rows = RowCache(definition, context.target, partition_key, is_empty, context.catches)
        if self._watcher is not None:
            await self._watcher.begin(checkpoint)

    async def at_head(self) -> None:
        """Note that every event is folded and stored."""
        if self._watcher is not None:
            await self._watcher.at_head(self._lease.claimed)

    def forget(self) -> None:
        """Drop the rows in memory and the prefetched page: they may differ from what is stored."""
        if self._rows is not None and self._prefetcher is not None:
            self._prefetcher.drop()
            self._rows.forget()

    def _stop_assuming(self) -> None:
        self.forget()
        if self._rows is not None:
            self._rows.stop_assuming()

    async def read(self) -> tuple[Page, Sequence[DecodedEvent] | None]:
        """Return the next page, with its decoded events if it was prefetched, else None."""
        checkpoint = self._lease.claimed
        span = Span(after=checkpoint.position, until=checkpoint.until, limit=self._limit)
        prepared = self._prefetcher.take(span) if self._prefetcher is not None else None
        if prepared is not None:
            return prepared.page, prepared.items
        return await self._context.log.engine.read(self._definition.query, span), None

    def decode(self, events: Sequence[StoredEvent]) -> Sequence[DecodedEvent]:
        """Return the events of this partition, decoded. Raises HandlerFailed."""
        return self._decoder.items(events, self._parked.by_position)

    def decode_one(self, event: StoredEvent) -> DecodedEvent | None:
        """Return one event decoded, also a parked one; None if it is not of this partition. Raises HandlerFailed."""
        return next(iter(self._decoder.items([event], {})), None)

    async def commit(
        self,
        page: Page,
        events: Sequence[StoredEvent],
        items: Sequence[DecodedEvent],
        began: float,
        *,
        check_each_key: bool,
    ) -> bool:
        """Fold and commit `events` of a page. Returns False and changes nothing if they have to be read again.

        They have if the store has begun another epoch, or if rows exist that were assumed to be new.
        Raises HandlerFailed with an index into `events`; then nothing is committed.
        """
        todo, waiting = self._parked.split(items)
        whole = len(events) == len(page.events)
        end = (page.scanned, await self._last_event_id(page)) if whole else None
        if self._lease.is_of_old_epoch:
            return False
        clock, target = self._context.clock, self._context.target
        work = _Work(items, events, todo, waiting, end, len(events), Timing(), began)
        try:
            if self._rows is not None:
                self._rows.fold(todo, work.timing, clock, each=check_each_key)
                await self._announce(self._rows)
            elif self._has_effects:
                self._do_effects(work)
            if whole and page.more:
                self._prefetch(page)
            if self._has_effects:
                update = self._record_effects(work)
            elif self._rows is not None:
                update, changes = self._update_after(work), self._rows.changes()
                if self._context.joint is not None:
                    self._commit_jointly(self._context.joint, self._rows, changes, update, len(events))
                else:
                    with target.transaction(self._lease.partition_key) as tx:
                        self._rows.write(tx, changes)
                        self._lease.advance(tx, update)
            else:
                with target.transaction(self._lease.partition_key) as tx:
                    with writing_to(target.address):
                        done = self._handlers.handle(todo, tx, work.timing, clock, LONG_PAGE_S)
                    self._cut(work, done)
                    update = self._update_after(work)
                    self._lease.advance(tx, update)
        except HandlerFailed as failed:
            self.forget()
            index = None if failed.index is None else work.todo[failed.index].at
            raise HandlerFailed(index, failed.error, failed.handler) from failed.error
        except RowsExist:
            self._stop_assuming()
            return False
        except BaseException:
            self.forget()
            raise
        if update.parked:
            self._parked.add(update.parked)
        await self._limit_next(page, is_long=clock() - began > LONG_PAGE_S)
        return True

    async def _limit_next(self, page: Page, *, is_long: bool) -> None:
        """Set the largest size of the next page. While no one appends, a larger one makes no append wait."""
        if page.more and self._quiet_page > self._context.page <= self._limit:
            head = (await self._context.log.engine.head()).position
            self._largest = self._quiet_page if head == self._last_head else self._context.page
            self._last_head = head
        # Effects are committed a few at a time, and the rest of their page is read again.
        largest = SMALL_PAGE_EVENTS if self._has_effects else self._largest
        self._limit = max(1, self._limit // 4) if is_long else min(self._limit * 2, largest)

    async def _announce(self, rows: RowCache) -> None:
        """Let the watcher know of the rows that were folded, before they are stored."""
        if self._watcher is not None:
            await self._watcher.before_commit(rows.touched())

    def _commit_jointly(
        self, joint: JointCommit, rows: RowCache, changes: RowChanges, update: CheckpointUpdate, events: int
    ) -> None:
        """Write rows and advance the checkpoint in one transaction, perhaps together with those of other workers."""
        checkpoint = self._lease.claimed

        def write(tx: TargetTransaction) -> Checkpoint:
            rows.write(tx, changes)
            return tx.advance(checkpoint, update)

        self._lease.note_advanced(joint.commit(self._lease.partition_key, events, write))

    def _do_effects(self, work: _Work) -> None:
        work.todo = work.todo[: self._effects_per_commit]
        self._lease.ensure()
        self._handlers.handle(work.todo, None, work.timing, self._context.clock)
        self._cut(work, len(work.todo))

    def _record_effects(self, work: _Work) -> CheckpointUpdate:
        """Record that effects ran, also if an operator's command (pause, skip) changed the checkpoint meanwhile."""
        tries = 0
        while True:
            update = self._update_after(work)
            try:
                self._advance(update)
                return update
            except CheckpointChanged:
                tries += 1
                if tries == MAX_ATTEMPTS or not self._lease.reload_unless_moved():
                    raise
                self.changed_meanwhile = True

    def _cut(self, work: _Work, done: int) -> None:
        """End the page before the first unhandled event, if only `done` of the `todo` events were handled."""
        if done == len(work.todo) and not self._has_effects:
            return
        work.todo = work.todo[:done]
        last = work.todo[-1].at if work.todo else -1
        left = (item.at for item in work.items if item.at > last and self._parked.is_to_handle(item))
        work.through = next(left, work.through)

    def _update_after(self, work: _Work) -> CheckpointUpdate:
        events, through = work.events, work.through
        end = work.end
        if end is None or through < len(events):
            end = (events[through - 1].position, events[through - 1].id)
        seen = stored_events(work.items, through)
        waiting = work.waiting and [each for each in work.waiting if each.position <= end[0]]
        update = self._update(end, seen, work.todo, waiting)
        update.stats = self._throughput.updated(work.timing, len(seen), self._context.clock() - work.began)
        return update

    def _update(
        self,
        end: tuple[int, bytes],
        seen: Sequence[StoredEvent],
        handled: Sequence[DecodedEvent],
        entries: Sequence[ParkedEvent],
    ) -> CheckpointUpdate:
        checkpoint, (position, event_id) = self._lease.claimed, end
        sum_seen = self._prefetcher.tally(seen) if self._prefetcher is not None else tally(seen)
        sum_handled = sum_seen if len(handled) == len(seen) else tally(stored_events(handled))
        return CheckpointUpdate(
            position=position,
            event_id=event_id.hex(),
            epoch=self._lease.verified_epoch,
            seen=checkpoint.seen + sum_seen,
            handled=checkpoint.handled + sum_handled,
            parked=entries,
            mark=position // MARK_EVERY_EVENTS != checkpoint.position // MARK_EVERY_EVENTS,
            stats=checkpoint.stats,
        )

    def _update_in_place(self) -> CheckpointUpdate:
        """Return an update that does not move the checkpoint's position."""
        checkpoint = self._lease.claimed
        return self._update((checkpoint.position, bytes.fromhex(checkpoint.event_id)), [], [], [])

    def _advance(self, update: CheckpointUpdate) -> None:
        with self._context.target.transaction(self._lease.partition_key) as tx:
            self._lease.advance(tx, update)

    async def _last_event_id(self, page: Page) -> bytes:
        if page.events and page.events[-1].position == page.scanned:
            return page.events[-1].id
        return await self._context.log.engine.event_id(page.scanned) or b""

    def _prefetch(self, page: Page) -> None:
        if self._prefetcher is not None and not self._parked.by_position:
            limit = min(self._limit * 2, self._context.page)
            self._prefetcher.begin(Span(after=page.scanned, until=self._lease.claimed.until, limit=limit))

    # Events that fail

    def park(self, event: StoredEvent, entry: ParkedEvent) -> None:
        """Park the next event: store `entry` for it, and advance the checkpoint past it."""
        self._advance(self._update((event.position, event.id), [event], [], [entry]))
        self._parked.add([entry])
        self._limit = SMALL_PAGE_EVENTS

    def stop(self, reason: StopReason) -> None:
        """Store why the projection stops at the next event."""
        update = self._update_in_place()
        update.stopped = msgspec.json.encode(reason).decode()
        self._advance(update)

    async def retry(self, entry: ParkedEvent) -> None:
        """Handle one parked event again: rows, entry and ledger in one transaction."""
        lease, context = self._lease, self._context
        clock, checkpoint = context.clock, lease.claimed
        span = Span(after=entry.position - 1, until=entry.position)
        page = await context.log.engine.read(self._definition.query, span)
        if lease.is_of_old_epoch:
            return
        update = self._update_in_place()
        try:
            items = self._decoder.items(page.events, {})
            if self._rows is not None:
                self._rows.fold(items, Timing(), clock)
                await self._announce(self._rows)
            elif self._has_effects:  # before the transaction, which locks the database: an effect may append to the log
                lease.ensure()
                self._handlers.handle(items, None, Timing(), clock)
            with context.target.transaction(lease.partition_key) as tx:
                if self._rows is not None:
                    self._rows.write(tx)
                elif not self._has_effects:
                    with writing_to(context.target.address):
                        self._handlers.handle(items, tx, Timing(), clock)
                update.handled = checkpoint.handled + tally(page.events)
                update.settled = [entry.position]
                lease.advance(tx, update)
            self._parked.remove(entry)
        except HandlerFailed as failed:
            self.forget()
            if lease.is_of_old_epoch:
                return
            error = describe_error(failed)
            again = msgspec.structs.replace(entry, state="parked", error=error, attempts=entry.attempts + 1)
            update.handled, update.settled, update.parked = checkpoint.handled, [], [again]
            self._advance(update)
            self._parked.replace(again)
        except RowsExist:
            self._stop_assuming()  # the event is still due
        except BaseException:
            self.forget()
            raise
