"""Failures of a projection: the retry, park or stop policy, the parked events, and why a projection stopped.

Knows: the policies, parked events and their keys as text, the messages. Does not know: how an event is handled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import suppress

import msgspec

from eventfold.core.backoff import Backoff
from eventfold.core.counted import count_of
from eventfold.core.envelope import StoredEvent
from eventfold.core.json_values import decode
from eventfold.core.tally import MODULUS, Tally, event_hash
from eventfold.errors import CursorMismatch, ProjectionDamaged, ProjectionStopped
from eventfold.ports.target import Checkpoint, ParkedEvent, PartitionKey, Target
from eventfold.projections.definition import ProjectionDefinition
from eventfold.projections.page import DecodedEvent, HandlerFailed, storable

KEYLESS_NOTE = ' (no key of it can be read, so all others wait; without_key="park" would park it alone)'
NO_EVENT = 0  # the position in a StopReason where code failed as time passed
EVENT_BACKOFF = Backoff(0.05, 30.0, factor=4.0)  # before an event is retried


class StopReason(msgspec.Struct, frozen=True):
    """Why a projection stopped: the event that it cannot handle, the error, how often handling was attempted.

    `position`: NO_EVENT if it failed as time passed; `handler` says where.
    """

    position: int
    type: str
    handler: str
    error: str
    attempts: int


def marks_of(target: Target, partition_key: PartitionKey) -> list[tuple[int, Tally]]:
    """Return the ledger marks of a partition; the first is its start position.

    Raises ProjectionDamaged where that one is missing.
    """
    marks = target.ledger_marks(partition_key)
    if not marks:
        name = partition_key.name
        raise ProjectionDamaged(
            f"The stored progress of {name} is damaged: the ledger mark of its start position is missing.",
            f"Rebuild it: eventfold projections rebuild STORE {name} --switch; or restore that database.",
            projection=name,
            table="eventfold_mark",
        )
    return marks


def paused_error(name: str, because: str) -> ProjectionStopped:
    """Return the error for a projection that is paused."""
    return ProjectionStopped(
        f"{name} is paused: {because.rstrip('.')}.",
        f"Resume it: eventfold projections resume STORE {name}.",
        projection=name,
        because=because,
    )


def stopped_error(name: str, checkpoint: Checkpoint) -> ProjectionStopped:
    """Return the error for a projection that stopped, from the reason in its checkpoint."""
    why = decode(checkpoint.stopped, StopReason)
    if why.position == NO_EVENT:
        return ProjectionStopped(
            f"{name} stopped in {why.handler}: {why.error.rstrip('.')}.",
            f"Fix it and resume it (eventfold projections resume STORE {name}).",
            projection=name,
            error=why.error,
        )
    return ProjectionStopped(
        f"{name} stopped at event {why.position} ({why.type}), in {why.handler}, after "
        f"{count_of(why.attempts, 'attempt')}: {why.error.rstrip('.')}.",
        f"Fix the handler and resume it (eventfold projections resume STORE {name}), or skip the event: "
        f"eventfold projections skip STORE {name} {why.position} --because ….",
        projection=name,
        position=why.position,
        type=why.type,
        error=why.error,
    )


def ahead_of_log_error(name: str, kind: str, error: CursorMismatch) -> CursorMismatch:
    """Return the same error with the remedy for a projection whose checkpoint is ahead of the log, or of another log.

    `kind`: of its ProjectionRecord.
    """
    match kind:
        case "follower" | "consumer":
            remedy = (
                f"Remove its progress (eventfold projections remove STORE {name}), and follow again from a position "
                "that you trust (after=…)."
            )
        case "effects":
            remedy = (
                f"Remove its progress (eventfold projections remove STORE {name}), and run it again: it starts where "
                "its class declares (start=…). Or choose after which position it continues: "
                f"eventfold projections begin STORE {name} --at POSITION."
            )
        case _:
            remedy = f"Rebuild it from this log: eventfold projections rebuild STORE {name} --switch."
    return CursorMismatch(error.what, remedy, **{**error.fields, "projection": name})


def entries_of(target: Target, checkpoint: Checkpoint) -> list[ParkedEvent]:
    """Return the parked events that belong to a checkpoint. Raises ProjectionDamaged where some are missing.

    Does not raise where the checkpoint changed between the two reads: its runner checks them again.
    """
    entries = target.parked(checkpoint.place)
    if not is_complete(checkpoint, entries):
        now = target.checkpoint(checkpoint.place)
        if now is not None and (now.token, now.revision) == (checkpoint.token, checkpoint.revision):
            raise incomplete_error(checkpoint)
    return entries


def is_complete(checkpoint: Checkpoint, entries: Sequence[ParkedEvent]) -> bool:
    """Whether the handled, parked and skipped events are exactly those that the checkpoint counted as seen."""
    if not entries:
        return checkpoint.handled == checkpoint.seen
    due = [entry for entry in entries if entry.position <= checkpoint.position]
    rest = sum(event_hash(entry.position, bytes.fromhex(entry.event_id)) for entry in due)
    return checkpoint.handled + Tally(len(due), rest % MODULUS) == checkpoint.seen


def incomplete_error(checkpoint: Checkpoint) -> ProjectionDamaged:
    """Return the error for a checkpoint some of whose parked events are missing."""
    name = checkpoint.place.name
    return ProjectionDamaged(
        f"The stored progress of {name} is damaged: handled, parked and skipped events do not add up to those seen.",
        f"Restore that database from a backup; or remove the projection (eventfold projections remove STORE {name}) "
        "and build it again from the log.",
        projection=name,
        table="eventfold_entry",
    )


def key_for_keyless(stored: StoredEvent) -> DecodedEvent:
    """Return an event that has no key under a key of its own, so that no later event waits for it."""
    return DecodedEvent(0, stored, (), ((f"(event {stored.position} alone)",),))


def keys_of(entry: ParkedEvent) -> list[str]:
    """Return the keys of a parked event."""
    return entry.key.split(" | ")


def parked_entry(item: DecodedEvent, error: str, attempts: int) -> ParkedEvent:
    """Return the parked event for one that was not handled. `attempts`: how often handling it failed."""
    stored = item.stored
    return ParkedEvent(stored.position, stored.id.hex(), stored.type, item.key_text, "parked", error, attempts)


def with_later_ones(entries: Iterable[ParkedEvent], first: Iterable[ParkedEvent]) -> list[ParkedEvent]:
    """Return the events of `first` and those of `entries` that wait for them, in order of position.

    An event waits for an earlier one with which it shares a key, directly or by way of events between them.
    """
    chosen = {entry.position: entry for entry in first}
    keys = {key for entry in chosen.values() for key in keys_of(entry)}
    for entry in sorted(entries, key=lambda entry: entry.position):
        if entry.state == "parked" and not keys.isdisjoint(keys_of(entry)):
            chosen[entry.position] = entry
            keys.update(keys_of(entry))
    return [chosen[position] for position in sorted(chosen)]


class ParkedEvents:
    """The parked, due and skipped events of one partition, in memory. Later events of a parked or due key wait."""

    def __init__(self) -> None:
        self.by_position: dict[int, ParkedEvent] = {}
        self._blocked: set[str] = set()  # keys of which an event is parked or due

    def load(self, entries: Iterable[ParkedEvent]) -> None:
        """Replace all by the stored events."""
        self.by_position, self._blocked = {}, set()
        for entry in entries:
            self.by_position[entry.position] = entry
            if entry.state != "skipped":
                self._blocked.update(keys_of(entry))

    def add(self, entries: Iterable[ParkedEvent]) -> None:
        """Add events that were parked just now."""
        for entry in entries:
            self.by_position[entry.position] = entry
            self._blocked.update(keys_of(entry))

    def remove(self, entry: ParkedEvent) -> None:
        """Remove a parked event that was handled."""
        del self.by_position[entry.position]
        self.load([*self.by_position.values()])

    def replace(self, entry: ParkedEvent) -> None:
        """Replace a parked event by the same event in another state."""
        self.load([*self.by_position.values(), entry])

    def is_to_handle(self, item: DecodedEvent) -> bool:
        """Whether an event is neither parked or skipped, nor waits for an earlier event of one of its keys."""
        return item.stored.position not in self.by_position and not _is_blocked(item, self._blocked)

    def split(self, items: Sequence[DecodedEvent]) -> tuple[Sequence[DecodedEvent], list[ParkedEvent]]:
        """Return the events of a page to handle, and those to park because an earlier event of their key is parked.

        Events that are parked already are in neither.
        """
        if not self.by_position:
            return items, []
        todo: list[DecodedEvent] = []
        waiting: list[ParkedEvent] = []
        blocked = set(self._blocked)  # of this page only, until the page is committed
        for item in items:
            if item.stored.position in self.by_position:
                continue
            if _is_blocked(item, blocked):
                waiting.append(parked_entry(item, f"waits for an earlier event of {item.key_text}", 0))
                blocked.update(item.key_text.split(" | "))
            else:
                todo.append(item)
        return todo, waiting

    def first_due(self) -> ParkedEvent | None:
        """Return the parked event to retry next: a due one that is the first event of each of its keys."""
        if not self.by_position:
            return None
        first: dict[str, ParkedEvent] = {}
        for entry in sorted(self.by_position.values(), key=lambda entry: entry.position):
            if entry.state != "skipped":
                for key in keys_of(entry):
                    first.setdefault(key, entry)
        due = (
            entry
            for entry in first.values()
            if entry.state == "due" and all(first[key] is entry for key in keys_of(entry))
        )
        return min(due, key=lambda entry: entry.position, default=None)


def _is_blocked(item: DecodedEvent, blocked: Set[str]) -> bool:
    return bool(blocked) and not blocked.isdisjoint(item.key_text.split(" | "))


class Retry(msgspec.Struct, frozen=True):
    """Handle the event again, after a pause in seconds."""

    pause: float


class Park(msgspec.Struct, frozen=True):
    """Park the event, and go on with events of other keys."""

    entry: ParkedEvent


class Stop(msgspec.Struct, frozen=True):
    """Stop at the event. `cause`: the exception of user code where it is not an Exception, such as SystemExit."""

    reason: StopReason
    cause: BaseException | None


class FailurePolicy:
    """Decides what to do when an event of one partition fails: retry it, then park it, or stop the projection.

    A failure of a whole page names no event. Then the appends of that page (or its events, where failing events are
    parked) are handled one at a time, to the end of the page, until one fails by itself.
    """

    def __init__(self, definition: ProjectionDefinition) -> None:
        self._definition = definition
        self._parks = definition.on_error == "park"
        self._attempts: dict[int, int] = {}  # by position
        self._exhausted: set[tuple[type, str]] = set()  # errors and event types whose retries all failed
        self.isolating_through = 0  # up to this position, appends are handled one at a time; 0: they are not

    def isolate(self, events: Sequence[StoredEvent], items: Sequence[DecodedEvent]) -> bool:
        """Begin to handle appends one at a time. Returns False where these events cannot be divided further."""
        if len(items) <= 1 or (self.isolating_through and len({event.first for event in events}) == 1):
            return False
        self.isolating_through = events[-1].position
        return True

    def select(self, events: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
        """Return the events of a page to handle now: all, or only the first append (or event) while isolating."""
        if self.isolating_through and events and events[0].position <= self.isolating_through:
            if self._parks:
                return events[:1]
            return [event for event in events if event.first == events[0].first]
        self.isolating_through = 0
        return events

    def independent_before(self, failed: StoredEvent, before: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
        """Return the events before a failed one that can be committed without it.

        All of them where failing events are parked; else those of other appends, since an append is one commit.
        """
        return before if self._parks else [event for event in before if event.first != failed.first]

    def decide(
        self, failed: HandlerFailed, event: StoredEvent, decode: Callable[[StoredEvent], DecodedEvent | None]
    ) -> Retry | Park | Stop:
        """Decide what to do about an event that failed. A further policy of `on_error` is to be added here."""
        attempts = self._attempts[event.position] = self._attempts.get(event.position, 0) + 1
        kind = (type(failed.error), event.type)
        if attempts < self._definition.attempts and kind not in self._exhausted:
            return Retry(EVENT_BACKOFF.pause(attempts))
        error = describe_error(failed)
        if self._parks:
            self._exhausted.add(kind)  # the next event that fails like this is parked at its first attempt
            item = self._find_keys(event, decode)
            if item is not None:
                return Park(parked_entry(item, error, attempts))
            error += KEYLESS_NOTE
        cause = None if isinstance(failed.error, Exception) else failed.error
        return Stop(StopReason(event.position, event.type, failed.handler, error, attempts), cause)

    def _find_keys(
        self, event: StoredEvent, decode: Callable[[StoredEvent], DecodedEvent | None]
    ) -> DecodedEvent | None:
        """Return the event with its keys, for whose events to wait; None where no key of it can be read."""
        with suppress(HandlerFailed):
            item = decode(event)
            if item is not None and item.keys:
                return item
        return key_for_keyless(event) if self._definition.without_key == "park" else None

    def reset(self) -> None:
        """Count attempts from 0 again, after a commit or after an operator changed something."""
        self._attempts.clear()


def describe_error(failed: HandlerFailed) -> str:
    """Return the error of user code as text that every database can store, at most 2,000 characters."""
    return storable(f"{type(failed.error).__name__}: {failed.error}"[:2_000])
