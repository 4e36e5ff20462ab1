"""Snapshots: folded states stored beside the log. Deleting them changes only the time that a fold takes."""

from __future__ import annotations

from typing import Any

from eventfold.core.snapshot import Snapshot
from eventfold.store import Store
from eventfold.testing.conformance.events import Account, deposit, deposits

ONE = Snapshot("f" * 24, 1, b"0123456789abcdef", b'{"total":1}')
TWO = Snapshot("f" * 24, 2, b"fedcba9876543210", b'{"total":2}')


def test_a_snapshot_is_read_back_unchanged(store: Store, snapshots: Any) -> None:
    """Fingerprint, position, event id and bytes are read back; another key has no snapshot."""
    store.append(*deposits(2))
    snapshots.put("Account a-1", ONE)
    assert snapshots.get("Account a-1") == ONE
    assert snapshots.get("Account a-2") is None


def test_a_later_snapshot_replaces_an_earlier_one(store: Store, snapshots: Any) -> None:
    """A key has one snapshot."""
    snapshots.put("k", ONE)
    snapshots.put("k", TWO)
    assert snapshots.get("k") == TWO


def test_snapshots_are_deleted_by_prefix(store: Store, snapshots: Any) -> None:
    """A prefix deletes the snapshots of one class, the empty prefix all; the count is returned."""
    for key in ("a 1", "a 2", "b 1"):
        snapshots.put(key, ONE)
    assert snapshots.delete_prefix("a ") == 2
    assert snapshots.get("a 1") is None
    assert snapshots.get("b 1") == ONE
    assert snapshots.delete_prefix() == 1


def test_a_long_fold_is_saved_and_used(store: Store, reopen: Any) -> None:
    """After a thousand events a snapshot is stored; a store opened later folds from it, to the same state."""
    store.extend(deposits(1_200))
    expected = store.state(Account("a-1"))
    again = reopen()
    again.append(deposit("a-1", 5))
    assert again.state(Account("a-1")).balance == expected.balance + 5


def test_past_states_do_not_use_later_snapshots(store: Store, reopen: Any) -> None:
    """A state at an earlier position than a snapshot is folded without it."""
    store.extend(deposits(1_200))
    store.state(Account("a-1"))
    assert reopen().state(Account("a-1"), at=3).balance in (6, sum(range(1, 1_001)))
