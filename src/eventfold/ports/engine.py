"""The port of an engine: what every log promises. What an engine may offer beyond it is in services.py.

Each sentence marked (P1) … (P10) is a promise, with tests of that number in `testing/conformance`.

Methods that do I/O are coroutines, so that an engine is written once for sync and async users. An engine whose
`Capabilities.suspends` is false never awaits anything that is not ready: `concurrency` then runs each coroutine
in the caller's thread with a single `send(None)`.
Knows: events, queries, receipts. Does not know: user classes, modes, threads, databases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from eventfold.core.envelope import Receipt
from eventfold.core.query import Query
from eventfold.ports.messages import AppendRequest, Capabilities, Head, Outcome, Page, Span, TagCount, TypeCount
from eventfold.ports.services import Services


class Engine(Protocol):
    """One ordered, append-only log.

    (P3) Positions are 1, 2, 3 … in commit order, without gaps. Once a position is visible, no event appears at or
         below it later.
    (P6) An event is never changed or removed. With `Capabilities.immutable` the database itself refuses to.
    (P9) A call that the engine does not support raises `NotSupported` with a remedy. Every error has two sentences
         (what happened, what to do now) and a stable `code`; after an error of a call, see `append_many` for what
         may have been written.
    (P10) An event is read back with exactly the bytes, tags, times and metadata with which it was appended.
    """

    name: str
    capabilities: Capabilities

    @property
    def services(self) -> Services:
        """The optional services: snapshots, locks, replication and more. Each may be None."""
        ...

    @property
    def store_id(self) -> str:
        """The identity of the store: 32 hex digits, assigned when it is created and never changed."""
        ...

    @property
    def epoch(self) -> int:
        """A number that grows whenever history may have been lost: after a failover or a restored backup.

        What a caller read in one epoch may not be in the log in another. A call that finds the store in another epoch
        therefore changes this property before it returns: if the property is equal before and after a call, the result
        is of that epoch. Reading it costs no I/O.
        """
        ...

    @property
    def default_target(self) -> str | None:
        """The address where read models, followers and processes store rows and progress if `target=` names no other.

        Normally the database of the log itself, so that every process that opens the log finds them. None: the engine
        has no such place, and a call that needs one raises NotSupported.
        """
        ...

    async def open(self) -> None:
        """Connect to the store, check it, and create it if its options ask for that. Called once, before other calls.

        Raises a StoreUnavailable error if there is no usable store.
        """
        ...

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """Write or refuse each request, in this order and in one durable commit. Returns one outcome per request.

        (P1) The events of a request are written all or none, adjacent and in order, and become visible together.
        (P2) A condition is judged against everything committed before by any process, and against the earlier
             requests of the same call. If it does not hold, the outcome is an `AppendConflict`; likewise if it was read
             in another epoch (`AppendRequest.epoch`).
        (P3) The engine assigns `time` as max(now, time of the last event), so it never decreases along the log.
        (P4) When this returns, the written requests are durable.
        (P9) An event that `append_encoded` would refuse may be refused here too: then the outcome is an `InvalidEvent`.
        (P5) A request is a repeat if its `key` is in the log, or if all its event ids are in the log, in this order,
             adjacent and with equal content (type, version, data, tags, occurred, metadata). The outcome of a repeat is
             the first receipt with `repeated=True`; nothing is written, and the condition is not judged. If only some
             of the ids are in the log, or the content differs, the outcome is an `EventIdReused`. The key is looked up
             before the ids. If the key is new and the ids are a repeat, the same commit assigns the key to the append
             that is in the log.
        Raises `AppendUnconfirmed` if the commit itself failed or its answer was lost. Any other raised error means
        that nothing of the whole call was written.
        """
        ...

    async def read(self, query: Query, span: Span) -> Page:
        """Return one page of the events that match `query`. (P3) What was scanned for it never changes later."""
        ...

    async def head(self) -> Head:
        """Return position, time and id of the last committed event."""
        ...

    async def count(self, query: Query, after: int = 0, until: int | None = None) -> int:
        """Return how many events match in (after, until]. `until` None: up to the head."""
        ...

    async def position_at(self, time: int) -> int:
        """Return the last position whose event has a time ≤ `time` (µs since 1970 UTC); 0 if there is none."""
        ...

    async def event_id(self, position: int) -> bytes | None:
        """Return the id (16 bytes) of the event at a position; None beyond the head. Cursors are verified by it."""
        ...

    async def boundary(self, position: int) -> int:
        """Return the last position of the append that wrote `position`; `position` itself if it is beyond the head."""
        ...

    async def receipt_of(self, key: str) -> Receipt | None:
        """Return the receipt of the append that has this request key; None if none has."""
        ...

    async def types(self) -> list[TypeCount]:
        """Return every event type in the log with its counts, ordered by name."""
        ...

    async def tags(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[TagCount]:
        """Return up to `limit` tags that start with `prefix` and are greater than `after`, in code point order.

        Read from an index, not from the events.
        """
        ...

    async def stats(self) -> dict[str, Any]:
        """Return facts for an operator: sizes in bytes, settings, versions. The keys differ between engines."""
        ...

    def watch(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Call `notify()`, from any thread, soon after any process commits. Returns a function that stops this.

        (P7) After every commit there is at least one notification. There may be more notifications than commits.
        """
        ...

    async def close(self) -> None:
        """Release all connections, files and locks. Closing twice has no effect."""
        ...
