"""What is stored of a consumer's progress: an advance of its checkpoint, with the ledger that proves it.

The checkpoint is at a position up to which every matching event is finished or has an entry in the target. Which later
ones are finished, and which are delivered, is in the checkpoint's `stats`.
Knows: checkpoints, entries, tallies. Does not know: the order of events, the log, HTTP.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from eventfold.core.json_values import decode
from eventfold.core.tally import MARK_EVERY_EVENTS, MODULUS, Tally, event_hash
from eventfold.ports.target import Checkpoint, CheckpointUpdate, ParkedEvent

if TYPE_CHECKING:
    from eventfold.server.consumers.item import Item


class Unfinished(msgspec.Struct, frozen=True, array_like=True):
    """An event that was delivered: how often, the secret of its last token, and whether it is delivered now."""

    position: int
    attempts: int
    secret: str
    delivered: bool
    delay_seconds: float = 0.0
    error: str = ""

    @classmethod
    def of(cls, item: Item, now: float) -> Unfinished:
        """The part of an event that is stored."""
        delay = max(0.0, round(item.not_before - now, 3)) if item.not_before else 0.0
        return cls(item.position, item.attempts, item.secret, item.state == "delivered", delay, item.error)


class ConsumerProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a consumer's progress that is in the `stats` of its checkpoint.

    `done`: positions after the checkpoint that are finished. `unfinished`: events that were delivered and are not.
    `rate`: acknowledged events per second.
    """

    done: Sequence[int] = ()
    unfinished: Sequence[Unfinished] = ()
    rate: int = 0


def progress_of(checkpoint: Checkpoint) -> ConsumerProgress:
    """Return what is stored in a checkpoint."""
    return decode(checkpoint.stats, ConsumerProgress)


class Plan(msgspec.Struct, frozen=True):
    """An update of the checkpoint. `passed`: how many of the events after it, it passes."""

    passed: int
    update: CheckpointUpdate

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        *,
        epoch: int,
        passed: Sequence[tuple[int, bytes]],
        kept: Collection[int],
        entries: Sequence[ParkedEvent],
        settled: Mapping[int, bytes],
        progress: ConsumerProgress,
        through: tuple[int, str] | None = None,
    ) -> Plan:
        """Return the plan that passes these events, of which those in `kept` have entries.

        `settled`: entries to remove, whose events are finished, with the ids of these. `through`: a position, and the
        id of the event there in hex, up to which no further event matches.
        """
        handled = [event_hash(*event) for event in passed if event[0] not in kept]
        handled += [event_hash(*event) for event in settled.items() if event[0] <= checkpoint.position]
        seen = Tally(len(passed), sum(event_hash(*event) for event in passed) % MODULUS)
        position, event_id = checkpoint.position, checkpoint.event_id
        if passed:
            position, event_id = passed[-1][0], passed[-1][1].hex()
        if through is not None and through[0] > position:
            position, event_id = through
        update = CheckpointUpdate(
            position=position,
            event_id=event_id,
            epoch=epoch,
            seen=checkpoint.seen + seen,
            handled=checkpoint.handled + Tally(len(handled), sum(handled) % MODULUS),
            parked=entries,
            settled=sorted(settled),
            mark=position // MARK_EVERY_EVENTS != checkpoint.position // MARK_EVERY_EVENTS,
            stats=msgspec.json.encode(progress).decode(),
        )
        return cls(len(passed), update)
