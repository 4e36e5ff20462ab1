"""The events by which timers are stored in the log, and the queries that find them.

    $timer-set         tagged $process:NAME   sets a timer; the event's id is the timer's id
    $timer-cancelled   tagged $process:NAME   cancels timers that were set before it
    the user's event   tagged $fired:NAME     fires a timer; the event's id is derived from the timer's id

Knows: the envelope. Does not know: clocks, when a timer is due.
"""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec

from eventfold.core.codec import encode_metadata
from eventfold.core.envelope import NewEvent, StoredEvent, from_micros, to_micros
from eventfold.core.event import Event, declaration_of, stored_names_of
from eventfold.core.json_values import decoder_of
from eventfold.core.query import Item, Query
from eventfold.core.registry import Registry
from eventfold.errors import InvalidProcess
from eventfold.processes.actions import Cancel, Timer, class_of


def derived_id(time: int, *parts: object) -> UUID:
    """Return an id derived from `parts`: a UUIDv8 that begins with a time, as all event ids do.

    `time`: µs since 1970 UTC; its milliseconds are used.
    """
    digest = sha256("\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
    millis = max(0, min(time // 1000, 2**48 - 1))
    return UUID(
        bytes=millis.to_bytes(6) + bytes((0x80 | digest[0] & 0x0F, digest[1], 0x80 | digest[2] & 0x3F)) + digest[3:10]
    )


def command_id(process: str, trigger: UUID, key: str, index: int) -> str:
    """Return the request key of the action number `index` of one reaction: of one instance to one event."""
    return f"{process}:{derived_id(0, process, trigger, key, index).hex}"


ANY = msgspec.Raw(b"null")
SET, CANCELLED = "$timer-set", "$timer-cancelled"


class TimerSet(Event, type="$timer-set"):
    """A timer: at `due` (µs since 1970 UTC) an event of `type` with this `data` and these `tags` is to be recorded.

    `hops`: how many reactions caused each other up to this timer; 0 if the timer lasts a second or more.
    """

    process: str
    key: str
    due: int
    type: str
    version: int
    data: msgspec.Raw
    tags: tuple[str, ...]
    correlation: str | None = None
    hops: int = 0


class TimerCancelled(Event, type="$timer-cancelled"):
    """The cancellation of the instance's timers that were set before: all, those of `types`, those with this `data`."""

    process: str
    key: str
    types: tuple[str, ...] | None = None
    data: msgspec.Raw = ANY


_encode = msgspec.json.encode
read_set = decoder_of(TimerSet).decode
read_cancelled = decoder_of(TimerCancelled).decode


def timer_query(process: str) -> Query:
    """Return the query for all events about a process's timers."""
    return Query((Item((SET, CANCELLED), (f"$process:{process}",)), Item((), (f"$fired:{process}",))))


def timer_end_query(process: str) -> Query:
    """Return the query for the events that end timers: none of them may be appended between reading and firing."""
    return Query((Item((CANCELLED,), (f"$process:{process}",)), Item((), (f"$fired:{process}",))))


def timer_set(
    registry: Registry, action: Timer, process: str, key: str, cause: StoredEvent, correlation: str, hops: int
) -> TimerSet:
    """Return the event that sets a timer. Raises InvalidEvent if its event cannot be stored, InvalidProcess."""
    inner = registry.encode(action.event)
    try:
        due = from_micros(cause.time) + action.delay if action.delay is not None else action.moment
    except OverflowError:
        due = None
    if due is None:
        raise InvalidProcess(
            f"The process {process} asked for {action.event!r} after {action.delay}, which is after the last date.",
            "Give a shorter time.",
        )
    passes = due - from_micros(cause.time) >= timedelta(seconds=1)
    data, hops = msgspec.Raw(inner.data), 0 if passes else hops
    return TimerSet(process, key, to_micros(due), inner.type, inner.version, data, inner.tags, correlation, hops)


def timer_cancelled(registry: Registry, action: Cancel, process: str, key: str) -> TimerCancelled:
    """Return the event that cancels timers."""
    if action.what is None:
        return TimerCancelled(process, key)
    if isinstance(action.what, type):
        return TimerCancelled(process, key, stored_names_of(action.what))
    kind = declaration_of(class_of(action.what)).names
    return TimerCancelled(process, key, kind, msgspec.Raw(registry.encode(action.what).data))


def new_event_of(fact: TimerSet | TimerCancelled, identity: UUID, metadata: dict[str, Any]) -> NewEvent:
    """Return an event about a timer, encoded."""
    kind = SET if isinstance(fact, TimerSet) else CANCELLED
    tags = (f"$process:{fact.process}",)
    return NewEvent(identity.bytes, kind, 1, _encode(fact), tags, None, encode_metadata(metadata))


def fired_id(timer: UUID, due: int) -> UUID:
    """Return the id of the event by which a timer fires. Every process derives the same id."""
    return derived_id(due, "fired", timer)


def fired_event(timer: UUID, fact: TimerSet, trace: dict[str, str] | None = None) -> NewEvent:
    """Return the event by which a timer fires, encoded. Every process makes the same bytes.

    Its `occurred` is when the timer was due; its `time` is when it is recorded, as for every event. `trace`: the trace
    context of the event that set the timer.
    """
    tags = tuple(sorted({*fact.tags, f"$fired:{fact.process}"}))
    facts = {"causation_id": str(timer), "correlation_id": fact.correlation, "process": fact.process}
    metadata = encode_metadata(facts | {"hops": fact.hops or None} | (trace or {}))
    identity = fired_id(timer, fact.due).bytes
    return NewEvent(identity, fact.type, fact.version, bytes(fact.data), tags, fact.due, metadata)
