"""Batches: each is applied once, all or nothing; an older one is ignored, and a missing one is noticed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from eventfold.ports.sink import Batch, Sink
from eventfold.testing.conformance.sink.sink_under_test import SinkUnderTest

NAME = "conformance_sink"


def batch(number: int, after: int = 0, puts: dict[str, int] | None = None, **fields: Any) -> Batch:
    """A batch that sets these rows: the number of each carrier's flights."""
    given: dict[str, Any] = {
        "store": "store-1",
        "projection": NAME,
        "generation": 1,
        "partition": 0,
        "number": number,
        "after": after,
        "position": number,
        "time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "key": ("carrier",),
        "puts": [{"carrier": carrier, "flights": count} for carrier, count in (puts or {}).items()],
        "deletes": [],
    }
    return Batch(**(given | fields))


def test_a_batch_is_refused_until_a_generation_is_shown(sink: Sink) -> None:
    """`write` returns False until a generation is shown; then the store shows one and sends all rows again."""
    assert not sink.write(batch(10, puts={"a": 1}))


def test_rows_are_put_and_deleted_by_their_keys(sink: Sink, sink_under_test: SinkUnderTest) -> None:
    """A row is replaced whole; a deleted row is removed; deleting a key that does not exist is no error."""
    sink.show(NAME, 1, "store-1")
    assert sink.write(batch(10, puts={"a": 1, "b": 2}))
    assert sink_under_test.seen(NAME) == [("a", 1), ("b", 2)]
    assert sink.write(batch(20, 10, puts={"a": 5}, deletes=[{"carrier": "b"}, {"carrier": "z"}]))
    assert sink_under_test.seen(NAME) == [("a", 5)]


def test_a_repeated_batch_changes_nothing(sink: Sink, sink_under_test: SinkUnderTest) -> None:
    """A repeated batch is accepted, even after later ones, and changes nothing."""
    sink.show(NAME, 1, "store-1")
    first, second = batch(10, puts={"a": 1}), batch(20, 10, puts={"a": 2})
    for each in (first, first, second, first, second):
        assert sink.write(each)
    assert sink_under_test.seen(NAME) == [("a", 2)]


def test_a_batch_whose_predecessor_is_missing_is_refused(sink: Sink, sink_under_test: SinkUnderTest) -> None:
    """`write` returns False and applies nothing: the previous batch was lost."""
    sink.show(NAME, 1, "store-1")
    assert sink.write(batch(10, puts={"a": 1}))
    assert not sink.write(batch(30, 20, puts={"a": 3}))
    assert sink_under_test.seen(NAME) == [("a", 1)]


def test_all_rows_are_sent_again_in_chunks(sink: Sink, sink_under_test: SinkUnderTest) -> None:
    """Chunk 1 replaces what was there before; a chunk without the previous one is refused; then batches continue."""
    sink.show(NAME, 1, "store-1")
    assert not sink.write(batch(30, puts={"b": 2}, chunk=2))
    assert sink.write(batch(30, puts={"a": 1}, chunk=1, more=True))
    assert sink.write(batch(30, puts={"b": 2}, chunk=2))
    assert sink_under_test.seen(NAME) == [("a", 1), ("b", 2)]
    assert sink.write(batch(40, 30, puts={"a": 4}))
    assert sink_under_test.seen(NAME) == [("a", 4), ("b", 2)]


def test_chunks_of_an_older_number_are_left_alone(sink: Sink, sink_under_test: SinkUnderTest) -> None:
    """Chunks of a stalled worker, older than what another worker has sent since, change nothing."""
    sink.show(NAME, 1, "store-1")
    assert sink.write(batch(10, puts={"a": 1}))
    assert sink.write(batch(20, 10, puts={"a": 2}))
    assert sink.write(batch(10, puts={"a": 1}, chunk=1))
    assert sink_under_test.seen(NAME) == [("a", 2)]


def test_partitions_have_numbers_of_their_own(sink: Sink, sink_under_test: SinkUnderTest) -> None:
    """Each partition has its own numbers; readers see the rows of all partitions together."""
    sink.show(NAME, 1, "store-1")
    assert sink.write(batch(10, puts={"a": 1}, partition=0))
    assert sink.write(batch(5, puts={"b": 2}, partition=1))
    assert sink.write(batch(6, 5, puts={"b": 3}, partition=1))
    assert sink_under_test.seen(NAME) == [("a", 1), ("b", 3)]


def test_a_sink_reports_what_it_has(sink: Sink) -> None:
    """`held` returns the last batch of each partition, the store of the rows and the shown generation; or None."""
    sink.show(NAME, 1, "store-1")
    assert sink.write(batch(10, puts={"a": 1}))
    state = sink.held(NAME, 1, 0)
    if state is None:
        return  # this sink cannot be asked
    assert (state.store, state.number, state.live) == ("store-1", 10, 1)
    empty = sink.held(NAME, 1, 1)
    assert empty is not None
    assert empty.number == 0


def test_a_sink_reports_that_it_lost_everything(sink: Sink, lose: Callable[[], None]) -> None:
    """`held` reports nothing; a sink without `held` refuses the next batch."""
    sink.show(NAME, 1, "store-1")
    assert sink.write(batch(10, puts={"a": 1}))
    lose()
    state = sink.held(NAME, 1, 0)
    assert state is None or (state.number, state.live) == (0, 0)
    assert not sink.write(batch(20, 10, puts={"a": 2}))
