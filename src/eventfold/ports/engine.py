"""THE PORT. Everything a reader must believe about a store is said here, once.

Knows: records, queries, receipts. Does not know: user classes, modes, threads, databases.
Each sentence marked (P1) … (P9) is a promise with a test of that number in `testing/conformance`.

Every method is a coroutine, so that it is written once for sync and async users. An engine whose
`Capabilities.suspends` is false never awaits anything that is not ready: `concurrency` then runs it
in the caller's thread with a single `send(None)`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from eventfold.core.envelope import NewEvent, Receipt, StoredEvent
from eventfold.core.query import ConditionClause, Query
from eventfold.core.snapshot import Snapshot
from eventfold.errors import EventfoldError
from eventfold.ports.inline import InlineRegistration


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine can do. A missing one makes the call raise `NotSupported` with a remedy."""

    suspends: bool = False  #          its coroutines really wait on a loop (network engines)
    blocks: bool = True  #             its coroutines block the calling thread (disk, network)
    durable: bool = True  #            an acknowledged append survives a power cut
    shared: bool = True  #             several processes may use the same store at once
    query_conditions: bool = True  #   conditions over any query, not just over one tag
    request_keys: bool = True  #       `AppendRequest.key` is honoured
    pushes: bool = True  #             watchers are woken by notification, not by a poll
    immutable: bool = True  #          the database itself refuses UPDATE and DELETE on the log
    inline: bool = False  #            read models can be folded within the transaction of an append


class AppendRequest(msgspec.Struct, frozen=True):
    """Some events under a condition: all of them are written, or none.

    `events`  1 to 1,000 encoded events.
    `unless`  the condition: refused if, for any clause, an event matching its query has a position
              greater than its `after` (exclusive; `after` is the head that was scanned for it), and than
              that of the event `behind`, if the clause names one; refused, too, if that event is nowhere.
    `key`     an optional request key, unique in the store: a second append under it writes nothing
              and reports the first one's receipt.
    `seen`    where the append joins its user's transaction: ids of events that were staged in it before, and that
              the decision was made over. Of this transaction only events behind the last of them are a conflict.
    `epoch`   the epoch in which the positions of `unless` were read: in another one they mean nothing,
              and the request is refused as by a conflict. None: not known.
    """

    events: tuple[NewEvent, ...]
    unless: tuple[ConditionClause, ...] = ()
    key: str | None = None
    epoch: int | None = None
    seen: tuple[bytes, ...] = ()


Outcome = Receipt | EventfoldError


class Head(msgspec.Struct, frozen=True):
    """The end of the log: position 0, time 0 and no id when it is empty. Time: µs since 1970, UTC."""

    position: int
    time: int
    id: bytes


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Which stretch of the log to read.

    `after` exclusive; `until` inclusive (None: the head); `limit` events at the most, softly (see
    `Page`); `backwards` from `until` down to `after`; `occurred_since` / `occurred_until`: µs since
    1970 UTC, both inclusive, compared with `occurred` or, where an event has none, with `time`;
    the order stays that of the positions.
    """

    after: int = 0
    until: int | None = None
    limit: int = 1000
    backwards: bool = False
    occurred_since: int | None = None
    occurred_until: int | None = None


PAGE_BYTES = 8 * 2**20  # of payloads and metadata: the event that reaches it is the last of its page


class Page(msgspec.Struct, frozen=True):
    """Some matching events in order, and how far the log was scanned for them.

    `events`   in position order (descending if backwards). A page ends at the limit of its span, or with the first
               event at which payloads and metadata come to `PAGE_BYTES`; and never inside an append: where it
               would cut one, the rest of its matching events is added.
    `scanned`  every matching event in (after, scanned] is in this page; continue with after=scanned.
               Backwards: every one in [scanned, until]; continue with until=scanned-1.
    `more`     whether a limit, rather than the end of the span, ended this page.
    """

    events: list[StoredEvent]
    scanned: int
    more: bool


class TypeCount(msgspec.Struct, frozen=True):
    """An event type as it stands in the log, with how many events have it."""

    type: str
    count: int
    first: int
    last: int


class TagCount(msgspec.Struct, frozen=True):
    """A tag as it stands in the log: how many events carry it, the positions of the first and the last of them."""

    tag: str
    count: int
    first: int
    last: int


class UpgradeResult(msgspec.Struct, frozen=True):
    """What an upgrade of a store's layout did: the layout it had, the one it has, where its copy from before lies."""

    had: int
    now: int
    backup: str | None = None


class RestoreResult(msgspec.Struct, frozen=True):
    """Which store was restored by other tools: its id, the epoch that ended with it and the one that begins."""

    store: str
    ended: int
    epoch: int


class StaleRows(Exception):
    """What was folded was folded from rows that are no longer those: fold it again, in a new transaction."""


class InlineTransaction(Protocol):
    """Read models in one transaction of an append. `types`: the events they take."""

    types: frozenset[str]

    def take(self, events: Sequence[StoredEvent], at_once: bool = False) -> EventfoldError | None:
        """Fold the events of one request; or say why not: then it is as though they had never been given.

        Raises InlineFailed where it cannot be told which request is at fault: roll back, and begin again `at_once`.
        """
        ...

    def write(self) -> None:
        """Write whatever was taken. Raises StaleRows, and InlineFailed as `take` does."""
        ...

    def end(self, head: int | None) -> None:
        """The transaction was committed and the log has this head; None: it was rolled back."""
        ...


class InlineProjector(Protocol):
    """Who folds read models within appends: given to an engine, which knows nothing of them."""

    @property
    def codes(self) -> Mapping[str, str]:
        """The fingerprints of the code it has, by name."""
        ...

    def begin(self, connection: Any, head: int, inlined: Sequence[InlineRegistration]) -> InlineTransaction:
        """Begin within a transaction of `connection` that holds the writers' lock; `head` as it was before it."""
        ...

    def forget(self) -> None:
        """Believe nothing of what is remembered: a transaction was ended by an exception, before `Folding.end`."""
        ...


class ExclusiveTransaction(Protocol):
    """A transaction in which nobody appends: it is committed, or rolled back, as a whole."""

    @property
    def connection(self) -> Any:
        """The driver's own."""
        ...

    @property
    def head(self) -> int:
        """Where the log ends."""
        ...

    @property
    def inlined(self) -> Sequence[InlineRegistration]:
        """Those that are enrolled."""
        ...

    async def read(self, query: Query, after: int) -> Page:
        """The next matching events."""
        ...

    async def enrol(self, inlined: InlineRegistration) -> None:
        """From this commit on every append folds it, or is refused. In place of one of the same name."""
        ...

    async def dismiss(self, name: str) -> None:
        """From this commit on no append folds it."""
        ...


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

    async def request(self, key: str) -> Receipt | None:
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

    def watch(self, ring: Callable[[], None]) -> Callable[[], None]:
        """Call `ring()`, from any thread, soon after anyone commits; returns how to stop.

        (P7) Rings may come too often, and never too seldom: no commit stays unannounced.
        """
        ...

    async def close(self) -> None:
        """Release everything. Closing twice is harmless."""
        ...
