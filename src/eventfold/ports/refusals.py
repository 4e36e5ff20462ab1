"""The words every engine refuses an append with, so that all of them raise identical errors.

Knows: clauses, events, positions. Does not know: how an engine found out.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from eventfold.core.envelope import NewEvent, StoredEvent
from eventfold.core.query import ConditionClause
from eventfold.errors import AppendConflict, EventIdReused, PositionBeyondHead


def conflict(clause: ConditionClause, found: int, number: int) -> AppendConflict:
    """Someone else wrote first, at position `found`; `number`: which of the request's clauses it is, from 0."""
    asked = _asked(clause)
    return AppendConflict(
        f"An event matching {asked} was written at position {found}, after position {clause.after}.",
        "Read again and decide again.",
        clause=number,
        after=clause.after,
        found=found,
        query=asked,
    )


def _asked(clause: ConditionClause) -> str:
    asked = repr(clause.query)
    return asked if len(asked) <= 300 else f"{asked[:300]}… and more)"  # thousands of things are not for reading


def base_event_missing(clause: ConditionClause, number: int) -> AppendConflict:
    """The event that a condition begins behind was never written. `number`: see conflict."""
    return AppendConflict(
        "What this append was built on was refused itself.",
        "Read again and decide again.",
        clause=number,
        after=clause.after,
        found=clause.after,
        query=_asked(clause),
    )


def epoch_ended(clause: ConditionClause, read_in: int, now: int) -> AppendConflict:
    """The condition was read in an epoch of the store that has ended: history may have been lost since."""
    return AppendConflict(
        f"What this append was built on was read in epoch {read_in} of the store, and it is in epoch {now}: it failed "
        "over or was restored, and may have lost events.",
        "Read again and decide again.",
        clause=0,
        after=clause.after,
        found=clause.after,
        query=_asked(clause),
        read_in=read_in,
        epoch=now,
    )


def beyond_head(position: int, head: int) -> PositionBeyondHead:
    """A position that the log has not reached."""
    return PositionBeyondHead(
        f"Position {position} is in the future: the log ends at {head}.",
        "Use a position that this store has given; this one is of another store, or of history that was lost.",
        position=position,
        head=head,
    )


def in_the_future(clause: ConditionClause, head: int) -> PositionBeyondHead:
    """A condition that looked further than the log reaches."""
    return beyond_head(clause.after, head)


def id_reused(events: Sequence[NewEvent], at: Sequence[int | None]) -> EventIdReused:
    """A known id (`at`: where each of the events' ids stands in the log) came back differently."""
    known = next((i for i, position in enumerate(at) if position is not None), None)
    if known is None:
        return EventIdReused(
            "Two events of one append have the same id.",
            "Give every event an id of its own.",
            id=str(UUID(bytes=events[0].id)),
        )
    identity = str(UUID(bytes=events[known].id))
    return EventIdReused(
        f"Event id {identity} is in the log already, at position {at[known]}, written by another append.",
        "Repeat an append unchanged, or give new events new ids.",
        id=identity,
        position=at[known],
    )


def import_gap(head: int, first: int) -> AppendConflict:
    """Events to be taken over that do not begin right behind the head."""
    return AppendConflict(
        f"Events from position {first} on were to be taken over, and this log ends at {head}.",
        "Copy into an empty store, or go on where the copy stopped; nobody else may write to it meanwhile.",
        after=first - 1,
        found=head,
    )


def is_repeat(events: Sequence[NewEvent], stored: Sequence[StoredEvent | None]) -> bool:
    """Whether these stored events (found by the new ones' ids) are this very append, whole and in order."""
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
