"""Delivery: after failures, repeats and losses between a store and the sink, readers see the plain fold."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from eventfold.errors import TargetUnavailable
from eventfold.ports.sink import Sink
from eventfold.store import Store
from eventfold.testing.conformance.sink.sink_under_test import FaultySink, SinkUnderTest
from eventfold.testing.conformance.target.flights import Cancelled, CarrierMonth, Departed, flights, folded

NAME = "conformance_sent"


def sent_to(sink: Sink, partitions: int = 1) -> type[CarrierMonth]:
    """CarrierMonth, whose rows are sent to this sink."""

    class Sent(CarrierMonth, name=NAME, target=sink, partitions=partitions):
        def evolve(self, event: Departed | Cancelled) -> None:
            super().evolve(event)

    return Sent


def test_rows_arrive_as_they_are_folded(
    sending_store: Store, faulty_sink: FaultySink, sink_under_test: SinkUnderTest
) -> None:
    """Rows arrive after every call of `project`; numbers increase, and each batch has the previous number."""
    model = sent_to(faulty_sink)
    for round_ in range(3):
        sending_store.append(*flights(60, 60 * round_))
        sending_store.project(model)
        assert sink_under_test.seen(NAME) == folded(flights(60 * round_ + 60))
    numbers = [batch.number for batch in faulty_sink.batches]
    assert numbers == sorted(set(numbers))
    assert [batch.after for batch in faulty_sink.batches] == [0, *numbers[:-1]]
    assert all(proof.proved for proof in sending_store.projections.verify(model))


@pytest.mark.parametrize("partitions", [1, 3])
def test_lost_replies_and_repeats_change_nothing(
    sending_store: Store, faulty_sink: FaultySink, sink_under_test: SinkUnderTest, partitions: int
) -> None:
    """After failures before and after a batch arrives, and repeated batches, readers see the plain fold."""
    model, chance, written = sent_to(faulty_sink, partitions), random.Random(7), 0  # noqa: S311
    for _ in range(12):
        sending_store.append(*flights(10, written))
        written += 10
        faulty_sink.faults = [chance.choice(["", "before", "after", "twice"]) for _ in range(4)]
        for _ in range(3):
            try:
                sending_store.project(model)
            except TargetUnavailable:
                continue
    faulty_sink.faults = []
    sending_store.project(model)
    assert sink_under_test.seen(NAME) == folded(flights(written))
    assert all(proof.proved for proof in sending_store.projections.verify(model))


def test_a_loss_is_noticed_and_everything_is_sent_again(
    sending_store: Store, faulty_sink: FaultySink, sink_under_test: SinkUnderTest, lose: Callable[[], None]
) -> None:
    """A loss is noticed at the next event at the latest, and all rows are sent again."""
    model = sent_to(faulty_sink)
    sending_store.append(*flights(60))
    sending_store.project(model)
    lose()
    sending_store.append(*flights(10, 60))
    sending_store.project(model)
    assert sink_under_test.seen(NAME) == folded(flights(70))


def test_a_rebuild_is_seen_when_it_is_switched_to(
    sending_store: Store, faulty_sink: FaultySink, sink_under_test: SinkUnderTest
) -> None:
    """After switch, rollback, discard and remove, readers of the sink see what readers of the store see."""
    model = sent_to(faulty_sink)
    sending_store.append(*flights(60))
    sending_store.project(model)
    sending_store.projections.rebuild(model)
    assert sink_under_test.seen(NAME) == folded(flights(60))
    sending_store.projections.switch(model)
    sending_store.append(*flights(40, 60))
    sending_store.project(model)
    assert sink_under_test.seen(NAME) == folded(flights(100))
    sending_store.projections.rollback(model)
    sending_store.project(model)
    assert sink_under_test.seen(NAME) == folded(flights(100))
    sending_store.projections.remove(model)
    assert not faulty_sink.faults
    sending_store.project(model)
    assert sink_under_test.seen(NAME) == folded(flights(100))


def test_rows_of_another_store_are_refused(
    sending_store: Store, faulty_sink: FaultySink, sink_under_test: SinkUnderTest
) -> None:
    """A sink that reports the store of its rows keeps them: TargetUnavailable for another store."""
    model = sent_to(faulty_sink)
    sending_store.append(*flights(20))
    sending_store.project(model)
    if faulty_sink.held(NAME, 1, 0) is None:
        pytest.skip("this sink does not report the store of its rows")
    with Store("memory:") as other:
        other.append(*flights(40))
        with pytest.raises(TargetUnavailable, match="rows of another store"):
            other.project(model)
    assert sink_under_test.seen(NAME) == folded(flights(20))
