"""THE PORT. Everything a reader must believe about a store is said here, once.

Knows: records, queries, receipts. Does not know: user classes, modes, threads, databases.
Each sentence marked (P1) … (P9) is a promise with a test of that number in `testing/conformance`.

Every method is a coroutine, so that it is written once for sync and async users. An engine whose
`Capabilities.suspends` is false never awaits anything that is not ready: `concurrency` then runs it
in the caller's thread with a single `send(None)`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from eventfold.core.envelope import Receipt, StoredEvent
from eventfold.core.query import Query
from eventfold.core.snapshot import Snapshot
from eventfold.ports.inline import ExclusiveTransaction, InlineProjector, InlineRegistration
from eventfold.ports.messages import AppendRequest, Capabilities, Head, Outcome, Page, Span, TagCount, TypeCount


class Engine(Protocol):
    """One ordered, append-only log. (P1) Atomic. (P3) Positions are 1, 2, 3 … in commit order."""

    name: str
    capabilities: Capabilities

    @property
    def store_id(self) -> str:
        """32 hex digits, given to the store at its creation, never changed."""
        ...

    @property
    def epoch(self) -> int:
        """Grows whenever history may have been lost: a restored backup, a failover.

        Whoever remembers what was read in one epoch does not rely on it in another. So a call that meets another epoch
        than this says has changed it before it returns: an answer is of the epoch that was named before the call
        where the same one is named after it. Costs no I/O.
        """
        ...

    @property
    def default_target(self) -> str | None:
        """Where read models, followers and processes keep rows and progress unless `target=` says otherwise.

        An address as `target=` takes it: the database of the log itself, so that whoever opens the same log finds
        them. None: the engine has no such place, and what would need one is refused with NotSupported.
        """
        ...

    async def open(self) -> None:
        """Connect, check, create where that was asked for. Called once, before anything else.

        Raises a StoreUnavailable error on whatever is there instead of a usable store.
        """
        ...

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """Write each request or refuse it, in this order, in one durable commit; one outcome each.

        (P1) A request's events are adjacent, in order, and become visible together.
        (P2) Its condition is judged against everything committed before it by anyone, and against
             the earlier requests of the same call. A refusal is an `AppendConflict` outcome; so is that of
             a condition that was read in another epoch (`AppendRequest.epoch`).
        (P3) `time` is assigned here: max(now, last time), so it never decreases along the log.
        (P4) When this returns, the written requests are durable.
        (P5) Where all of a request's event ids are in the log, in this order, adjacent and with equal
             content (type, version, data, tags, occurred, metadata), or its `key` is known: the first
             receipt with `repeated=True`, before the condition is judged. Where some are, or the
             content differs: an `EventIdReused` outcome. A known `key` goes before the ids; one that is not
             known is claimed, in the same commit, by the append that its request repeats.
        Raises `AppendUnconfirmed` if the commit itself failed or its answer was lost; any other
        raised error means that nothing of the whole call was written.
        """
        ...

    async def read(self, query: Query, span: Span) -> Page:
        """One page of the events matching `query`. (P3) What it has scanned never changes later."""
        ...

    async def head(self) -> Head:
        """The last committed event's position, time and id."""
        ...

    async def count(self, query: Query, after: int = 0, until: int | None = None) -> int:
        """How many events match in (after, until]."""
        ...

    async def position_at(self, time: int) -> int:
        """The last position whose time is ≤ `time` (µs since 1970, UTC); 0 if there is none."""
        ...

    async def event_id(self, position: int) -> bytes | None:
        """The id of the event at a position, or None beyond the head: how cursors are verified."""
        ...

    async def position_of(self, id: bytes) -> int | None:
        """Where the event of this id stands (16 bytes), or None where there is none. Answered from an index."""
        ...

    async def boundary(self, position: int) -> int:
        """The last position of the append that wrote `position` (itself if beyond the head)."""
        ...

    async def receipt_of(self, key: str) -> Receipt | None:
        """The receipt of the append that was made under this request key, if there was one."""
        ...

    async def types(self) -> list[TypeCount]:
        """Every type name in the log, by name."""
        ...

    async def tags(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[TagCount]:
        """Tags that start with `prefix`, in code point order, those greater than `after`. Answered from an index."""
        ...

    async def keys(self, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        """Request keys greater than `after`, in order, each with the first position of its append."""
        ...

    async def adopt(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]] = ()) -> None:
        """Take over whole appends of another log exactly as they stand there: ids, positions, times, boundaries.

        Only directly behind the head: otherwise an `AppendConflict`, nothing written. Durable when it returns.
        """
        ...

    async def succeed(self, store_id: str, epoch: int) -> None:
        """Let an empty store take over another's identity, so that its cursors and receipts hold here.

        Raises `AppendConflict` if the store has events already.
        """
        ...

    async def snapshot(self, key: str) -> Snapshot | None:
        """The snapshot kept under a key. Snapshots stand beside the log and are never a source of truth."""
        ...

    async def keep_snapshot(self, key: str, snapshot: Snapshot) -> None:
        """Keep a snapshot in place of an older one. Need not be durable when it returns; may be refused."""
        ...

    async def drop_snapshots(self, prefix: str = "") -> int:
        """Drop every snapshot whose key starts with `prefix`; how many there were."""
        ...

    async def try_lock(self, name: str, owner: str) -> str | None:
        """Take the lock of this name if it is free: None; otherwise who has it, as they called themselves.

        Locks keep others out who ask for them, and nobody else; a process that dies lets go of its own.
        """
        ...

    async def unlock(self, name: str) -> None:
        """Let go of a lock that this engine took. Harmless where it did not."""
        ...

    def fold_with(self, folder: InlineProjector) -> None:
        """Fold read models within appends from now on. (P8) Rows and events are committed together, or neither.

        What a request's events cannot be folded into refuses that request alone: an `InlineFailed` outcome. An event of
        a read model that was enrolled by anyone, and whose code the folder lacks, is refused: `InlineMissing`.
        Raises NotSupported.
        """
        ...

    async def inlined(self) -> list[InlineRegistration]:
        """The read models that are folded within every append to this store, whoever makes it."""
        ...

    async def in_turn(self, work: Callable[[ExclusiveTransaction], Awaitable[None]]) -> None:
        """Do something in a transaction of its own in which nobody appends. Raises NotSupported."""
        ...

    async def stats(self) -> dict[str, Any]:
        """Facts for an operator: sizes in bytes, settings, versions. Keys differ between engines."""
        ...

    def watch(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Call `notify()`, from any thread, soon after anyone commits; returns how to stop.

        (P7) Rings may come too often, and never too seldom: no commit stays unannounced.
        """
        ...

    async def close(self) -> None:
        """Release everything. Closing twice is harmless."""
        ...
