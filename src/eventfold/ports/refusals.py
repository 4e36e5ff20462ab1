"""The errors with which engines refuse an append, and calls to a store that was closed or replaced.

Shared, so that all engines raise identical ones.

Knows: clauses, events, positions. Does not know: how an engine finds a conflict.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from eventfold.core.envelope import NewEvent, StoredEvent
from eventfold.core.query import ConditionClause
from eventfold.errors import (
    AppendConflict,
    EventIdReused,
    InvalidInput,
    PositionBeyondHead,
    ReplicaMismatch,
    StoreClosed,
    StoreNotFound,
)


def conflict(clause: ConditionClause, found: int, number: int) -> AppendConflict:
    """The error of a clause that an event at position `found` matches. `number`: the clause's index, from 0."""
    query = _query_text(clause)
    return AppendConflict(
        f"An event matching {query} was written at position {found}, after position {clause.after}.",
        "Read again and decide again.",
        clause=number,
        after=clause.after,
        found=found,
        query=query,
    )


def _query_text(clause: ConditionClause) -> str:
    text = repr(clause.query)
    return text if len(text) <= 300 else f"{text[:300]}… and more)"  # a query may have thousands of items


def base_event_missing(clause: ConditionClause, number: int) -> AppendConflict:
    """The error of a clause whose `after_event` is not in the log. `number`: see conflict."""
    return AppendConflict(
        "This append was based on an event that was refused itself.",
        "Read again and decide again.",
        clause=number,
        after=clause.after,
        found=clause.after,
        query=_query_text(clause),
    )


def epoch_ended(clause: ConditionClause, read_in: int, now: int) -> AppendConflict:
    """The error of a condition that was read in an epoch that has ended: the store may have lost events since."""
    return AppendConflict(
        f"The condition of this append was read in epoch {read_in} of the store, which is now in epoch {now}: it "
        "failed over or was restored, and may have lost events.",
        "Read again and decide again.",
        clause=0,
        after=clause.after,
        found=clause.after,
        query=_query_text(clause),
        read_in=read_in,
        epoch=now,
    )


def beyond_head(position: int, head: int) -> PositionBeyondHead:
    """The error of a position that the log has not reached."""
    return PositionBeyondHead(
        f"Position {position} is beyond the end of the log, which is position {head}.",
        "Use a position that this store returned; this one is from another store, or from history that was lost.",
        position=position,
        head=head,
    )


def in_the_future(clause: ConditionClause, head: int) -> PositionBeyondHead:
    """The error of a clause whose `after` is beyond the head."""
    return beyond_head(clause.after, head)


def id_reused(events: Sequence[NewEvent], at: Sequence[int | None]) -> EventIdReused:
    """The error of events whose ids are in the log with other content, or twice in `events`.

    `at`: the position of each event's id in the log, None where it is not there.
    """
    first = next((i for i, position in enumerate(at) if position is not None), None)
    if first is None:
        return EventIdReused(
            "Two events of one append have the same id.",
            "Give every event an id of its own.",
            id=str(UUID(bytes=events[0].id)),
        )
    identity = str(UUID(bytes=events[first].id))
    return EventIdReused(
        f"Event id {identity} is in the log already, at position {at[first]}, written by another append.",
        "Repeat an append unchanged, or give new events new ids.",
        id=identity,
        position=at[first],
    )


def import_gap(head: int, first: int) -> AppendConflict:
    """The error of an import whose first event does not come directly after the head."""
    return AppendConflict(
        f"Events from position {first} on were to be imported, and this log ends at {head}.",
        "Copy into an empty store, or continue where the copy stopped; no other process may write to it meanwhile.",
        after=first - 1,
        found=head,
    )


def not_the_same_log(position: int, path: str) -> ReplicaMismatch:
    """The error of a copy that has another event at a position than the log it is to be a copy of."""
    return ReplicaMismatch(
        f"The local copy {path} has another event at position {position} than the log: it is a copy of another log.",
        "Rename the copy, and open the log again: a new copy is made from it.",
        path=path,
        position=position,
    )


def not_the_same_key(key: str, first: int, path: str) -> ReplicaMismatch:
    """The error of a copy that has another append under a request key."""
    return ReplicaMismatch(
        f"The local copy {path} has another append under the request key {key!r} than the log, where it begins at "
        f"position {first}: it is a copy of another log.",
        "Rename the copy, and open the log again: a new copy is made from it.",
        path=path,
        key=key,
        position=first,
    )


def not_whole_appends(position: int) -> InvalidInput:
    """The error of an import whose events are not whole appends at consecutive positions."""
    return InvalidInput(
        f"The events to be imported are not whole appends at consecutive positions: see position {position}.",
        "Import every event of an append, in order.",
        position=position,
    )


def closed_error() -> StoreClosed:
    """The error of a call to a store that was closed."""
    return StoreClosed("This store was closed.", "Open it again.")


def wrong_store(where: str, expected: str, found: str) -> StoreNotFound:
    """The error of an address that has another store now than it had when it was opened."""
    return StoreNotFound(
        f"The store {expected[:8]}… is not at {where} any more: it has the store {found[:8]}… now.",
        "Open the store again if that is right: cursors and positions of the old one are not valid in it.",
        where=where,
        store=found,
    )


def is_repeat(events: Sequence[NewEvent], stored: Sequence[StoredEvent | None]) -> bool:
    """Whether the stored events, found by the ids of the new ones, are the same append: complete and in order."""
    first = stored[0]
    return (
        first is not None
        and first.offset == 0
        and first.size == len(events)
        and all(
            old is not None and old.position == first.position + index and old.is_same_as(new)
            for index, (new, old) in enumerate(zip(events, stored, strict=True))
        )
    )
