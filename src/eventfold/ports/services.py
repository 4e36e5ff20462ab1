"""The optional services of an engine: what it offers beyond the log. An engine lists those it has in `services`.

Coroutines follow the same rules as those of the engine (see engine.py).
Knows: what each service does, and the error that is raised for a missing one. Does not know: any engine.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

import msgspec

from eventfold.core.envelope import Receipt, Staged, StoredEvent
from eventfold.core.query import Query
from eventfold.core.snapshot import Snapshot
from eventfold.errors import EventfoldError, NotSupported
from eventfold.ports.inline import ExclusiveTransaction, InlineProjector, InlineRegistration
from eventfold.ports.integrity import Problem, Progress
from eventfold.ports.messages import AppendRequest, Head

if TYPE_CHECKING:
    from eventfold.ports.engine import Engine


class Lookups(Protocol):
    """What is looked up in an index: events by id, names of tags, numbers of events."""

    async def position_of(self, id: bytes) -> int | None:
        """Return the position of the event with this id (16 bytes); None if there is none. Read from an index."""
        ...

    async def tag_keys(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[str]:
        """Return up to `limit` keys of the tags that start with `prefix`, greater than `after`, in code point order.

        The key of a tag is its text up to its first colon, inclusive; a tag without a colon is its own key. `after` is
        a key, exclusive. The time depends on the number of keys, not on that of tags.
        """
        ...

    async def tag_names(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[str]:
        """Return up to `limit` tags that start with `prefix` and are greater than `after`, in code point order.

        The tags of `Engine.tags`, without counts: the time depends on `limit`, not on the number of events.
        """
        ...

    async def counts(self, query: Query, bounds: Sequence[int]) -> list[int]:
        """Return how many events match in each range (bounds[i], bounds[i + 1]], as `Engine.count` does for one.

        `bounds` are positions in ascending order; those beyond the head mean the head. One number fewer than bounds,
        [] for fewer than two. One call of the database, so that all numbers are of one moment.
        """
        ...


class Snapshots(Protocol):
    """Snapshots of folded states, stored next to the log. They can be deleted at any time: the log has the events."""

    async def get(self, key: str) -> Snapshot | None:
        """Return the snapshot stored under a key; None if there is none."""
        ...

    async def put(self, key: str, snapshot: Snapshot) -> None:
        """Store a snapshot, in place of an older one. It need not be durable when this returns.

        Raises a StoreUnavailable error if it cannot be stored; the caller continues without it.
        """
        ...

    async def delete_prefix(self, prefix: str = "") -> int:
        """Delete every snapshot whose key starts with `prefix`. Returns how many were deleted."""
        ...


class Locks(Protocol):
    """Advisory locks by name. They exclude only callers that also acquire them; appends do not check them."""

    async def try_acquire(self, name: str, owner: str) -> str | None:
        """Acquire the lock if it is free, and return None. Otherwise return the `owner` text of its holder.

        Never waits. When a process dies, its locks are released.
        """
        ...

    async def release(self, name: str) -> None:
        """Release a lock that this engine object acquired. Has no effect on other locks."""
        ...


class Replication(Protocol):
    """Copies another log into this one without any change."""

    async def keys(self, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        """Return up to `limit` request keys greater than `after`, in order, each with the first position of its append.

        [] at the end.
        """
        ...

    async def import_events(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]] = ()) -> None:
        """Write whole appends of another log with their ids, positions, times and append boundaries.

        `keys`: request keys, each with the first position of its append. Raises `AppendConflict`, and writes nothing,
        if the first event does not come directly after the head. (P4) Durable when it returns.
        """
        ...

    async def take_identity(self, store_id: str, epoch: int) -> None:
        """Replace the id and epoch of an empty store by another store's, so that its cursors are valid here.

        Raises `AppendConflict` if the store has events.
        """
        ...


class ReplicaOf(msgspec.Struct, frozen=True):
    """The log of which a replica is a copy: its identity, and its address without secrets, for messages."""

    store_id: str
    epoch: int
    address: str


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What `Replica.judge` found.

    `head`      the head of the replica, against which all requests were judged.
    `time`      the recorded time of the accepted events: max(now, time of the head), µs since 1970 UTC.
    `verdicts`  one for each request: a Receipt with `repeated` set, an error that refuses it, or None: accepted.
                Accepted requests are written in order directly after `head`, or none of them is; their verdicts, and
                receipts of those that repeat one of them, are void if anything else is written there.
    `keys`      the request keys of repeats that are new, each with the first position of the append that they repeat.
                (P5) They are to be assigned; the keys of accepted requests are not among them.
    """

    head: Head
    time: int
    verdicts: list[Receipt | EventfoldError | None]
    keys: list[tuple[str, int]]


class Replica(Protocol):
    """Keeps this log a complete copy of a log that is elsewhere, and judges appends to that one.

    The other log decides what is written: the copy may lag behind it, and never has anything that it has not.
    """

    async def judge(self, requests: Sequence[AppendRequest], now: int) -> Judged:
        """Judge each request as `append_many` would judge this call at the time `now` (µs). Nothing is written.

        (P2, P5) Later requests are judged against the accepted ones before them. The verdicts are of the head that is
        returned: a caller that writes the accepted requests makes sure that they come directly after it. No inline
        read model is folded.
        """
        ...

    async def import_events(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]] = ()) -> None:
        """Write whole appends of the other log, consecutive and in its order, and request keys, as they are there.

        What is in the copy already is compared, and skipped: several processes may import the same events at once.
        `keys`: each with the first position of its append. Raises `ReplicaMismatch` if the copy has another event at a
        position, or another append under a key, `AppendConflict` if events before the first are missing; then nothing
        is written. It need not be durable when this returns, since it can be imported again; a power failure may undo
        the last imports, in whole appends.
        """
        ...

    async def copy_to(self, path: str) -> None:
        """Write a consistent copy of this copy to a path where nothing is, as a file that can be opened in its place.

        Raises NotSupported if this one is not in a file.
        """
        ...


class InlineProjections(Protocol):
    """Read models that are folded within the transaction of an append."""

    def set_projector(self, projector: InlineProjector) -> None:
        """Fold read models with this projector in every later append.

        (P8) Events and the rows folded from them are committed together, or neither is. If the events of a request
             cannot be folded, only that request is refused, with an `InlineFailed` outcome. If any process registered a
             read model whose code the projector does not have, requests with events of its types are refused with an
             `InlineMissing` outcome.
        """
        ...

    async def registrations(self) -> list[InlineRegistration]:
        """Return the read models that every append to this store folds, in every process."""
        ...

    async def exclusive(self, work: Callable[[ExclusiveTransaction], Awaitable[None]]) -> None:
        """Run `work` in a transaction during which no process appends. Rolled back if `work` raises."""
        ...


class Transactions(Protocol):
    """Appends that join a transaction of the user, on the user's connection."""

    async def stage(self, connection: Any, requests: Sequence[AppendRequest]) -> list[Staged]:
        """Stage requests: they are committed or rolled back with the user's transaction.

        Positions are assigned and conditions judged at its COMMIT, which fails if a condition does not hold.
        """
        ...

    async def staged(
        self, connection: Any, types: Sequence[str] | None = None, key: str | None = None
    ) -> list[tuple[StoredEvent, str | None]]:
        """Return the events that are staged in the connection's transaction, in order, each with its request key.

        Includes every event of the appends that have an event of one of `types` (None: of any type), and of the append
        with the request key `key`. Excludes what was rolled back to a savepoint. All positions are 0 before the COMMIT.
        """
        ...

    async def confirm(self, staged: Staged) -> Receipt | None:
        """Return the receipt of a staged append after the COMMIT; None if it was not committed.

        Raises AppendUnconfirmed if the store cannot be read.
        """
        ...


class UpgradeResult(msgspec.Struct, frozen=True):
    """The result of an upgrade: the store's layout number before (`had`) and after it (`now`), the path of its copy."""

    had: int
    now: int
    backup: str | None = None


class RestoreResult(msgspec.Struct, frozen=True):
    """The result of `Maintenance.restored`: the store's id, the epoch that has ended and the new one."""

    store: str
    ended: int
    epoch: int


class ReindexResult(msgspec.Struct, frozen=True):
    """The result of `Maintenance.reindex`: how many events, tags and entries the rebuilt index has."""

    events: int
    tags: int
    entries: int


class Maintenance(Protocol):
    """Operators' tasks on the storage of a log. `upgrade`, `restored` and `reindex` are called before `open`."""

    def check(self, progress: Progress = ...) -> Iterable[Problem] | AsyncIterable[Problem]:
        """Compare all redundant data in the store and yield each difference.

        `progress` is called with the number of events compared so far, and of all events.
        """
        ...

    async def upgrade(self, copy: str | None = None, *, copies: bool = True) -> UpgradeResult:
        """Upgrade a store of an older layout.

        `copy`: the path to which a copy is written before; None: a path that the engine chooses. `copies` False: write
        no copy.
        """
        ...

    async def restored(self) -> RestoreResult:
        """Begin a new epoch after the store was restored by other tools."""
        ...

    async def reindex(self) -> ReindexResult:
        """Rebuild the index of tags and types from the events."""
        ...


class BlockingEngines(Protocol):
    """Blocking engines on the store of an engine that suspends: for read models, which run in threads."""

    async def share(self) -> None:
        """Reserve part of this engine's connections for the blocking one. Called once, before `blocking_engine`."""
        ...

    def blocking_engine(self) -> Engine:
        """Return another engine on the same store, not yet open, whose calls block."""
        ...


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The optional services of an engine. None: the engine does not have the service."""

    lookups: Lookups | None = None
    snapshots: Snapshots | None = None
    locks: Locks | None = None
    replication: Replication | None = None
    replica: Replica | None = None
    inline: InlineProjections | None = None
    transactions: Transactions | None = None
    maintenance: Maintenance | None = None
    creation: Callable[[], Coroutine[Any, Any, bool]] | None = (
        None  # creates a store that `open` never does; if missing
    )
    backup: Callable[[str], None] | None = None  # writes a consistent copy to a path; the copy has a new epoch
    blocking: BlockingEngines | None = None
    lend: Callable[[Any], Coroutine[Any, Any, Any]] | None = None  # lends connections to the target at an address


# For each service the two sentences of the NotSupported error if it is missing, and the error's `capability`.
MISSING: dict[str, tuple[str, str, str]] = {
    "lookups": (
        "The {} engine cannot look up an event by its id, or the keys of tags.",
        "Read the event by its position, or by a query over its tags; derive the keys from store.tags().",
        "look-ups",
    ),
    "snapshots": ("The {} engine stores no snapshots.", "There is nothing to drop.", "snapshots"),
    "locks": (
        "The {} engine has no locks.",
        "Decide without a lock: a decision that meets a conflict is made again.",
        "locks",
    ),
    "replication": (
        "The {} engine cannot import the events of another log or list its request keys.",
        "Copy between stores of other engines.",
        "copying",
    ),
    "replica": (
        "The {} engine cannot hold a copy of a log that is elsewhere.",
        "Use a SQLite file for the copy.",
        "replicas",
    ),
    "inline": (
        "The {} engine cannot fold read models within its appends.",
        "Keep the log in a SQLite file or in PostgreSQL for that, or leave inline= away and use store.project(…).",
        "inline",
    ),
    "transactions": (
        "An append cannot join a transaction of yours on the {} engine.",
        "Keep your rows and the log in one PostgreSQL database for that, or make them a projection.",
        "joined appends",
    ),
    "maintenance": (
        "The {} engine has no older layout to upgrade and no backup to restore.",
        "Give the address of a SQLite file or a PostgreSQL store.",
        "maintenance",
    ),
    "backup": ("The {} engine makes no backups.", "Use the tools of its database.", "backup"),
    "blocking": (
        "Read models run in threads, and this {} engine works only on an event loop.",
        "Open the store by its address, or add the service `blocking` to the engine.",
        "blocking",
    ),
}


@overload
def require(engine: Engine, service: Literal["lookups"]) -> Lookups: ...
@overload
def require(engine: Engine, service: Literal["snapshots"]) -> Snapshots: ...
@overload
def require(engine: Engine, service: Literal["locks"]) -> Locks: ...
@overload
def require(engine: Engine, service: Literal["replication"]) -> Replication: ...
@overload
def require(engine: Engine, service: Literal["replica"]) -> Replica: ...
@overload
def require(engine: Engine, service: Literal["inline"]) -> InlineProjections: ...
@overload
def require(engine: Engine, service: Literal["transactions"]) -> Transactions: ...
@overload
def require(engine: Engine, service: Literal["maintenance"]) -> Maintenance: ...
@overload
def require(engine: Engine, service: Literal["backup"]) -> Callable[[str], None]: ...
@overload
def require(engine: Engine, service: Literal["blocking"]) -> BlockingEngines: ...
def require(engine: Engine, service: str) -> Any:
    """Return a service of an engine. Raises NotSupported, with a remedy, if the engine does not have it."""
    value = getattr(engine.services, service)
    if value is None:
        what, remedy, capability = MISSING[service]
        raise NotSupported(what.format(engine.name), remedy, engine=engine.name, capability=capability)
    return value
