"""One sink during a test, what its readers see, and planned faults between a store and it.

Knows: the sink port. Does not know: pytest, which sink it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from eventfold.ports.sink import Batch, Sink, SinkState

FIELDS = ("carrier", "month", "flights", "delay", "cancelled")  # of the suite's rows, in the order of their classes


class SinkUnderTest:
    """An empty sink. `readers(projection)` returns the rows that readers see, each as a dict, in any order.

    `lose()` makes the sink lose everything it has; None: it cannot, and tests that need it are skipped.
    """

    def __init__(
        self,
        sink: Sink,
        readers: Callable[[str], Sequence[dict[str, Any]]],
        lose: Callable[[], None] | None = None,
    ) -> None:
        self.sink, self.readers, self.lose = sink, readers, lose

    def seen(self, projection: str) -> list[tuple[Any, ...]]:
        """The rows that readers see, sorted: each a tuple of its values, in the order of `FIELDS`."""
        return sorted(tuple(row[name] for name in FIELDS if name in row) for row in self.readers(projection))


class FaultySink:
    """A wrapper of a sink. `faults` are those of the next calls of `write`, one word each; "" is none.

    "before": it fails before the batch arrives; "after": the reply is lost; "twice": the batch arrives twice.
    """

    def __init__(self, sink: Sink) -> None:
        self.address, self._sink = sink.address, sink
        self.faults: list[str] = []
        self.batches: list[Batch] = []

    def held(self, projection: str, generation: int, partition: int) -> SinkState | None:
        """See the port."""
        return self._sink.held(projection, generation, partition)

    def write(self, batch: Batch) -> bool:
        """See the port."""
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "before":
            raise OSError("no answer")
        applied = self._sink.write(batch)
        self.batches.append(batch)
        if fault == "twice":
            applied = self._sink.write(batch)
        if fault == "after":
            raise OSError("the reply was lost")
        return applied

    def show(self, projection: str, generation: int, store: str) -> None:
        """See the port."""
        self._sink.show(projection, generation, store)

    def drop(self, projection: str, generation: int | None, store: str) -> None:
        """See the port."""
        self._sink.drop(projection, generation, store)

    def close(self) -> None:
        """Do nothing: the author's fixture closes the sink under test."""
