"""THE SINK PORT: a place for rows that is no SQL database. What a sink does, said once.

Rows and their checkpoint are kept in the store's own database, in one transaction; with them, what has to be sent. So a
sink is only ever told what rows *are*, never how they change: whatever arrives twice, late, or after a crash, does no
harm, as long as a batch whose number is not above the last one is left alone.
Knows: rows as JSON values. Does not know: events, checkpoints, when anything is sent.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Protocol, runtime_checkable

import msgspec


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that changed, whole, and keys of rows that are no more; as JSON values, by the names of the fields.

    `number` grows from batch to batch of a projection, generation and partition (it is a time, in µs); the one before
    had the number `after` (0: there was none). `position`: the log is in the rows up to there. `time`: of the commit.
    `key` names the fields of the key. `chunk` 1, 2, …: a piece of everything there is, sent because the sink had lost
    it, with `more` to come.
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
        """The same for the same batch, however often it is sent: an idempotency key."""
        place = f"{self.store}/{self.projection}/{self.generation}/{self.partition}/{self.number}"
        return f"{place}/{self.chunk}" if self.chunk else place


class SinkState(msgspec.Struct, frozen=True):
    """What a sink has of a partition: the `number` of its last batch (0: nothing), of which `store`, and which
    generation readers see (`live`, 0: none). A number of -1: it has lost part of it.
    """

    store: str = ""
    number: int = 0
    live: int = 0


@runtime_checkable
class Sink(Protocol):
    """Whatever takes rows. It is called from several threads, and whatever it raises is tried again, for ever.

    `address` says in an error where it is.
    """

    address: str

    def held(self, projection: str, generation: int, partition: int) -> SinkState | None:
        """What is there; None where that cannot be asked. Asked at every start, and every second or so without work."""
        ...

    def write(self, batch: Batch) -> bool:
        """Take a batch, all or nothing. One whose `number` is not above the last is left alone (a chunk: is below).

        False: what came before it (`after`, or the chunk before) is not there, or nobody said what readers see; then it
        is said, and everything is sent, from chunk 1.
        """
        ...

    def show(self, projection: str, generation: int, store: str) -> None:
        """Readers see this generation from now on. Said again at will."""
        ...

    def drop(self, projection: str, generation: int | None, store: str) -> None:
        """Remove a generation, the live one too; None: all of them, and whatever is known of the projection."""
        ...

    def close(self) -> None:
        """Release everything. Closing twice is harmless."""
        ...
