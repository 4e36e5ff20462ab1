"""Retrying parked events when their pause is over, until their attempts are used up.

Knows: parked events, retry policies. Does not know: clocks (its caller passes the time), what handles the events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from eventfold.ports.target import Checkpoint, CheckpointChanged, ParkedEvent, PartitionKey, Target
from eventfold.processes.effects import RetryPolicy
from eventfold.projections.leases import is_held_here


def live_checkpoints(target: Target, name: str) -> list[Checkpoint]:
    """Return the checkpoints of the live generation of a projection; [] if the target has no record of it."""
    record = target.record(name)
    return [] if record is None else target.checkpoints(name, record.live)


def first_parked_by_key(entries: list[ParkedEvent]) -> list[ParkedEvent]:
    """Return the first unhandled event of each key: the one that later events of the key wait for."""
    first: dict[str, ParkedEvent] = {}
    for entry in sorted(entries, key=lambda each: each.position):
        if entry.state != "skipped":
            for key in entry.key.split(" | "):
                first.setdefault(key, entry)
    return list({entry.position: entry for entry in first.values()}.values())


class RetryScheduler:
    """Decides when the parked events of a target are tried again. `policies`: by name of a process or effect.

    `target` returns the target; it is called only if there are policies, since a store may have none.
    """

    def __init__(self, target: Callable[[], Target], policies: Mapping[str, RetryPolicy]) -> None:
        self._target, self._policies = target, policies
        self._due: dict[tuple[PartitionKey, int, int], float] = {}

    def tick(self, now: float) -> int:
        """Mark the parked events whose pause is over as due. Returns how many. `now`: seconds of a monotonic clock."""
        seen: dict[tuple[PartitionKey, int, int], float] = {}
        count = 0
        for name, policy in self._policies.items():
            for checkpoint in live_checkpoints(self._target(), name):
                if not is_held_here(checkpoint.holder):
                    continue  # the runner that holds the lease retries its events
                for entry in first_parked_by_key(self._target().parked(checkpoint.place)):
                    waits = entry.state == "parked" and entry.attempts < policy.attempts
                    if not waits:
                        continue
                    at = (checkpoint.place, entry.position, entry.attempts)
                    pause = policy.pause(entry.attempts) if entry.attempts else 0.0
                    due = seen[at] = self._due.get(at, now + pause)
                    if due <= now:
                        count += mark_due(self._target(), checkpoint.place, entry)
        self._due = seen
        return count

    def tick_all(self) -> int:
        """Mark all parked events with attempts left as due, without a pause and whichever runner holds the lease."""
        count = 0
        for name, policy in self._policies.items():
            for checkpoint in live_checkpoints(self._target(), name):
                for entry in first_parked_by_key(self._target().parked(checkpoint.place)):
                    if entry.state == "parked" and entry.attempts < policy.attempts:
                        count += mark_due(self._target(), checkpoint.place, entry)
        return count


def mark_due(target: Target, key: PartitionKey, entry: ParkedEvent) -> bool:
    """Mark one parked event as due. Returns False, and changes nothing, if it was changed since it was read."""
    try:
        with target.control(key.name) as tx:
            exists = any(each.place == key for each in tx.checkpoints(key.generation))
            if not exists or entry not in tx.parked(key):
                return False
            tx.save_parked(key, [msgspec.structs.replace(entry, state="due")])
            return True
    except CheckpointChanged:
        return False
