"""The progress of a named follower: cursor, count and digest in the store's own database, protected by a lease.

Knows: the events returned and not yet acknowledged, a thread that renews the lease. Does not know: how events are
found, mode (its calls block).
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
import weakref
from collections.abc import Sequence

import msgspec

from eventfold.concurrency import run
from eventfold.core.backoff import Backoff
from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Cursor, Query
from eventfold.core.tally import EMPTY_TALLY, MARK_EVERY_EVENTS, Tally, tally
from eventfold.errors import (
    CursorMismatch,
    InvalidInput,
    LeaseHeld,
    LeaseLost,
    ProjectionChanged,
    StoreUnavailable,
    TargetUnavailable,
)
from eventfold.log.append import query_of
from eventfold.log.context import Log
from eventfold.log.cursors import cursor_after, verify
from eventfold.ports.target import (
    Checkpoint,
    CheckpointChanged,
    CheckpointUpdate,
    PartitionKey,
    ProjectionRecord,
    Target,
)
from eventfold.projections.failures import ahead_of_log_error, paused_error
from eventfold.projections.generations import refuse_unknown_progress
from eventfold.projections.leases import is_dead_holder, new_holder_id

NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
IDLE_ADVANCE_S = 1.0  # seconds between two advances past events that do not match
MAX_ATTEMPTS = 20  # how often an acknowledgement starts over because an operator changed the checkpoint
MAX_REPEATS = 8  # of an acknowledgement whose outcome is unknown, as of an append: within 2.54 s
REPEAT_BACKOFF = Backoff(0.02, 2.56)


class FollowerProgress:
    """The stored progress of one named follower. `after` is used only for a name without stored progress."""

    def __init__(
        self, log: Log, target: Target, name: str, query: Query, after: int | Cursor | str, lease: float
    ) -> None:
        if not NAME.fullmatch(name):
            raise InvalidInput(
                f"{name!r} cannot be the name of a follower.",
                "Use up to 40 small letters, digits, underscores and hyphens, a letter first.",
            )
        self.name, self._query, self._after = name, query_of(query), after
        self._log, self._target, self._lease = log, target, lease
        self._partition_key = PartitionKey(name, 1)
        self._checkpoint: Checkpoint | None = None
        self._epoch = -1  # the store's epoch in which the checkpoint was verified to be of its history
        self._unacknowledged = EMPTY_TALLY  # of the pages before the current one
        self._last_returned = 0  # the last position of those pages
        self._page: Sequence[StoredEvent] = ()  # the events of the current page that are not acknowledged
        self._unconfirmed: tuple[Checkpoint, CheckpointUpdate] | None = None  # an update whose outcome is unknown
        self._read_at = self._advanced_at = 0.0
        self._rate = 0.0
        self._stop = threading.Event()
        self._heartbeat: threading.Thread | None = None

    def claim(self) -> Cursor:
        """Register the name if it is new, claim its lease, and return the cursor after which it continues.

        Raises LeaseHeld, ProjectionChanged (the name has another query), ProjectionStopped (it is paused),
        ProgressUnknown, CursorMismatch, TargetUnavailable.
        """
        if self._checkpoint is not None:
            return self._cursor(self._checkpoint)
        self._register()
        me = new_holder_id()
        checkpoint = self._target.claim(self._partition_key, me, self._lease)
        if checkpoint is None:
            (other,) = self._target.checkpoints(self.name, 1)
            if is_dead_holder(other.holder):
                checkpoint = self._target.claim(self._partition_key, me, self._lease, take_over_from=other.holder)
            if checkpoint is None:
                raise self._lease_held_error(other)
        self._epoch = self._log.engine.epoch
        try:
            run(verify(self._log, self._cursor(checkpoint)))
        except BaseException as error:
            self._target.release(checkpoint)
            if isinstance(error, CursorMismatch):
                raise ahead_of_log_error(self.name, "follower", error) from error
            raise
        self._checkpoint = checkpoint
        arguments = (weakref.ref(self), self._stop, self._target, checkpoint, self._lease)
        heartbeat = threading.Thread(target=_renew_lease, args=arguments, name=f"eventfold-{self.name}", daemon=True)
        heartbeat.start()
        self._heartbeat = heartbeat  # only now: an exception in between leaves no thread that cannot be joined
        return self._cursor(checkpoint)

    def _register(self) -> None:
        query = msgspec.json.encode(self._query).decode()
        record = self._target.record(self.name)
        if record is None:
            after = Cursor.parse(self._after) if isinstance(self._after, str) else self._after
            if isinstance(after, Cursor):
                run(verify(self._log, after))
            else:
                run(refuse_unknown_progress(self._log, self._target, self.name, "follower"))
            start = after if isinstance(after, Cursor) else run(cursor_after(self._log, after))
            new = Checkpoint(
                place=self._partition_key,
                store=self._log.engine.store_id,
                epoch=start.epoch,
                position=start.position,
                event_id=start.event_id,
                query=query,
                fingerprint="",
            )
            with self._target.control(self.name) as tx:
                record = tx.record()
                if record is None:  # else another process was first
                    record = ProjectionRecord(name=self.name, kind="follower", code="", live=1)
                    tx.create(record, {}, [new])
        if record.kind != "follower":
            raise InvalidInput(
                f"{self.name} is a read model or subscription of this store ({record.code}).",
                "Give the follower another name.",
                name=self.name,
            )
        if record.paused:
            raise paused_error(self.name, record.paused)
        (checkpoint,) = self._target.checkpoints(self.name, 1)
        if checkpoint.query != query:
            raise ProjectionChanged(
                f"Follower {self.name} has another query than its stored progress, which is at position "
                f"{checkpoint.position}.",
                "Follow the new query under another name; or remove the progress "
                f"(eventfold projections remove STORE {self.name}), and choose where to start (after=…).",
                projection=self.name,
                was=checkpoint.query,
                query=query,
            )

    def _lease_held_error(self, other: Checkpoint) -> LeaseHeld:
        return LeaseHeld(
            f"{other.holder} already follows {self.name}.",
            f"Stop that process, or try again: its lease expires {self._lease:g} s after its last heartbeat.",
            projection=self.name,
            holder=other.holder,
        )

    @staticmethod
    def _cursor(checkpoint: Checkpoint) -> Cursor:
        return Cursor(checkpoint.store, checkpoint.epoch, checkpoint.position, checkpoint.event_id)

    def note(self, page: Sequence[StoredEvent]) -> None:
        """Note that these events are returned now, and that all pages before them were. Raises LeaseLost."""
        if self._current_checkpoint() is None:
            raise self._lease_lost_error()
        self._unacknowledged += tally(self._page)
        self._last_returned = self._page[-1].position if self._page else self._last_returned
        self._page, self._read_at = page, time.perf_counter()

    def acknowledge(self, cursor: Cursor) -> None:
        """Store that all events up to the cursor, inclusive, were handled. Repeated while the outcome is unknown.

        Raises LeaseLost, InvalidInput, TargetUnavailable; CursorMismatch where a failover has lost these events.
        """
        for failures in range(1, MAX_REPEATS):
            try:
                self._acknowledge(cursor)
            except TargetUnavailable:
                time.sleep(REPEAT_BACKOFF.pause(failures))
                run(verify(self._log, cursor))  # the database that answers may be a standby that was promoted
            else:
                return
        self._acknowledge(cursor)

    def _acknowledge(self, cursor: Cursor) -> None:
        if self._log.engine.epoch != self._epoch and self._checkpoint is not None:
            run(verify(self._log, cursor))
        checkpoint = self._current_checkpoint()
        if checkpoint is None:
            raise self._lease_lost_error()
        if cursor.position <= checkpoint.position and not self._unacknowledged.count:
            return
        done = [stored for stored in self._page if stored.position <= cursor.position]
        if self._unacknowledged.count and cursor.position < self._last_returned:
            raise InvalidInput(
                f"Position {cursor.position} is before the current page.",
                "Acknowledge a page, or events of it, before you read the next one.",
            )
        self._advance(cursor, self._unacknowledged + tally(done))
        self._unacknowledged, self._page = EMPTY_TALLY, self._page[len(done) :]

    def idle(self, cursor: Cursor) -> None:
        """Advance the checkpoint past non-matching events if none is unacknowledged, at most once a second."""
        checkpoint, now = self._current_checkpoint(), time.monotonic()
        outstanding = self._unacknowledged.count or self._page
        if (
            checkpoint is None
            or outstanding
            or cursor.position == checkpoint.position
            or now - self._advanced_at < IDLE_ADVANCE_S
        ):
            return
        self._advanced_at = now
        with contextlib.suppress(TargetUnavailable):  # nothing is lost: the next advance is a second later
            self._advance(cursor, EMPTY_TALLY)

    def _advance(self, cursor: Cursor, handled: Tally) -> None:
        stats, base = self._throughput(handled.count), self._checkpoint
        for _ in range(MAX_ATTEMPTS):
            checkpoint = self._checkpoint
            if checkpoint is None or base is None:
                raise self._lease_lost_error()
            step = CheckpointUpdate(
                position=cursor.position,
                event_id=cursor.event_id,
                epoch=cursor.epoch,
                seen=base.seen + handled,
                handled=base.handled + handled,
                mark=cursor.position // MARK_EVERY_EVENTS != checkpoint.position // MARK_EVERY_EVENTS,
                stats=stats or checkpoint.stats,
            )
            try:
                with self._target.transaction(self._partition_key) as tx:
                    moved = tx.advance(checkpoint, step)
            except CheckpointChanged:
                (now,) = self._target.checkpoints(self.name, 1)
                if self._is_unconfirmed(now):  # it was committed, and the reply was lost
                    self._checkpoint = now
                    if (now.position, now.seen) == (step.position, step.seen):
                        return
                elif (now.token, now.position) == (checkpoint.token, checkpoint.position):
                    self._checkpoint = base = now
                else:
                    self._checkpoint = None
            except LeaseLost:
                self._checkpoint = None
                raise
            except TargetUnavailable:
                self._unconfirmed = checkpoint, step
                raise
            else:
                self._checkpoint, self._unconfirmed = moved, None
                return
        raise TargetUnavailable(
            f"Operators changed the progress of {self.name} during each of {MAX_ATTEMPTS} attempts to store it.",
            "Acknowledge again.",
            address=self._target.address,
        )

    def _is_unconfirmed(self, stored: Checkpoint) -> bool:
        """Whether the checkpoint is as the update made it whose outcome was not known."""
        if self._unconfirmed is None:
            return False
        before, step = self._unconfirmed
        return (stored.token, stored.revision, stored.position, stored.seen) == (
            *(before.token, before.revision + 1),
            *(step.position, step.seen),
        )

    def _throughput(self, count: int) -> str:
        """Return the reader's throughput as JSON, for the status of the follower; "" if it cannot be measured."""
        seconds = time.perf_counter() - self._read_at
        if not count or seconds <= 0:
            return ""
        self._rate = count / seconds if not self._rate else 0.7 * self._rate + 0.3 * count / seconds
        facts = {"rate": round(self._rate), "slowest": "its reader", "micros": round(1e6 / self._rate, 1)}
        return msgspec.json.encode(facts).decode()

    def _current_checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint; None where the lease is lost, or where a failover has lost the last update."""
        checkpoint, epoch = self._checkpoint, self._log.engine.epoch
        if checkpoint is not None and epoch != self._epoch:
            same = (checkpoint.token, checkpoint.revision, checkpoint.position, checkpoint.event_id)
            stored = self._target.checkpoints(self.name, 1)
            is_same = [(c.token, c.revision, c.position, c.event_id) for c in stored] == [same]
            if is_same or (len(stored) == 1 and self._is_unconfirmed(stored[0])):
                self._epoch = epoch
            else:
                self._checkpoint = None
        return self._checkpoint

    def _lease_lost_error(self) -> LeaseLost:
        return LeaseLost(
            f"Follower {self.name} has lost its lease, so another process may follow the name.",
            "Follow the name again: events that were not acknowledged are returned again.",
            projection=self.name,
        )

    def end(self) -> None:
        """Have the heartbeat thread release the lease soon; do not wait for it."""
        self._stop.set()

    def release(self) -> None:
        """Release the lease now. Calling it twice is harmless."""
        self._stop.set()
        heartbeat = self._heartbeat
        if heartbeat is not None and heartbeat is not threading.current_thread():
            heartbeat.join()
        self._checkpoint = None


def _renew_lease(
    progress: weakref.ref[FollowerProgress], stop: threading.Event, target: Target, checkpoint: Checkpoint, lease: float
) -> None:
    """Renew a lease until `stop` is set, the lease is lost, or its FollowerProgress was garbage-collected."""
    while not stop.wait(lease / 3) and progress() is not None:
        try:
            target.renew_lease(checkpoint, lease)
        except LeaseLost:
            return  # the next acknowledgement raises LeaseLost
        except (TargetUnavailable, StoreUnavailable):
            continue  # the lease may outlast the outage; if not, the next acknowledgement raises LeaseLost
    try:
        target.release(checkpoint)
    except (TargetUnavailable, StoreUnavailable):
        return  # the lease expires by itself
