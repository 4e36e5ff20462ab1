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


def test_a_lock_is_held_by_one_and_names_its_holder(store: Store, port: Any) -> None:
    """A second caller gets the name of the holder; after a release the lock is free."""
    assert port.try_lock("gate", "ann") is None
    assert port.try_lock("gate", "bob") == "ann"
    assert port.try_lock("other gate", "bob") is None
    port.unlock("gate")
    assert port.try_lock("gate", "bob") is None


def test_a_release_of_a_lock_that_is_not_held_is_harmless(store: Store, port: Any) -> None:
    """As a second close is."""
    port.unlock("gate")
    port.unlock("gate")


def test_a_lock_keeps_other_handles_on_the_store_out(
    store: Store, port: Any, open_again: Callable[[], Store], engine_under_test: Any
) -> None:
    """A second handle, as in another process, finds it held."""
    other = engine_under_test.port(open_again())
    assert port.try_lock("gate", "ann") is None
    assert other.try_lock("gate", "bob") == "ann"
    port.unlock("gate")
    assert other.try_lock("gate", "bob") is None


def test_closing_a_store_releases_its_locks(
    store: Store, port: Any, open_again: Callable[[], Store], engine_under_test: Any
) -> None:
    """A closed store holds no lock."""
    second = open_again()
    other = engine_under_test.port(second)
    assert other.try_lock("gate", "ann") is None
    second.close()
    # A log of a single process has one engine behind every handle, which keeps the lock.
    assert port.try_lock("gate", "bob") == (None if store.engine.capabilities.shared else "ann")


def test_a_wait_that_takes_too_long_says_who_holds_the_lock(store: Store, port: Any, engine_under_test: Any) -> None:
    """StoreBusy with the holder's name, after the timeout; nothing is held then."""
    rival = engine_under_test.rival()
    with rival.lock(Account("a-1"), owner="ann of accounts"):
        assert port.try_lock(repr(Account("a-1").query()), "bob") == "ann of accounts"
        with (
            pytest.raises(StoreBusy, match="ann of accounts"),
            engine_under_test.rival().lock(Account("a-1"), timeout=0.05),
        ):
            raise AssertionError("it was given away twice")
    assert port.try_lock(repr(Account("a-1").query()), "bob") is None


def test_locked_decisions_meet_no_conflict(store: Store, engine_under_test: Any) -> None:
    """Eight threads deposit one after the other, and each decision is made once."""
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
