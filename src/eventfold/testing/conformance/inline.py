"""Read models that are folded within every append: rows and events are there together, or neither is."""

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
    """A sum for each account, which takes no 13."""

    account: str
    sum: int = 0

    def evolve(self, event: Deposited) -> None:
        """Add, then look."""
        self.sum += int(event.amount)
        if event.amount == 13:
            raise ValueError("13")


def open_with_sums(engine_under_test: EngineUnderTest) -> Store | None:
    """The store, opened with sums that every append keeps up; None where it cannot be, and says so with a remedy."""
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


def test_rows_are_there_with_the_append(engine_under_test: EngineUnderTest) -> None:
    """(P8) When an append returns, its events are in the rows, and so is all that was written before."""
    engine_under_test.rival().append(deposit("a-1", 3))
    store = open_with_sums(engine_under_test)
    if store is not None:
        assert sums(store) == {"a-1": 3}
        store.append(deposit("a-1", 2), Noted(), deposit("a-2", 7))
        assert sums(store) == {"a-1": 5, "a-2": 7}


def test_what_cannot_be_folded_is_not_written(engine_under_test: EngineUnderTest) -> None:
    """(P8) The request alone is refused, with the error of the code as the cause; nothing of it is left in rows."""
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
    """(P8) It writes nothing, neither events nor rows."""
    store = open_with_sums(engine_under_test)
    if store is not None:
        for repeated in (False, True):
            assert store.append(deposit("a-1", 5), key="k").repeated is repeated
        assert sums(store) == {"a-1": 5}


def test_who_lacks_the_code_writes_none_of_its_events(engine_under_test: EngineUnderTest) -> None:
    """(P8) Whenever the store was opened; other events are written, and a repeat is reported as one."""
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


def test_in_a_turn_nobody_appends(engine_under_test: EngineUnderTest) -> None:
    """What is enrolled in it holds from the next append on; where something raises, nothing of it was done."""
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
