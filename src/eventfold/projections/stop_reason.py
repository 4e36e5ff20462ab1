"""Why a projection does not go on, kept with its checkpoint and told as an error.

Knows: the words. Does not know: what stopped it.
"""

from __future__ import annotations

import msgspec

from eventfold.core.decoders import decode
from eventfold.core.tally import Tally
from eventfold.errors import CursorMismatch, ProjectionDamaged, ProjectionStopped
from eventfold.ports.target import Checkpoint, PartitionKey, Target


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


def stopped_error(name: str, held: Checkpoint) -> ProjectionStopped:
    """The error for a checkpoint that says why it stopped."""
    why = decode(held.stopped, StopReason)
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
            now = f"Give its progress up (eventfold projections forget {name}), and follow it from where you trust it."
        case "effects":
            now = (
                f"Give its progress up (eventfold projections forget {name}), and run it again: it begins where its "
                f"class says (start=…). Or say behind which position it goes on: eventfold projections begin {name} "
                "--at POSITION."
            )
        case _:
            now = f"Build it anew from this log: eventfold projections rebuild {name} --switch."
    return CursorMismatch(error.what, now, **{**error.fields, "projection": name})
