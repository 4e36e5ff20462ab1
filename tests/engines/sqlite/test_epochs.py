"""Another process begins a new epoch of a SQLite store that is open: nothing is read or decided with it any more."""

# pyright: basic

from __future__ import annotations

from pathlib import Path

import pytest

from eventfold.concurrency.run import run
from eventfold.engines import begin_epoch_after_restore, open_engine
from eventfold.errors import StoreDamaged
from eventfold.store import Store
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from eventfold.testing.conformance.events import Account, deposit, withdraw


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_living_process_notices_that_the_store_was_restored(tmp_path: Path, mode: str) -> None:
    """After `eventfold restored` by another process each call is refused until the store is opened again."""
    path = str(tmp_path / "store.db")
    engine_under_test = EngineUnderTest(path, mode)  # pyright: ignore[reportArgumentType]
    store = engine_under_test.open()
    store.append(deposit("a-1", 10))
    assert store.state(Account("a-1")).balance == 10
    begun = run(begin_epoch_after_restore(open_engine(path, "sync", False, {})))
    assert (begun.ended, begun.epoch) == (1, 2)
    for call in (
        lambda: store.decide(withdraw, Account("a-1"), 1),
        lambda: store.state(Account("a-1")),
        lambda: store.append(deposit("a-2", 1)),
        lambda: list(store.read()),
    ):
        with pytest.raises(StoreDamaged, match="epoch 2") as refused:
            call()
        assert (refused.value.fields["known"], refused.value.fields["found"]) == (1, 2)
    engine_under_test.close()
    with Store(path) as again:
        assert again.decide(withdraw, Account("a-1"), 1).positions == range(2, 3)
        assert again.engine.epoch == 2
