"""The fixtures of the sink suite, derived from one that the sink's author defines: `sink_under_test`.

Knows: pytest. Does not know: sinks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from eventfold.ports.sink import Sink
from eventfold.store import Store
from eventfold.testing.conformance.sink.sink_under_test import FaultySink, SinkUnderTest

__all__ = ["faulty_sink", "lose", "sending_store", "sink"]


@pytest.fixture
def sink(sink_under_test: SinkUnderTest) -> Sink:
    """The empty sink."""
    return sink_under_test.sink


@pytest.fixture
def faulty_sink(sink: Sink) -> FaultySink:
    """The sink, with planned faults."""
    return FaultySink(sink)


@pytest.fixture
def lose(sink_under_test: SinkUnderTest) -> Callable[[], None]:
    """A function that makes the sink lose everything."""
    if sink_under_test.lose is None:
        pytest.skip("this sink has no way to lose its rows")
    return sink_under_test.lose


@pytest.fixture
def sending_store() -> Iterator[Store]:
    """An empty store in memory."""
    with Store("memory:") as store:
        yield store
