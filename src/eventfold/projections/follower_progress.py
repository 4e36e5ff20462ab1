"""A follower's progress kept by name: cursor, count and digest, in the store's own database, held by a lease.

Knows: what was given and not yet acknowledged, a thread that keeps the lease alive. Does not know: how events are
found, mode (its calls block).
"""

from __future__ import annotations

import re
import threading
import time
import weakref
from collections.abc import Sequence

import msgspec

from eventfold.concurrency import run
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
SELDOM = 1.0  # seconds between two moves past events that nobody asked for
DISTURBED = 20  # times an acknowledgement is begun again because somebody changed something by hand


class FollowerProgress:
    """The kept progress of one named follower. `after` counts only when nothing is kept under the name yet."""

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
        self._place = PartitionKey(name, 1)
        self._checkpoint: Checkpoint | None = None
        self._epoch = -1  # of the store, in which the kept progress was found to be of its history
        self._given, self._last = EMPTY_TALLY, 0  # of whole pages, not yet acknowledged; the last of these events
        self._page: Sequence[StoredEvent] = ()  # the page in hand, as far as it is not acknowledged
        self._asked = self._moved = 0.0
        self._rate = 0.0
        self._stop = threading.Event()
        self._heart: threading.Thread | None = None

    def take(self) -> Cursor:
        """Make the name known if it is not, take its lease, and tell where it goes on.

        Raises LeaseHeld, ProjectionChanged (another query is kept under the name), ProjectionStopped (it is paused),
        ProgressUnknown, CursorMismatch, TargetUnavailable.
        """
        if self._checkpoint is not None:
            return self._cursor(self._checkpoint)
        self._register()
        me = new_holder_id()
        checkpoint = self._target.claim(self._place, me, self._lease)
        if checkpoint is None:
            (other,) = self._target.checkpoints(self.name, 1)
            if is_dead_holder(other.holder):
                checkpoint = self._target.claim(self._place, me, self._lease, take_over_from=other.holder)
            if checkpoint is None:
                raise self._taken(other)
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
        heart = threading.Thread(target=_renew_lease, args=arguments, name=f"eventfold-{self.name}", daemon=True)
        heart.start()
        self._heart = heart  # only now: an exception in between leaves no thread that cannot be joined
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
                place=self._place,
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
        (kept,) = self._target.checkpoints(self.name, 1)
        if kept.query != query:
            raise ProjectionChanged(
                f"Follower {self.name} asks another question than the one its progress was kept for "
                f"(it has come to position {kept.position}).",
                f"Follow the new question under another name; or give the old progress up with eventfold projections "
                f"remove {self.name}, and begin where you like (after=…).",
                projection=self.name,
                was=kept.query,
                query=query,
            )

    def _taken(self, other: Checkpoint) -> LeaseHeld:
        return LeaseHeld(
            f"Follower {self.name} is being followed by {other.holder} already.",
            f"End that one, or try again: its lease ends {self._lease:g} s after its last sign of life.",
            projection=self.name,
            holder=other.holder,
        )

    @staticmethod
    def _cursor(checkpoint: Checkpoint) -> Cursor:
        return Cursor(checkpoint.store, checkpoint.epoch, checkpoint.position, checkpoint.event_id)

    def note(self, page: Sequence[StoredEvent]) -> None:
        """These events are being given, and all before them have been. Raises LeaseLost."""
        if self._still_held() is None:
            raise self._lost()
        self._given += tally(self._page)
        self._last = self._page[-1].position if self._page else self._last
        self._page, self._asked = page, time.perf_counter()

    def acknowledge(self, cursor: Cursor) -> None:
        """Everything given up to the cursor has been dealt with.

        Raises LeaseLost, InvalidInput, TargetUnavailable; CursorMismatch where the store has lost what was given.
        """
        if self._log.engine.epoch != self._epoch and self._checkpoint is not None:
            run(verify(self._log, cursor))
        checkpoint = self._still_held()
        if checkpoint is None:
            raise self._lost()
        if cursor.position <= checkpoint.position and not self._given.count:
            return
        done = [stored for stored in self._page if stored.position <= cursor.position]
        if self._given.count and cursor.position < self._last:
            raise InvalidInput(
                f"Position {cursor.position} is before the page in hand.",
                "Acknowledge a page, or events of it, before you ask for the next.",
            )
        self._advance(cursor, self._given + tally(done))
        self._given, self._page = EMPTY_TALLY, self._page[len(done) :]

    def idle(self, cursor: Cursor) -> None:
        """Nothing came: move past what nobody asked for, if everything given is acknowledged; once in a while."""
        checkpoint, now = self._still_held(), time.monotonic()
        outstanding = self._given.count or self._page
        if checkpoint is None or outstanding or cursor.position == checkpoint.position or now - self._moved < SELDOM:
            return
        self._moved = now
        self._advance(cursor, EMPTY_TALLY)

    def _advance(self, cursor: Cursor, taken: Tally) -> None:
        stats = self._measured(taken.count)
        for _ in range(DISTURBED):
            checkpoint = self._checkpoint
            if checkpoint is None:
                raise self._lost()
            step = CheckpointUpdate(
                position=cursor.position,
                event_id=cursor.event_id,
                epoch=cursor.epoch,
                seen=checkpoint.seen + taken,
                handled=checkpoint.handled + taken,
                mark=cursor.position // MARK_EVERY_EVENTS != checkpoint.position // MARK_EVERY_EVENTS,
                stats=stats or checkpoint.stats,
            )
            try:
                with self._target.transaction(self._place) as tx:
                    self._checkpoint = tx.advance(checkpoint, step)
                return
            except CheckpointChanged:
                (now,) = self._target.checkpoints(self.name, 1)
                self._checkpoint = now if (now.token, now.position) == (checkpoint.token, checkpoint.position) else None
            except LeaseLost:
                self._checkpoint = None
                raise
        raise TargetUnavailable(
            f"The progress of {self.name} was changed by hand {DISTURBED} times while it was written.",
            "Acknowledge again.",
            address=self._target.address,
        )

    def _measured(self, count: int) -> str:
        """What its reader needs for an event, for whoever asks why it is behind."""
        seconds = time.perf_counter() - self._asked
        if not count or seconds <= 0:
            return ""
        self._rate = count / seconds if not self._rate else 0.7 * self._rate + 0.3 * count / seconds
        facts = {"rate": round(self._rate), "slowest": "its reader", "micros": round(1e6 / self._rate, 1)}
        return msgspec.json.encode(facts).decode()

    def _still_held(self) -> Checkpoint | None:
        """The checkpoint; None where it is held no longer, or where a failover has taken back what was kept of it."""
        checkpoint, epoch = self._checkpoint, self._log.engine.epoch
        if checkpoint is not None and epoch != self._epoch:
            same = (checkpoint.token, checkpoint.revision, checkpoint.position, checkpoint.event_id)
            kept = [(c.token, c.revision, c.position, c.event_id) for c in self._target.checkpoints(self.name, 1)]
            if kept == [same]:
                self._epoch = epoch
            else:
                self._checkpoint = None
        return self._checkpoint

    def _lost(self) -> LeaseLost:
        return LeaseLost(
            f"The lease of follower {self.name} is not held here any more.",
            "Follow it again by its name: what was not acknowledged comes again.",
            projection=self.name,
        )

    def end(self) -> None:
        """Give the lease back, soon: the thread that keeps it alive does so."""
        self._stop.set()

    def release(self) -> None:
        """Give the lease back, now. Twice is harmless."""
        self._stop.set()
        heart = self._heart
        if heart is not None and heart is not threading.current_thread():
            heart.join()
        self._checkpoint = None


def _renew_lease(
    keeping: weakref.ref[FollowerProgress], stop: threading.Event, target: Target, checkpoint: Checkpoint, lease: float
) -> None:
    """Keep a lease alive, until it is ended, lost, or nobody follows any more."""
    while not stop.wait(lease / 3) and keeping() is not None:
        try:
            target.renew_lease(checkpoint, lease)
        except LeaseLost:
            return  # whoever acknowledges next is told
        except (TargetUnavailable, StoreUnavailable):
            continue  # away for a moment; if for longer, the lease ends and the next acknowledgement says so
    try:
        target.release(checkpoint)
    except (TargetUnavailable, StoreUnavailable):
        return  # it ends by itself
