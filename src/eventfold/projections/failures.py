"""Failures of a projection: whether an event is retried, parked or stops it; what is parked; why it stopped.

Knows: the policies, parked events and their keys as text, the messages. Does not know: how an event is handled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import suppress

import msgspec

from eventfold.core.envelope import StoredEvent
from eventfold.core.json_values import decode
from eventfold.core.tally import MODULUS, Tally, event_hash
from eventfold.errors import CursorMismatch, ProjectionDamaged, ProjectionStopped
from eventfold.ports.target import Checkpoint, ParkedEvent, PartitionKey, Target
from eventfold.projections.definition import ProjectionDefinition
from eventfold.projections.page import DecodedEvent, HandlerFailed, storable

KEYLESS_NOTE = ' (it has no key that could be read, so all others wait; without_key="park" would set it aside alone)'
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 30.0  # before an event is retried: four times as long with every attempt


class StopReason(msgspec.Struct, frozen=True):
    """Why a projection stopped: the event it cannot take, the error, how often it was tried."""

    position: int
    type: str
    handler: str
    error: str
    attempts: int


def marks_of(target: Target, place: PartitionKey) -> list[tuple[int, Tally]]:
    """The marks of a place; the first one is where it began. Raises ProjectionDamaged where that is missing."""
    marks = target.ledger_marks(place)
    if not marks:
        raise ProjectionDamaged(
            f"What is kept about {place.name} is damaged: the mark of where its ledger began is gone.",
            f"Build it again: eventfold projections rebuild {place.name} --switch; or restore that database.",
            projection=place.name,
            table="eventfold_mark",
        )
    return marks


def paused_error(name: str, because: str) -> ProjectionStopped:
    """The error for work that was paused."""
    return ProjectionStopped(
        f"{name} is paused: {because.rstrip('.')}.",
        f"Let it go on: eventfold projections resume {name}.",
        projection=name,
        because=because,
    )


def stopped_error(name: str, checkpoint: Checkpoint) -> ProjectionStopped:
    """The error for a checkpoint that says why it stopped."""
    why = decode(checkpoint.stopped, StopReason)
    return ProjectionStopped(
        f"{name} stopped at event {why.position} ({why.type}), in {why.handler}, after {why.attempts} attempts: "
        f"{why.error.rstrip('.')}.",
        f"Mend the handler and resume it (eventfold projections resume {name}), or skip the event: "
        f"eventfold projections skip {name} {why.position} --because ….",
        projection=name,
        position=why.position,
        type=why.type,
        error=why.error,
    )


def ahead_of_log_error(name: str, kind: str, error: CursorMismatch) -> CursorMismatch:
    """The same error, with what to do about a projection whose checkpoint is ahead of the log, or of another one."""
    match kind:
        case "follower":
            remedy = (
                f"Give its progress up (eventfold projections remove {name}), and follow it from where you trust it."
            )
        case "effects":
            remedy = (
                f"Give its progress up (eventfold projections remove {name}), and run it again: it begins where its "
                f"class says (start=…). Or say behind which position it goes on: eventfold projections begin {name} "
                "--at POSITION."
            )
        case _:
            remedy = f"Build it anew from this log: eventfold projections rebuild {name} --switch."
    return CursorMismatch(error.what, remedy, **{**error.fields, "projection": name})


def entries_of(target: Target, checkpoint: Checkpoint) -> list[ParkedEvent]:
    """The entries that belong to a checkpoint. Raises ProjectionDamaged where some are gone.

    Where the checkpoint was changed between the two readings, nothing is judged: its runner notices.
    """
    entries = target.parked(checkpoint.place)
    if not is_complete(checkpoint, entries):
        now = target.checkpoint(checkpoint.place)
        if now is not None and (now.token, now.revision) == (checkpoint.token, checkpoint.revision):
            raise incomplete_error(checkpoint)
    return entries


def is_complete(checkpoint: Checkpoint, entries: Sequence[ParkedEvent]) -> bool:
    """Whether events that were handled, parked and skipped are those that were seen."""
    if not entries:
        return checkpoint.handled == checkpoint.seen
    due = [entry for entry in entries if entry.position <= checkpoint.position]
    rest = sum(event_hash(entry.position, bytes.fromhex(entry.event_id)) for entry in due)
    return checkpoint.handled + Tally(len(due), rest % MODULUS) == checkpoint.seen


def incomplete_error(checkpoint: Checkpoint) -> ProjectionDamaged:
    """The error for entries that are gone."""
    name = checkpoint.place.name
    return ProjectionDamaged(
        f"What is kept about {name} is damaged: handled, parked and skipped events are not those that were seen.",
        f"Restore that database from a backup; or give up what is kept (eventfold projections remove {name}) and have "
        "it built again from the log.",
        projection=name,
        table="eventfold_entry",
    )


def key_for_keyless(stored: StoredEvent) -> DecodedEvent:
    """An event without a key, under one of its own: nothing waits for it."""
    return DecodedEvent(0, stored, (), ((f"(event {stored.position} alone)",),))


def keys_of(entry: ParkedEvent) -> list[str]:
    """The keys of an entry's event."""
    return entry.key.split(" | ")


def parked_entry(item: DecodedEvent, error: str, attempts: int) -> ParkedEvent:
    """The entry for an event that was not handled."""
    stored = item.stored
    return ParkedEvent(stored.position, stored.id.hex(), stored.type, item.key_text, "parked", error, attempts)


def with_later_ones(entries: Iterable[ParkedEvent], first: Iterable[ParkedEvent]) -> list[ParkedEvent]:
    """Of some parked entries, those of the `first` ones' keys, and of their keys in turn; by position."""
    chosen = {entry.position: entry for entry in first}
    keys = {key for entry in chosen.values() for key in keys_of(entry)}
    for entry in sorted(entries, key=lambda entry: entry.position):
        if entry.state == "parked" and not keys.isdisjoint(keys_of(entry)):
            chosen[entry.position] = entry
            keys.update(keys_of(entry))
    return [chosen[position] for position in sorted(chosen)]


class ParkedEvents:
    """What is parked of one partition, in memory: parked, due and skipped events; later events of a parked key wait."""

    def __init__(self) -> None:
        self.by_position: dict[int, ParkedEvent] = {}
        self._blocked: set[str] = set()  # keys of which an event is parked or due

    def load(self, entries: Iterable[ParkedEvent]) -> None:
        """Replace all by what is stored."""
        self.by_position, self._blocked = {}, set()
        for entry in entries:
            self.by_position[entry.position] = entry
            if entry.state != "skipped":
                self._blocked.update(keys_of(entry))

    def add(self, entries: Iterable[ParkedEvent]) -> None:
        """Note events that were parked just now."""
        for entry in entries:
            self.by_position[entry.position] = entry
            self._blocked.update(keys_of(entry))

    def remove(self, entry: ParkedEvent) -> None:
        """Note that a parked event was handled."""
        del self.by_position[entry.position]
        self.load([*self.by_position.values()])

    def replace(self, entry: ParkedEvent) -> None:
        """Note that a parked event is in another state."""
        self.load([*self.by_position.values(), entry])

    def is_to_handle(self, item: DecodedEvent) -> bool:
        """Whether an event is neither parked or skipped, nor waits for an earlier event of one of its keys."""
        return item.stored.position not in self.by_position and not _is_blocked(item, self._blocked)

    def split(self, items: Sequence[DecodedEvent]) -> tuple[Sequence[DecodedEvent], list[ParkedEvent]]:
        """The events of a page to handle, and those to park behind others of their key; the rest is parked already."""
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
        """The parked event to retry next: one that is due, and the first of each of its keys."""
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
    """Stop at the event. `cause` is what ended the thread, where it is no Exception."""

    reason: StopReason
    cause: BaseException | None


class FailurePolicy:
    """Decides what follows when an event of one partition fails: it is retried, then parked, or the projection stops.

    A failure of a whole page names no event. Then its appends (or events, where failing events are parked) are handled
    one at a time, up to the end of that page, until one fails by itself.
    """

    def __init__(self, definition: ProjectionDefinition) -> None:
        self._definition = definition
        self._parks = definition.on_error == "park"
        self._attempts: dict[int, int] = {}  # by position
        self._exhausted: set[tuple[type, str]] = set()  # errors and event types that were retried in vain
        self.isolating_through = 0  # up to this position, appends are handled one at a time; 0: they are not

    def isolate(self, events: Sequence[StoredEvent], items: Sequence[DecodedEvent]) -> bool:
        """Begin to handle appends one at a time; False where these events cannot be divided further."""
        if len(items) <= 1 or (self.isolating_through and len({event.first for event in events}) == 1):
            return False
        self.isolating_through = events[-1].position
        return True

    def select(self, events: list[StoredEvent]) -> list[StoredEvent]:
        """The events of a page to handle now: all; or the first append (or event) only, while isolating."""
        if self.isolating_through and events and events[0].position <= self.isolating_through:
            if self._parks:
                return events[:1]
            return [event for event in events if event.first == events[0].first]
        self.isolating_through = 0
        return events

    def independent_before(self, failed: StoredEvent, before: list[StoredEvent]) -> list[StoredEvent]:
        """The events before a failed one that do not wait for it: other appends, or all where it may be parked."""
        return before if self._parks else [event for event in before if event.first != failed.first]

    def decide(
        self, failed: HandlerFailed, event: StoredEvent, decode: Callable[[StoredEvent], DecodedEvent | None]
    ) -> Retry | Park | Stop:
        """What to do about an event that failed. Another policy of `on_error` is added here."""
        attempts = self._attempts[event.position] = self._attempts.get(event.position, 0) + 1
        kind = (type(failed.error), event.type)
        if attempts < self._definition.attempts and kind not in self._exhausted:
            return Retry(min(FIRST_PAUSE_S * 4 ** (attempts - 1), LONGEST_PAUSE_S))
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
        """The event with its keys, of which later events wait; None where it has none that can be read."""
        with suppress(HandlerFailed):
            item = decode(event)
            if item is not None and item.keys:
                return item
        return key_for_keyless(event) if self._definition.without_key == "park" else None

    def reset(self) -> None:
        """Count attempts from the beginning: something was committed, or an operator changed something."""
        self._attempts.clear()


def describe_error(failed: HandlerFailed) -> str:
    """The error of user code as text that every database stores."""
    return storable(f"{type(failed.error).__name__}: {failed.error}"[:2_000])
