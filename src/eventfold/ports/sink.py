"""The port of a sink: a system that receives the rows of a projection and is not a SQL database.

The store's own database keeps the rows, their checkpoint and the batches that are not yet sent, and changes all of them
in one transaction (a transactional outbox). A sink receives whole rows, never increments. So a batch that arrives
twice, late or after a crash changes nothing, as long as the sink ignores batches whose number is not greater than the
last one. `eventfold.testing.conformance.sink` tests a sink.
Knows: rows as JSON values. Does not know: events, checkpoints, when batches are sent.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol, runtime_checkable

import msgspec


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Changed rows, whole (`puts`), and keys of deleted rows (`deletes`), as JSON values by field name.

    `number`    grows with each batch of a projection, generation and partition; it is a time in µs since 1970 UTC.
    `after`     the number of the batch before; 0: there was none.
    `position`  the rows include all events of the log up to this position, inclusive.
    `time`      when the rows were committed.
    `key`       the names of the fields that are the rows' key.
    `chunk`     0: an ordinary batch. 1, 2, …: a part of all rows of the partition, sent because the sink does not have
                them or has lost some; `deletes` is empty.
    `more`      whether further chunks follow.
    """

    store: str
    projection: str
    generation: int
    partition: int
    number: int
    after: int
    position: int
    time: datetime
    key: tuple[str, ...]
    puts: list[dict[str, Any]]
    deletes: list[dict[str, Any]]
    chunk: int = 0
    more: bool = False

    @property
    def id(self) -> str:
        """An idempotency key: equal whenever the same batch is sent again."""
        place = f"{self.store}/{self.projection}/{self.generation}/{self.partition}/{self.number}"
        return f"{place}/{self.chunk}" if self.chunk else place


class SinkState(msgspec.Struct, frozen=True):
    """What a sink has of one partition.

    `store`   the id of the store that sent it; "": unknown or nothing.
    `number`  of the last batch; 0: it has nothing; -1: it has lost part of the rows.
    `live`    the generation that readers see; 0: none.
    """

    store: str = ""
    number: int = 0
    live: int = 0


@runtime_checkable
class Sink(Protocol):
    """A receiver of rows. It is called from several threads. A call that raises is repeated until it succeeds.

    `address` names the sink in errors.
    """

    address: str

    def held(self, projection: str, generation: int, partition: int) -> SinkState | None:
        """Return what the sink has of a partition; None if the sink cannot be asked.

        Called when a worker claims the partition, and about once a second while it has no work.
        """
        ...

    def write(self, batch: Batch) -> bool:
        """Apply a batch, all or nothing, and return True. Deleting a key that does not exist is no error.

        A batch whose `number` is not greater than the last one is ignored, and a chunk whose `number` is less than the
        last one; both return True. Chunk 1 is accepted whatever the sink has.
        Returns False, and changes nothing, if the predecessor is missing (the batch `after`, or the chunk before), or
        if `show` was never called for the projection. Then the store calls `show` and sends all rows from chunk 1.
        """
        ...

    def show(self, projection: str, generation: int, store: str) -> None:
        """Let readers see this generation from now on. May be called repeatedly with the same generation."""
        ...

    def drop(self, projection: str, generation: int | None, store: str) -> None:
        """Remove a generation, even if it is the live one.

        None: remove all generations and everything else that the sink stores about the projection. Dropping twice has
        no effect.
        """
        ...

    def close(self) -> None:
        """Release all connections. Closing twice has no effect."""
        ...
