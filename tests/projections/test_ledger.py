"""The completeness ledger: it proves correct progress, and names the positions of errors."""

from __future__ import annotations

import msgspec
import pytest

import eventfold as ef
from eventfold.core.tally import EMPTY_TALLY, Tally, event_hash
from eventfold.errors import CursorMismatch
from eventfold.ports.target import Checkpoint, CheckpointUpdate, PartitionKey
from eventfold.targets.sql.control_tables import mark_row
from tests.projections.flights import CarrierMonth, edit, flights


def forge(store: ef.Store, name: str = "carrier_month", **changes: object) -> None:
    """Change a checkpoint as no correct runner would."""
    target = store.projections.target(name)
    (held,) = target.checkpoints(name, 1)
    columns = {"position": held.position, "event_id": held.event_id, "seen": held.seen, "handled": held.handled}
    given = msgspec.structs.replace(held, **{**columns, **changes})
    edit(
        target,
        held.place,
        position=given.position,
        event_id=given.event_id,
        seen=given.seen,
        handled=given.handled,
    )


def checkpoint(store: ef.Store) -> Checkpoint:
    """Return the only checkpoint."""
    (held,) = store.projections.checkpoints("carrier_month")
    return held


def hash_at(store: ef.Store, position: int) -> int:
    """Return the hash of the event at a position."""
    (event,) = store.read(after=position - 1, limit=1)
    return event_hash(position, event.stored.id)


def test_sums_forget_order_and_batches() -> None:
    """Tallies of parts add up to the tally of the whole, in any order, and can be subtracted."""
    hashes = [event_hash(n, bytes([n]) * 16) for n in range(50)]
    whole = sum((Tally(1, h) for h in hashes), EMPTY_TALLY)
    odd, even = (sum((Tally(1, h) for h in hashes[k::2]), EMPTY_TALLY) for k in (1, 0))
    assert odd + even == even + odd == whole
    assert whole - odd == even
    assert Tally.of(whole.count, whole.hex) == whole


def test_the_event_that_was_skipped_is_named(store: ef.Store) -> None:
    """The cursor skipped one event: the recount names that event."""
    store.extend(flights(100))
    store.project(CarrierMonth)
    one = Tally(1, hash_at(store, 42))
    held = checkpoint(store)
    forge(store, seen=held.seen - one, handled=held.handled - one)
    (proof,) = store.projections.verify(CarrierMonth)
    assert not proof.proved
    assert proof.place == (41, 42)
    assert "Event 42" in proof.verdict
    assert "was missed" in proof.verdict


def test_the_event_that_was_handled_twice_is_named(store: ef.Store) -> None:
    """It was counted twice: the recount names it."""
    store.extend(flights(100))
    store.project(CarrierMonth)
    one = Tally(1, hash_at(store, 7))
    held = checkpoint(store)
    forge(store, seen=held.seen + one, handled=held.handled + one)
    (proof,) = store.projections.verify(CarrierMonth)
    assert proof.place == (6, 7)
    assert "handled twice" in proof.verdict


def test_the_first_stretch_that_differs_is_named(file_store: ef.Store) -> None:
    """Several events are missing between two marks of the ledger: the verdict has the range and their number."""
    file_store.extend(flights(25_000))
    file_store.project(CarrierMonth)
    lost = sum((Tally(1, hash_at(file_store, position)) for position in (12_000, 12_001, 13_000)), EMPTY_TALLY)
    target = file_store.projections.target(CarrierMonth)
    held = checkpoint(file_store)
    marks = target.ledger_marks(held.place)
    assert len(marks) >= 3  # the start, and two more
    forge(file_store, seen=held.seen - lost, handled=held.handled - lost)
    with target.transaction(held.place) as tx:
        for position, seen in marks:
            if position > 13_000:
                *_, count, digest, checksum = mark_row(held.place, position, seen - lost)
                sql = "UPDATE eventfold_mark SET seen = ?, seen_digest = ?, checksum = ? WHERE position = ?"
                tx.execute(sql, (count, digest, checksum, position))
    (proof,) = file_store.projections.verify(CarrierMonth)
    assert not proof.proved
    assert proof.place is not None
    assert proof.place[0] < 12_000 <= 13_000 <= proof.place[1]
    assert "3 events missed" in proof.verdict


def test_entries_that_do_not_add_up_are_found(store: ef.Store) -> None:
    """An event seen but neither handled, parked nor skipped: a recount of the log alone would not find it."""
    store.extend(flights(100))
    store.project(CarrierMonth)
    held = checkpoint(store)
    forge(store, handled=held.handled - Tally(1, hash_at(store, 9)))
    (proof,) = store.projections.verify(CarrierMonth)
    assert not proof.proved
    assert "do not add up" in proof.verdict


def test_a_checkpoint_ahead_of_the_log_is_refused(store: ef.Store) -> None:
    """The log was restored from an older copy: nothing is skipped silently; the error and the proof report it."""
    store.extend(flights(50))
    store.project(CarrierMonth)
    forge(store, position=80, event_id="00" * 16)
    with pytest.raises(CursorMismatch, match="position 80"):
        store.project(CarrierMonth)
    with store.run(CarrierMonth) as runner:
        assert runner.wait(timeout=60)
        assert isinstance(runner.failed["carrier_month"], CursorMismatch)
    (proof,) = store.projections.verify(CarrierMonth)
    assert not proof.proved


def test_another_event_at_the_cursor_is_refused(store: ef.Store) -> None:
    """A restored log that has grown past the checkpoint has another event there: following it is refused."""
    store.extend(flights(50))
    store.project(CarrierMonth)
    forge(store, event_id="00" * 16)
    with pytest.raises(CursorMismatch, match="restored or replaced"):
        store.project(CarrierMonth)


def test_a_target_kept_for_another_store_is_refused(file_store: ef.Store, tmp_path: object) -> None:
    """Rows in a separate file belong to one log; another log may not continue them."""

    class Kept(CarrierMonth, name="kept", target=f"sqlite:{tmp_path}/rows.db"):
        pass

    file_store.extend(flights(20))
    file_store.project(Kept)
    with ef.Store(f"{tmp_path}/other.db") as other:
        other.extend(flights(30))
        with pytest.raises(CursorMismatch, match="belongs to store"):
            other.project(Kept)
    assert len(file_store.rows(Kept)) > 0


def test_a_cursor_moves_over_what_does_not_match(store: ef.Store) -> None:
    """A caller that waits for a position returns, though no matching event was written."""

    class Other(ef.Event):
        thing: ef.Tag

    store.extend(flights(20))
    store.project(CarrierMonth)
    last = store.append(*(Other(f"t{n}") for n in range(30))).last
    store.project(CarrierMonth)
    assert store.wait(CarrierMonth, last, timeout=60) == last
    (proof,) = store.projections.verify(CarrierMonth)
    assert proof.proved
    assert (proof.counted, proof.position) == (20, 50)


def test_an_advance_leaves_rows_and_ledger_together_or_neither(store: ef.Store) -> None:
    """A transaction that fails after the rows were written leaves neither rows nor checkpoint."""
    store.extend(flights(20))
    store.project(CarrierMonth)
    target = store.projections.target(CarrierMonth)
    before = sorted(map(repr, store.rows(CarrierMonth)))
    place = PartitionKey("carrier_month", 1)
    held = target.claim(place, "test", 10)
    assert held is not None
    with pytest.raises(RuntimeError), target.transaction(place) as tx:
        tx.execute("DELETE FROM {carrier_month}")
        tx.advance(held, CheckpointUpdate(position=21, event_id="", epoch=1, seen=held.seen, handled=held.handled))
        raise RuntimeError
    target.release(held)
    assert sorted(map(repr, store.rows(CarrierMonth))) == before
    assert checkpoint(store).position == 20
