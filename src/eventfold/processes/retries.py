"""Trying again what was parked, when its time has come, until its attempts are used up.

Knows: entries, policies. Does not know: clocks (it is told seconds), what is tried, who does it.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from eventfold.ports.target import Checkpoint, CheckpointChanged, ParkedEvent, PartitionKey, Target
from eventfold.processes.effects import RetryPolicy
from eventfold.projections.leases import is_held_here


def live_checkpoints(target: Target, name: str) -> list[Checkpoint]:
    """The checkpoints of something that is known there; none where it is not."""
    known = target.record(name)
    return [] if known is None else target.checkpoints(name, known.live)


def first_parked_by_key(entries: list[ParkedEvent]) -> list[ParkedEvent]:
    """The first event of each key that is not done: the one that others of the key wait for."""
    first: dict[str, ParkedEvent] = {}
    for entry in sorted(entries, key=lambda each: each.position):
        if entry.state != "skipped":
            for key in entry.key.split(" | "):
                first.setdefault(key, entry)
    return list({entry.position: entry for entry in first.values()}.values())


class RetryScheduler:
    """What is parked in a target, and when each is to be tried again."""

    def __init__(self, target: Target, policies: Mapping[str, RetryPolicy]) -> None:
        self._target, self._policies = target, policies
        self._due: dict[tuple[PartitionKey, int, int], float] = {}

    def tick(self, now: float) -> int:
        """Have everything tried again whose time has come; returns how many. `now` in seconds of any clock."""
        seen: dict[tuple[PartitionKey, int, int], float] = {}
        count = 0
        for name, policy in self._policies.items():
            for held in live_checkpoints(self._target, name):
                if not is_held_here(held.holder):
                    continue  # whoever holds it has it tried again
                for entry in first_parked_by_key(self._target.parked(held.place)):
                    waits = entry.state == "parked" and entry.attempts < policy.attempts
                    if not waits:
                        continue
                    at = (held.place, entry.position, entry.attempts)
                    pause = policy.pause(entry.attempts) if entry.attempts else 0.0
                    due = seen[at] = self._due.get(at, now + pause)
                    if due <= now:
                        count += mark_due(self._target, held.place, entry)
        self._due = seen
        return count

    def tick_all(self) -> int:
        """The same without waiting, whoever holds the work: for a caller who wants everything done now."""
        count = 0
        for name, policy in self._policies.items():
            for held in live_checkpoints(self._target, name):
                for entry in first_parked_by_key(self._target.parked(held.place)):
                    if entry.state == "parked" and entry.attempts < policy.attempts:
                        count += mark_due(self._target, held.place, entry)
        return count


def mark_due(target: Target, place: PartitionKey, entry: ParkedEvent) -> bool:
    """Have one parked event tried again; False where it is not any more as it was read."""
    try:
        with target.control(place.name) as tx:
            there = any(each.place == place for each in tx.checkpoints(place.generation))
            if not there or entry not in tx.parked(place):
                return False
            tx.save_parked(place, [msgspec.structs.replace(entry, state="due")])
            return True
    except CheckpointChanged:
        return False
