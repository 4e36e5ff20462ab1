"""Judging around events that are not in the replica yet: the verdict is that of a replica which has them."""

from __future__ import annotations

import random
from typing import Any

from eventfold.concurrency import run
from eventfold.core.envelope import NewEvent, StoredEvent
from eventfold.core.query import ConditionClause, Query
from eventfold.engines.jetstream.pending import PendingEvents
from eventfold.engines.memory import MemoryEngine
from eventfold.ports.messages import AppendRequest
from eventfold.ports.services import require

TYPES, TAGS = ("A", "B"), ("x:1", "x:2", "y:1")


def new(chance: random.Random) -> NewEvent:
    """An event of a random type with random tags."""
    return NewEvent.of(chance.choice(TYPES), b"1", tags=chance.sample(TAGS, chance.randrange(3)))


def query(chance: random.Random) -> Query:
    """A random query, which may be the one that matches every event."""
    types = chance.sample(TYPES, chance.randrange(2))
    tags = chance.sample(TAGS, chance.randrange(3))
    return Query.of(types=types, tags=tags) if types or tags else Query()


def request(chance: random.Random, known: list[StoredEvent], head: int) -> AppendRequest:
    """A random request: some repeat what is there, name an event as their base, or a position beyond the head."""
    clauses = [
        ConditionClause(query(chance), chance.randrange(head + 2), chance.choice([None, None, None, known[-1].id]))
        for _ in range(chance.randrange(3))
    ]
    if chance.random() < 0.1:
        old = chance.choice(known)
        events = (NewEvent(old.id, old.type, old.version, old.data, old.tag_set),)
    else:
        events = tuple(new(chance) for _ in range(chance.randrange(1, 3)))
    return AppendRequest(events, tuple(clauses), chance.choice([None, None, None, "key"]))


def test_requests_are_accepted_exactly_if_a_replica_with_the_events_accepts_them() -> None:
    """Two thousand random calls: where it decides, head, time and verdicts are equal; and often enough it decides."""
    chance = random.Random(27)
    decided = refused = 0
    for _ in range(2_000):
        there = [new(chance).at(i + 1, 100 + i, 0, 1) for i in range(chance.randrange(1, 6))]
        later = [new(chance).at(len(there) + 1 + i, 200 + i, 0, 1) for i in range(chance.randrange(1, 4))]
        behind, complete = MemoryEngine(), MemoryEngine()
        for engine, events in ((behind, there), (complete, [*there, *later])):
            run(require(engine, "replica").import_events(events))
        pending = PendingEvents()
        pending.add(later, [])
        known = [*there, *later]
        requests = [request(chance, known, len(known)) for _ in range(chance.randrange(1, 4))]
        expected = run(require(complete, "replica").judge(requests, 150))
        found: Any = pending.judge(require(behind, "replica"), requests, 150)
        if found is None:
            refused += any(verdict is not None for verdict in expected.verdicts)
            continue
        decided += 1
        assert (found.head, found.time, found.verdicts) == (expected.head, expected.time, expected.verdicts)
        assert found.verdicts == [None] * len(requests)
    assert decided > 300 and refused > 300
