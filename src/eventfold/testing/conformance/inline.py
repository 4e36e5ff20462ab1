"""Inline read models, which every append folds: rows and events are both written, or neither."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

import eventfold as ef
from eventfold.concurrency import run
from eventfold.core.query import Query
from eventfold.errors import InlineFailed, InlineMissing, NotSupported
from eventfold.ports.inline import ExclusiveTransaction, InlineRegistration
from eventfold.ports.services import require
from eventfold.store import Store
from eventfold.testing.conformance.engine_under_test import EngineUnderTest
from eventfold.testing.conformance.events import Deposited, Noted, deposit


class ConformanceSum(ef.Projection):
    """A sum for each account; it refuses the amount 13."""

    account: str
    sum: int = 0

    def evolve(self, event: Deposited) -> None:
        """Add the amount, then refuse 13."""
        self.sum += int(event.amount)
        if event.amount == 13:
            raise ValueError("13")


def open_with_sums(engine_under_test: EngineUnderTest) -> Store | None:
    """The store, opened with an inline read model of sums; None if the engine refuses that, with a remedy."""
    engine = engine_under_test.rival().engine  # it blocks: folding is work, and no work for an event loop
    if engine.services.inline is not None:
        return engine_under_test.open(inline=[ConformanceSum])
    with pytest.raises(NotSupported) as refused:
        engine_under_test.open(inline=[ConformanceSum])
    assert refused.value.fields["engine"] == engine.name
    assert refused.value.fields["capability"] == "inline"
    assert len(refused.value.remedy) > 10
    return None


def sums(store: Store) -> dict[str, int]:
    """The rows."""
    return {row.account: row.sum for row in store.rows(ConformanceSum)}


def test_rows_are_updated_by_the_append(engine_under_test: EngineUnderTest) -> None:
    """(P8) When an append returns, its events are in the rows, and so are all events written before."""
    engine_under_test.rival().append(deposit("a-1", 3))
    store = open_with_sums(engine_under_test)
    if store is not None:
        assert sums(store) == {"a-1": 3}
        store.append(deposit("a-1", 2), Noted(), deposit("a-2", 7))
        assert sums(store) == {"a-1": 5, "a-2": 7}


def test_an_append_that_cannot_be_folded_is_refused(engine_under_test: EngineUnderTest) -> None:
    """(P8) Only this request is refused, with the error of the code as the cause; its events change no row."""
    store = open_with_sums(engine_under_test)
    if store is not None:
        store.append(deposit("a-1", 5))
        with pytest.raises(InlineFailed) as refused:
            store.append(deposit("a-1", 1), deposit("a-1", 13))
        assert isinstance(refused.value.__cause__, ValueError)
        store.append(deposit("a-1", 1))
        assert store.head() == 2
        assert sums(store) == {"a-1": 6}


def test_a_repeat_is_not_folded_again(engine_under_test: EngineUnderTest) -> None:
    """(P8) A repeat writes neither events nor rows."""
    store = open_with_sums(engine_under_test)
    if store is not None:
        for repeated in (False, True):
            assert store.append(deposit("a-1", 5), key="k").repeated is repeated
        assert sums(store) == {"a-1": 5}


def test_a_store_without_the_code_cannot_write_its_events(engine_under_test: EngineUnderTest) -> None:
    """(P8) Whenever the store was opened; it can write other events, and a repeat is reported as one."""
    before = engine_under_test.open()
    store = open_with_sums(engine_under_test)
    if store is not None:
        store.append(deposit("a-1", 5), key="k")
        for other in (before, engine_under_test.open()):
            with pytest.raises(InlineMissing):
                other.append(Noted(), deposit("a-1", 1))
            assert other.append(deposit("a-1", 5), key="k").repeated
            other.append(Noted())
        assert store.head() == 3
        assert sums(store) == {"a-1": 5}


def test_an_exclusive_transaction_excludes_appends(engine_under_test: EngineUnderTest) -> None:
    """A registration in it applies from the next append on; if an exception is raised in it, it changes nothing."""
    engine = engine_under_test.rival().engine
    plain = engine_under_test.open()
    first = plain.append(deposit("a-1", 5))
    entry = InlineRegistration("nobodys", "code", ("conformance.deposited",), "ticket")
    seen: list[Sequence[Any]] = []

    def turn(ends: Callable[[], object]) -> None:
        async def work(turn: ExclusiveTransaction) -> None:
            page = await turn.read(Query(), 0)
            seen.append((turn.head, [event.position for event in page.events], list(turn.registrations)))
            await turn.register(entry)
            ends()

        run(require(engine, "inline").exclusive(work))

    if engine.services.inline is None:
        with pytest.raises(NotSupported):
            turn(list)
        return
    with pytest.raises(ZeroDivisionError):
        turn(lambda: 1 // 0)
    plain.append(deposit("a-1", 1))
    turn(list)
    assert seen == [(first.last, [1], []), (2, [1, 2], [])]
    assert list(run(require(engine, "inline").registrations())) == [entry]
    with pytest.raises(InlineMissing):
        plain.append(deposit("a-1", 1))
