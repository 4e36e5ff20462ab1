"""Records: a projection is recorded under its name, with its generations; removing it removes all of them."""

from __future__ import annotations

import pytest

from eventfold.core.table import generation_table
from eventfold.ports.target import CheckpointChanged, PartitionKey, ProjectionRecord, Target
from eventfold.testing.conformance.target.flights import new_checkpoints
from eventfold.testing.conformance.target.tables import DECLARED, NAME

RECORD = ProjectionRecord(name=NAME, kind="rows", code="m:C", live=1, tables=(NAME,))


def create(target: Target) -> None:
    """Create a projection with one generation."""
    with target.control(NAME) as tx:
        tx.create(RECORD, {NAME: DECLARED}, new_checkpoints(NAME))


def test_an_empty_target_has_no_record(target: Target) -> None:
    """Reading creates nothing."""
    assert target.record(NAME) is None
    assert target.records() == []
    assert target.pending_commands("s") == []


def test_a_projection_is_recorded_as_it_was_created(target: Target) -> None:
    """Kind, code, generations and tables are read back; records are listed by name, except names with `$`."""
    create(target)
    for name in ("conformance_b", "$conformance", "conformance_a"):
        with target.control(name) as tx:
            tx.save_record(ProjectionRecord(name=name, kind="elsewhere", code="m:D", live=1))
    assert target.record(NAME) == RECORD
    assert [each.name for each in target.records()] == ["conformance_a", "conformance_b", NAME]
    found = target.record("$conformance")
    assert found is not None
    assert found.kind == "elsewhere"


def test_a_command_that_fails_changes_nothing(target: Target) -> None:
    """An exception in the block of `control` rolls back its changes."""
    create(target)
    with pytest.raises(RuntimeError, match="on purpose"), target.control(NAME) as tx:
        tx.save_record(ProjectionRecord(name=NAME, kind="rows", code="other", live=1, paused="x", tables=(NAME,)))
        tx.update_checkpoint(PartitionKey(NAME, 1), stopped="x")
        raise RuntimeError("on purpose")
    assert target.record(NAME) == RECORD
    assert [each.stopped for each in target.checkpoints(NAME)] == [""]


def test_a_generation_is_created_once(target: Target) -> None:
    """A second creation of the same generation raises CheckpointChanged."""
    create(target)
    with pytest.raises(CheckpointChanged):
        create(target)
    assert len(target.checkpoints(NAME)) == 1


def test_generations_are_independent(target: Target) -> None:
    """Each has its own rows and checkpoints; the record has the live one; a dropped one is removed."""
    create(target)
    building = ProjectionRecord(name=NAME, kind="rows", code="m:C", live=1, building=2, tables=(NAME,))
    with target.control(NAME) as tx:
        tx.create(building, {NAME: DECLARED}, new_checkpoints(NAME, 2))
    for generation in (1, 2):
        with target.transaction(PartitionKey(NAME, generation)) as tx:
            tx.upsert(generation_table(DECLARED, generation), [("a", 1, generation, "")])
    for generation in (1, 2):
        assert target.load(generation_table(DECLARED, generation), [("a", 1)]) == [("a", 1, generation, "")]
    switched = ProjectionRecord(name=NAME, kind="rows", code="m:C", live=2, previous=1, tables=(NAME,))
    with target.control(NAME) as tx:
        tx.save_record(switched)
    assert target.record(NAME) == switched
    alone = ProjectionRecord(name=NAME, kind="rows", code="m:C", live=2, tables=(NAME,))
    with target.control(NAME) as tx:
        tx.save_record(alone)
        tx.drop(1, [NAME])
    assert [each.place.generation for each in target.checkpoints(NAME)] == [2]
    assert target.load(generation_table(DECLARED, 2), [("a", 1)]) == [("a", 1, 2, "")]


def test_a_removed_projection_leaves_nothing(target: Target) -> None:
    """Record, checkpoints and rows are removed, and the name may be used again."""
    create(target)
    with target.transaction(PartitionKey(NAME, 1)) as tx:
        tx.upsert(generation_table(DECLARED, 1), [("a", 1, 5, "")])
    with target.control(NAME) as tx:
        assert tx.written_tables() == [NAME]
        tx.forget([NAME])
    assert target.record(NAME) is None
    assert target.checkpoints(NAME) == []
    create(target)
    assert target.load(generation_table(DECLARED, 1), [("a", 1)]) == []
