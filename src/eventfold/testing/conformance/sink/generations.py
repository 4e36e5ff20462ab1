"""Generations: readers see all rows of the one that was shown last; others exist beside it until they are dropped."""

from __future__ import annotations

from eventfold.ports.sink import Sink
from eventfold.testing.conformance.sink.batches import NAME, batch
from eventfold.testing.conformance.sink.sink_under_test import SinkUnderTest


def test_readers_see_the_generation_that_is_shown(sink: Sink, sink_under_test: SinkUnderTest) -> None:
    """Another generation is written without being visible; once shown, readers see it, and it may be rolled back."""
    sink.show(NAME, 1, "store-1")
    assert sink.write(batch(10, puts={"a": 1}))
    assert sink.write(batch(20, puts={"a": 2, "b": 2}, generation=2))
    assert sink_under_test.seen(NAME) == [("a", 1)]
    sink.show(NAME, 2, "store-1")
    sink.show(NAME, 2, "store-1")
    assert sink_under_test.seen(NAME) == [("a", 2), ("b", 2)]
    sink.show(NAME, 1, "store-1")
    assert sink_under_test.seen(NAME) == [("a", 1)]
    assert sink.write(batch(30, 10, puts={"a": 3}))
    assert sink_under_test.seen(NAME) == [("a", 3)]


def test_a_dropped_generation_is_removed(sink: Sink, sink_under_test: SinkUnderTest) -> None:
    """Dropping twice is harmless; other generations stay; the numbers of a dropped one start again."""
    sink.show(NAME, 1, "store-1")
    assert sink.write(batch(10, puts={"a": 1}))
    assert sink.write(batch(20, puts={"a": 2}, generation=2))
    for _ in range(2):
        sink.drop(NAME, 2, "store-1")
    assert sink_under_test.seen(NAME) == [("a", 1)]
    assert sink.write(batch(5, puts={"b": 1}, generation=2))
    sink.show(NAME, 2, "store-1")
    assert sink_under_test.seen(NAME) == [("b", 1)]


def test_the_live_generation_may_be_dropped_and_sent_again(sink: Sink, sink_under_test: SinkUnderTest) -> None:
    """Dropping the live generation also removes rows that the store does not know."""
    sink.show(NAME, 1, "store-1")
    assert sink.write(batch(10, puts={"a": 1, "b": 1}))
    sink.drop(NAME, 1, "store-1")
    sink.show(NAME, 1, "store-1")
    assert sink.write(batch(10, puts={"a": 7}, chunk=1))
    assert sink_under_test.seen(NAME) == [("a", 7)]


def test_a_removed_projection_leaves_nothing(sink: Sink) -> None:
    """All generations are removed: the next batch is refused until a generation is shown again."""
    sink.show(NAME, 1, "store-1")
    assert sink.write(batch(10, puts={"a": 1}))
    sink.drop(NAME, None, "store-1")
    state = sink.held(NAME, 1, 0)
    assert state is None or (state.number, state.live) == (0, 0)
    assert not sink.write(batch(20, 10, puts={"a": 2}))


def test_projections_do_not_touch_each_other(sink: Sink, sink_under_test: SinkUnderTest) -> None:
    """Numbers, rows and the shown generation are separate for each projection."""
    other = "conformance_other"
    for name, count in ((NAME, 1), (other, 2)):
        sink.show(name, 1, "store-1")
        assert sink.write(batch(10, puts={"a": count}, projection=name))
    sink.drop(other, None, "store-1")
    assert sink_under_test.seen(NAME) == [("a", 1)]
