"""Batches: each is applied once, all or nothing; an older one is left alone, and a missing one is noticed."""

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
    """The sink does not know what readers see: it answers False; the store shows a generation and sends all again."""
    assert not sink.write(batch(10, puts={"a": 1}))


def test_rows_are_put_and_deleted_by_their_keys(sink: Sink, sink_under_test: SinkUnderTest) -> None:
    """A row is replaced whole; a deleted row is gone; a key that does not exist is no error."""
    sink.show(NAME, 1, "store-1")
    assert sink.write(batch(10, puts={"a": 1, "b": 2}))
    assert sink_under_test.seen(NAME) == [("a", 1), ("b", 2)]
    assert sink.write(batch(20, 10, puts={"a": 5}, deletes=[{"carrier": "b"}, {"carrier": "z"}]))
    assert sink_under_test.seen(NAME) == [("a", 5)]


def test_a_repeated_batch_changes_nothing(sink: Sink, sink_under_test: SinkUnderTest) -> None:
    """It is taken as before, also when later ones came in between."""
    sink.show(NAME, 1, "store-1")
    first, second = batch(10, puts={"a": 1}), batch(20, 10, puts={"a": 2})
    for each in (first, first, second, first, second):
        assert sink.write(each)
    assert sink_under_test.seen(NAME) == [("a", 2)]


def test_a_batch_whose_predecessor_is_missing_is_refused(sink: Sink, sink_under_test: SinkUnderTest) -> None:
    """False, and nothing of it is applied: what came before it was lost."""
    sink.show(NAME, 1, "store-1")
    assert sink.write(batch(10, puts={"a": 1}))
    assert not sink.write(batch(30, 20, puts={"a": 3}))
    assert sink_under_test.seen(NAME) == [("a", 1)]


def test_everything_is_sent_again_in_chunks(sink: Sink, sink_under_test: SinkUnderTest) -> None:
    """From chunk 1, whatever was there before; a chunk without the one before it is refused; then batches continue."""
    sink.show(NAME, 1, "store-1")
    assert not sink.write(batch(30, puts={"b": 2}, chunk=2))
    assert sink.write(batch(30, puts={"a": 1}, chunk=1, more=True))
    assert sink.write(batch(30, puts={"b": 2}, chunk=2))
    assert sink_under_test.seen(NAME) == [("a", 1), ("b", 2)]
    assert sink.write(batch(40, 30, puts={"a": 4}))
    assert sink_under_test.seen(NAME) == [("a", 4), ("b", 2)]


def test_chunks_of_an_older_number_are_left_alone(sink: Sink, sink_under_test: SinkUnderTest) -> None:
    """A worker that stood still sends what another has sent since: nothing changes."""
    sink.show(NAME, 1, "store-1")
    assert sink.write(batch(10, puts={"a": 1}))
    assert sink.write(batch(20, 10, puts={"a": 2}))
    assert sink.write(batch(10, puts={"a": 1}, chunk=1))
    assert sink_under_test.seen(NAME) == [("a", 2)]


def test_partitions_have_numbers_of_their_own(sink: Sink, sink_under_test: SinkUnderTest) -> None:
    """Each counts by itself, and all rows are seen together."""
    sink.show(NAME, 1, "store-1")
    assert sink.write(batch(10, puts={"a": 1}, partition=0))
    assert sink.write(batch(5, puts={"b": 2}, partition=1))
    assert sink.write(batch(6, 5, puts={"b": 3}, partition=1))
    assert sink_under_test.seen(NAME) == [("a", 1), ("b", 3)]


def test_a_sink_says_what_it_has(sink: Sink) -> None:
    """The number of the last batch of each partition, whose rows they are, which generation is shown; or None."""
    sink.show(NAME, 1, "store-1")
    assert sink.write(batch(10, puts={"a": 1}))
    state = sink.held(NAME, 1, 0)
    if state is None:
        return  # this sink cannot be asked
    assert (state.store, state.number, state.live) == ("store-1", 10, 1)
    empty = sink.held(NAME, 1, 1)
    assert empty is not None
    assert empty.number == 0


def test_a_sink_that_lost_everything_says_so(sink: Sink, lose: Callable[[], None]) -> None:
    """Asked, it has nothing; not asked, it refuses the next batch."""
    sink.show(NAME, 1, "store-1")
    assert sink.write(batch(10, puts={"a": 1}))
    lose()
    state = sink.held(NAME, 1, 0)
    assert state is None or (state.number, state.live) == (0, 0)
    assert not sink.write(batch(20, 10, puts={"a": 2}))
