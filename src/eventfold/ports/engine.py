"""The port of an engine: what every log promises. What an engine offers beyond it is in services.py.

Knows: records, queries, receipts. Does not know: user classes, modes, threads, databases.
Each sentence marked (P1) … (P9) is a promise with a test of that number in `testing/conformance`.

Every method is a coroutine, so that it is written once for sync and async users. An engine whose
`Capabilities.suspends` is false never awaits anything that is not ready: `concurrency` then runs it
in the caller's thread with a single `send(None)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from eventfold.core.envelope import Receipt
from eventfold.core.query import Query
from eventfold.ports.messages import AppendRequest, Capabilities, Head, Outcome, Page, Span, TagCount, TypeCount
from eventfold.ports.services import Services


class Engine(Protocol):
    """One ordered, append-only log. (P1) Atomic. (P3) Positions are 1, 2, 3 … in commit order."""

    name: str
    capabilities: Capabilities

    @property
    def services(self) -> Services:
        """What the engine offers beyond the log: snapshots, locks, replication and more, each of which may be None."""
        ...

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

    async def stats(self) -> dict[str, Any]:
        """Facts for an operator: sizes in bytes, settings, versions. Keys differ between engines."""
        ...

    def watch(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Call `notify()`, from any thread, soon after anyone commits; returns how to stop.

        (P7) There may be more notifications than commits, and no commit is without one after it.
        """
        ...

    async def close(self) -> None:
        """Release everything. Closing twice is harmless."""
        ...
