"""Commands: an operator's command changes what is recorded in one transaction, and workers notice it."""

from __future__ import annotations

from eventfold.ports.target import ParkedEvent, PartitionKey, PendingCommand, ProjectionRecord, Target
from eventfold.testing.conformance.target.flights import new_checkpoints
from eventfold.testing.conformance.target.tables import DECLARED, KEY, NAME

PARKED = ParkedEvent(3, "0" * 32, "conformance.departed", "c1", "due", "ValueError: 13", 2)


def create(target: Target) -> None:
    """Create a projection with one generation."""
    record = ProjectionRecord(name=NAME, kind="rows", code="m:C", live=1, tables=(NAME,))
    with target.control(NAME) as tx:
        tx.create(record, {NAME: DECLARED}, new_checkpoints(NAME))


def test_every_change_is_noticed_by_the_revision(target: Target) -> None:
    """A change of a checkpoint, parked event or record increases the revision of the checkpoint."""
    create(target)
    revisions: list[int] = []

    def note() -> None:
        checkpoint = target.checkpoint(KEY)
        assert checkpoint is not None
        revisions.append(checkpoint.revision)

    note()
    with target.control(NAME) as tx:
        tx.update_checkpoint(KEY, stopped="why")
    note()
    with target.control(NAME) as tx:
        tx.save_parked(KEY, [PARKED])
    note()
    with target.control(NAME) as tx:
        record = tx.record()
        assert record is not None
        tx.save_record(record)
    note()
    assert revisions == sorted(set(revisions))
    assert target.parked(KEY) == [PARKED]


def test_a_command_reads_what_is_committed(target: Target) -> None:
    """Record, checkpoints and parked events equal those that the target itself returns."""
    create(target)
    with target.control(NAME) as tx:
        tx.save_parked(KEY, [PARKED])
    with target.control(NAME) as tx:
        assert tx.record() == target.record(NAME)
        assert tx.checkpoints() == tx.checkpoints(1) == target.checkpoints(NAME)
        assert tx.checkpoints(2) == []
        assert tx.parked(KEY) == [PARKED]
        assert tx.parked(PartitionKey(NAME, 2)) == []
        assert tx.now() > 0


def test_commands_wait_for_the_log_of_their_store(target: Target) -> None:
    """Pending commands are listed by id, which grows with time, until removed; those of other stores are not listed."""
    create(target)
    commands = [PendingCommand(f"{number:032x}", "s", NAME, f'{{"n":{number}}}', "{}") for number in (2, 1, 3)]
    for command in [*commands, PendingCommand("f" * 32, "other", NAME, "{}")]:
        with target.control(NAME) as tx:
            tx.save_command(command)
    assert target.pending_commands("s") == sorted(commands, key=lambda each: each.id)
    target.remove_command(commands[0])
    target.remove_command(commands[0])
    assert {each.id for each in target.pending_commands("s")} == {each.id for each in commands[1:]}
    assert [each.id for each in target.pending_commands("other")] == ["f" * 32]


def test_the_clock_of_the_target_goes_forward(target: Target) -> None:
    """The target's clock, by which leases are checked, is in µs since 1970 UTC and does not go back."""
    first = target.now()
    assert 1_600_000_000_000_000 < first <= target.now()


def test_rows_that_are_committed_are_delivered(target: Target) -> None:
    """A target that does not forward rows has no delivery lag."""
    create(target)
    if not target.forwards:
        assert target.delivery_lag(NAME, 1) == ""
    target.withdraw(NAME, None, "s")
    assert isinstance(target.lock_holder(), str)


def test_closing_twice_is_harmless(target: Target) -> None:
    """Closing a second time does nothing."""
    create(target)
    target.close()
    target.close()
