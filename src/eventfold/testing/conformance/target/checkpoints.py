"""Checkpoints: progress is written in one transaction with the rows that it accounts for, or not at all."""

from __future__ import annotations

import pytest

from eventfold.core.tally import Tally
from eventfold.errors import LeaseLost
from eventfold.ports.target import (
    Checkpoint,
    CheckpointChanged,
    CheckpointUpdate,
    ParkedEvent,
    PartitionKey,
    ProjectionRecord,
    Target,
)
from eventfold.testing.conformance.target.flights import new_checkpoints
from eventfold.testing.conformance.target.tables import DECLARED, KEY, NAME, TABLE

ONE = Tally(1, 0x1234)
PARKED = ParkedEvent(3, "0" * 32, "conformance.departed", "c1", "parked", "ValueError: 13", 2)


@pytest.fixture
def held(target: Target) -> Checkpoint:
    """The checkpoint of a new projection, claimed."""
    record = ProjectionRecord(name=NAME, kind="rows", code="m:C", live=1, tables=(NAME,))
    with target.control(NAME) as tx:
        tx.create(record, {NAME: DECLARED}, new_checkpoints(NAME))
    held = target.claim(KEY, "worker", 60)
    assert held is not None
    return held


def update(position: int, **fields: object) -> CheckpointUpdate:
    """An update of a checkpoint to this position, with one event handled."""
    return CheckpointUpdate(
        position=position,
        event_id=f"{position:032x}",
        epoch=1,
        seen=ONE,
        handled=ONE,
        **fields,  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    )


def test_a_checkpoint_is_advanced_with_its_rows(target: Target, held: Checkpoint) -> None:
    """The returned checkpoint is the stored one, with the next revision."""
    with target.transaction(KEY) as tx:
        tx.upsert(TABLE, [("a", 1, 5, "x")])
        moved = tx.advance(held, update(5, stats='{"n":1}'))
    assert target.checkpoint(KEY) == moved
    assert (moved.position, moved.seen, moved.handled) == (5, ONE, ONE)
    assert (moved.token, moved.holder) == (held.token, "worker")
    assert moved.revision == held.revision + 1
    assert target.load(TABLE, [("a", 1)]) == [("a", 1, 5, "x")]


def test_an_exception_rolls_back_rows_and_progress(target: Target, held: Checkpoint) -> None:
    """After any exception in the block, neither rows nor checkpoint are changed."""
    with pytest.raises(RuntimeError, match="on purpose"), target.transaction(KEY) as tx:
        tx.upsert(TABLE, [("a", 1, 5, "x")])
        tx.advance(held, update(5, parked=[PARKED], mark=True))
        raise RuntimeError("on purpose")
    assert target.checkpoint(KEY) == held
    assert target.load(TABLE, [("a", 1)]) == []
    assert target.parked(KEY) == []


def test_a_stale_revision_is_refused(target: Target, held: Checkpoint) -> None:
    """After an operator's change the worker must reload the checkpoint: CheckpointChanged, and nothing is written."""
    with target.control(NAME) as tx:
        tx.update_checkpoint(KEY, stopped="paused")
    with pytest.raises(CheckpointChanged), target.transaction(KEY) as tx:
        tx.upsert(TABLE, [("a", 1, 5, "x")])
        tx.advance(held, update(5))
    now = target.checkpoint(KEY)
    assert now is not None
    assert (now.position, now.stopped) == (0, "paused")
    assert target.load(TABLE, [("a", 1)]) == []


def test_a_stale_token_is_refused(target: Target, held: Checkpoint) -> None:
    """After another worker's claim: LeaseLost, nothing is written."""
    target.release(held)
    other = target.claim(KEY, "other", 60)
    assert other is not None
    with pytest.raises(LeaseLost), target.transaction(KEY) as tx:
        tx.upsert(TABLE, [("a", 1, 5, "x")])
        tx.advance(held, update(5))
    assert target.checkpoint(KEY) == other
    assert target.load(TABLE, [("a", 1)]) == []


def test_parked_events_are_saved_changed_and_settled(target: Target, held: Checkpoint) -> None:
    """Parked events are ordered by position, and have key, state, error, attempts and reason."""
    later = ParkedEvent(7, "1" * 32, "conformance.departed", "c1", "parked")
    skipped = ParkedEvent(3, PARKED.event_id, PARKED.type, "c1", "skipped", PARKED.error, 2, "sent by mistake")
    with target.transaction(KEY) as tx:
        held = tx.advance(held, update(7, parked=[later, PARKED]))
    assert target.parked(KEY) == [PARKED, later]
    with target.transaction(KEY) as tx:
        held = tx.advance(held, update(8, parked=[skipped], settled=[7]))
    assert target.parked(KEY) == [skipped]
    assert target.parked(PartitionKey(NAME, 1, 1)) == []


def test_ledger_marks_are_saved_on_request(target: Target, held: Checkpoint) -> None:
    """The first mark is at the start of the ledger, the others have the tally of the events up to their position."""
    began = target.ledger_marks(KEY)
    with target.transaction(KEY) as tx:
        held = tx.advance(held, update(5, mark=True))
    with target.transaction(KEY) as tx:
        held = tx.advance(held, update(6))
    assert target.ledger_marks(KEY) == [*began, (5, ONE)]
    assert [position for position, _ in began] == [0]


def test_every_partition_has_its_own_checkpoint(target: Target) -> None:
    """Checkpoints are separate by generation and partition; one that does not exist is None."""
    name = "conformance_parts"
    record = ProjectionRecord(name=name, kind="rows", code="m:C", live=1, tables=(name,))
    with target.control(name) as tx:
        tx.create(record, {name: "a INTEGER"}, new_checkpoints(name, 1, 3))
    keys = [PartitionKey(name, 1, partition) for partition in range(3)]
    assert [each.place for each in target.checkpoints(name)] == keys
    held = target.claim(keys[1], "worker", 60)
    assert held is not None
    assert target.checkpoint(keys[1]) == held
    assert [each.holder for each in target.checkpoints(name, 1)] == ["", "worker", ""]
    assert target.checkpoint(PartitionKey(name, 1, 3)) is None
    assert target.checkpoint(PartitionKey("conformance_never", 1)) is None
    assert target.checkpoints("conformance_never") == []


def test_the_live_checkpoints_and_parked_events_are_those_of_each_projection(target: Target, held: Checkpoint) -> None:
    """Of all projections at once; a generation that is not live is left out."""
    with target.transaction(KEY) as tx:
        tx.advance(held, update(7, parked=[PARKED]))
    other = "conformance_other"
    record = ProjectionRecord(name=other, kind="rows", code="m:C", live=1, tables=())
    with target.control(other) as tx:
        tx.create(record, {}, new_checkpoints(other, partitions=2))
    with target.control(NAME) as tx:
        tx.create(
            ProjectionRecord(name=NAME, kind="rows", code="m:C", live=1, building=2, tables=(NAME,)),
            {NAME: DECLARED},
            new_checkpoints(NAME, 2),
        )
    assert target.live_checkpoints() == [*target.checkpoints(other, 1), *target.checkpoints(NAME, 1)]
    assert target.live_parked() == [(KEY, PARKED)]
