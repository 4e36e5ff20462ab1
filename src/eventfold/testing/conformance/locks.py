"""Advisory locks on a query; safety still comes from the append condition."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import eventfold as ef
from eventfold.errors import StoreBusy
from eventfold.store import Store
from eventfold.testing.conformance.events import Account, deposit


def test_a_lock_is_held_by_one_and_names_its_holder(store: Store, locks: Any) -> None:
    """A second caller gets the name of the holder; after a release the lock is free."""
    assert locks.try_acquire("gate", "ann") is None
    assert locks.try_acquire("gate", "bob") == "ann"
    assert locks.try_acquire("other gate", "bob") is None
    locks.release("gate")
    assert locks.try_acquire("gate", "bob") is None


def test_a_release_of_a_lock_that_is_not_held_is_harmless(store: Store, locks: Any) -> None:
    """Releasing a lock that is not held does nothing."""
    locks.release("gate")
    locks.release("gate")


def test_a_lock_excludes_other_handles(
    store: Store, locks: Any, open_again: Callable[[], Store], engine_under_test: Any
) -> None:
    """A second handle, as in another process, finds the lock held."""
    other = engine_under_test.service(open_again(), "locks")
    assert locks.try_acquire("gate", "ann") is None
    assert other.try_acquire("gate", "bob") == "ann"
    locks.release("gate")
    assert other.try_acquire("gate", "bob") is None


def test_closing_a_store_releases_its_locks(
    store: Store, locks: Any, open_again: Callable[[], Store], engine_under_test: Any
) -> None:
    """Closing a store releases its locks."""
    second = open_again()
    other = engine_under_test.service(second, "locks")
    assert other.try_acquire("gate", "ann") is None
    second.close()
    # A log of a single process has one engine for all handles, which holds the lock until it is released.
    assert locks.try_acquire("gate", "bob") == (None if store.engine.capabilities.shared else "ann")


def test_a_lock_timeout_names_the_holder(store: Store, locks: Any, engine_under_test: Any) -> None:
    """After the timeout StoreBusy is raised with the holder's name, and no lock is held."""
    rival = engine_under_test.rival()
    with rival.lock(Account("a-1"), owner="ann of accounts"):
        assert locks.try_acquire(repr(Account("a-1").query()), "bob") == "ann of accounts"
        with (
            pytest.raises(StoreBusy, match="ann of accounts"),
            engine_under_test.rival().lock(Account("a-1"), timeout=0.05),
        ):
            raise AssertionError("it was given away twice")
    assert locks.try_acquire(repr(Account("a-1").query()), "bob") is None


def test_locked_decisions_do_not_conflict(store: Store, locks: Any, engine_under_test: Any) -> None:
    """Eight threads deposit one after the other, each with one attempt of its decision."""
    rival = engine_under_test.rival()
    attempts: list[int] = []

    def deposited(account: Account) -> ef.Event:
        return deposit(account.account)

    def work() -> None:
        for _ in range(3):
            with rival.lock(Account("a-1"), timeout=30):
                attempts.append(rival.decide(deposited, Account("a-1")).attempts)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert attempts == [1] * 24
