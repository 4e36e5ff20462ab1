"""Failures of a projection: why it stopped, which events are parked, which wait for them, which is retried next.

Knows: the messages, parked events and their keys as text. Does not know: how an event is handled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

import msgspec

from eventfold.core.envelope import StoredEvent
from eventfold.core.json_values import decode
from eventfold.core.tally import MODULUS, Tally, event_hash
from eventfold.errors import CursorMismatch, ProjectionDamaged, ProjectionStopped
from eventfold.ports.target import Checkpoint, ParkedEvent, PartitionKey, Target
from eventfold.projections.page import DecodedEvent


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


KEYLESS_NOTE = ' (it has no key that could be read, so all others wait; without_key="park" would set it aside alone)'


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


def is_complete(checkpoint: Checkpoint, entries: Iterable[ParkedEvent]) -> bool:
    """Whether events that were handled, parked and skipped are those that were seen."""
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


def blocked_keys(entries: Iterable[ParkedEvent]) -> set[str]:
    """The keys of which an event is parked: later ones wait."""
    return {key for entry in entries if entry.state != "skipped" for key in keys_of(entry)}


def must_wait(item: DecodedEvent, blocked: Set[str]) -> bool:
    """Whether an event must wait for an earlier one of one of its keys."""
    return bool(blocked) and not blocked.isdisjoint(item.key_text.split(" | "))


def parked_entry(item: DecodedEvent, error: str, attempts: int) -> ParkedEvent:
    """The entry for an event that was not handled."""
    stored = item.stored
    return ParkedEvent(stored.position, stored.id.hex(), stored.type, item.key_text, "parked", error, attempts)


def first_due(entries: Iterable[ParkedEvent]) -> ParkedEvent | None:
    """The next parked event to be tried again: one that is due, and the first of each of its keys."""
    first: dict[str, ParkedEvent] = {}
    for entry in sorted(entries, key=lambda entry: entry.position):
        if entry.state != "skipped":
            for key in keys_of(entry):
                first.setdefault(key, entry)
    due = (
        entry for entry in first.values() if entry.state == "due" and all(first[key] is entry for key in keys_of(entry))
    )
    return min(due, key=lambda entry: entry.position, default=None)


def split_by_blocked(
    items: Sequence[DecodedEvent], entries: Mapping[int, ParkedEvent], blocked: Set[str]
) -> tuple[Sequence[DecodedEvent], list[ParkedEvent]]:
    """What is to be handled, and what is to be parked behind others of its key; what is `known` is neither."""
    if not entries:
        return items, []
    todo: list[DecodedEvent] = []
    behind: list[ParkedEvent] = []
    blocked = set(blocked)  # of this page only, until the page is committed
    for item in items:
        if item.stored.position in entries:
            continue
        if must_wait(item, blocked):
            behind.append(parked_entry(item, f"waits for an earlier event of {item.key_text}", 0))
            blocked.update(item.key_text.split(" | "))
        else:
            todo.append(item)
    return todo, behind


def with_later_ones(entries: Iterable[ParkedEvent], first: Iterable[ParkedEvent]) -> list[ParkedEvent]:
    """Of some parked entries, those of the `first` ones' keys, and of their keys in turn; by position."""
    chosen = {entry.position: entry for entry in first}
    keys = {key for entry in chosen.values() for key in keys_of(entry)}
    for entry in sorted(entries, key=lambda entry: entry.position):
        if entry.state == "parked" and not keys.isdisjoint(keys_of(entry)):
            chosen[entry.position] = entry
            keys.update(keys_of(entry))
    return [chosen[position] for position in sorted(chosen)]
