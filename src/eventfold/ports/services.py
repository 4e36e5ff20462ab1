"""Optional services of an engine: what it offers beyond the log. An engine has a service by naming it in `services`.

Knows: what each service answers, and the words in which a missing one is refused. Does not know: any engine.
Coroutines follow the rules of the engine's own (see engine.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

import msgspec

from eventfold.core.envelope import Receipt, Staged, StoredEvent
from eventfold.core.snapshot import Snapshot
from eventfold.errors import NotSupported
from eventfold.ports.inline import ExclusiveTransaction, InlineProjector, InlineRegistration
from eventfold.ports.integrity import Problem, Progress
from eventfold.ports.messages import AppendRequest

if TYPE_CHECKING:
    from eventfold.ports.engine import Engine


class Lookups(Protocol):
    """Finds events by what is not a query."""

    async def position_of(self, id: bytes) -> int | None:
        """The position of the event with this id (16 bytes), or None. Answered from an index."""
        ...


class Snapshots(Protocol):
    """Snapshots of folded states, stored beside the log and never a source of truth."""

    async def get(self, key: str) -> Snapshot | None:
        """The snapshot stored under a key."""
        ...

    async def put(self, key: str, snapshot: Snapshot) -> None:
        """Store a snapshot in place of an older one. Need not be durable when it returns; may be refused."""
        ...

    async def delete_prefix(self, prefix: str = "") -> int:
        """Delete every snapshot whose key starts with `prefix`. Returns their number."""
        ...


class Locks(Protocol):
    """Advisory locks by name. They exclude callers that ask for them, and no others."""

    async def try_acquire(self, name: str, owner: str) -> str | None:
        """Acquire the lock if it is free and return None; otherwise return the name its owner gave.

        The locks of a process that dies are released.
        """
        ...

    async def release(self, name: str) -> None:
        """Release a lock that this engine acquired. Has no effect on any other."""
        ...


class Replication(Protocol):
    """Copies another log into this one, exactly."""

    async def keys(self, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        """Request keys greater than `after`, in order, each with the first position of its append."""
        ...

    async def import_events(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]] = ()) -> None:
        """Write whole appends of another log exactly as they are there: ids, positions, times, boundaries.

        Only directly after the head: otherwise an `AppendConflict`, and nothing is written. Durable when it returns.
        """
        ...

    async def take_identity(self, store_id: str, epoch: int) -> None:
        """Give an empty store another store's identity, so that its cursors and receipts hold here.

        Raises `AppendConflict` if the store has events already.
        """
        ...


class InlineProjections(Protocol):
    """Read models that are folded within the transaction of an append."""

    def set_projector(self, projector: InlineProjector) -> None:
        """Fold read models within appends from now on. (P8) Rows and events are committed together, or neither.

        A request whose events cannot be folded is refused alone: an `InlineFailed` outcome. An event of a read model
        that any process registered, and whose code the projector lacks, is refused: `InlineMissing`.
        """
        ...

    async def registrations(self) -> list[InlineRegistration]:
        """The read models that every append to this store folds, in whichever process."""
        ...

    async def exclusive(self, work: Callable[[ExclusiveTransaction], Awaitable[None]]) -> None:
        """Run `work` in a transaction during which nothing is appended."""
        ...


class Transactions(Protocol):
    """Appends within a transaction of the user's, on the user's connection."""

    async def stage(self, connection: Any, requests: Sequence[AppendRequest]) -> list[Staged]:
        """Stage requests: they commit or roll back with the transaction.

        Positions are assigned and conditions judged at its COMMIT, which fails if one does not hold.
        """
        ...

    async def staged(
        self, connection: Any, types: Sequence[str] | None = None, key: str | None = None
    ) -> list[tuple[StoredEvent, str | None]]:
        """What is staged in the connection's transaction: events in order, each with its request key.

        Of appends that have an event of one of these types (None: any type), and of the one under this key; their other
        events are included. What was rolled back to a savepoint is not included. Before the COMMIT positions are 0.
        """
        ...

    async def confirm(self, staged: Staged) -> Receipt | None:
        """The receipt of a staged append after the COMMIT; None if it was not committed.

        Raises AppendUnconfirmed if that cannot be looked up now.
        """
        ...


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


class Maintenance(Protocol):
    """What an operator does with the storage of a log. `upgrade` and `restored` are called before `open`."""

    def check(self, progress: Progress = ...) -> Iterable[Problem] | AsyncIterable[Problem]:
        """Compare all redundant data in the store and yield each difference.

        `progress` is called with the number of events compared so far and in all.
        """
        ...

    async def upgrade(self, copy: str | None = None, *, copies: bool = True) -> UpgradeResult:
        """Upgrade a store of an older layout. `copy`: where a copy is written first; None: where the engine says."""
        ...

    async def restored(self) -> RestoreResult:
        """Begin a new epoch after other tools restored the store."""
        ...


class BlockingEngines(Protocol):
    """Engines for threads, on the store of an engine that suspends: read models run in threads."""

    async def share(self) -> None:
        """Reserve part of this engine's connections for the other one. Called once, before `blocking_engine`."""
        ...

    def blocking_engine(self) -> Engine:
        """Another engine on the same store, not yet open, whose calls block."""
        ...


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The optional services of an engine. None: it does not have this one."""

    lookups: Lookups | None = None
    snapshots: Snapshots | None = None
    locks: Locks | None = None
    replication: Replication | None = None
    inline: InlineProjections | None = None
    transactions: Transactions | None = None
    maintenance: Maintenance | None = None
    backup: Callable[[str], None] | None = None  # writes a consistent copy, with a new epoch, to a path
    blocking: BlockingEngines | None = None
    lend: Callable[[Any], Coroutine[Any, Any, Any]] | None = None  # lends connections to read models at an address


# What a call that needs the service is refused with, the remedy, and the `capability` of the error.
MISSING: dict[str, tuple[str, str, str]] = {
    "lookups": (
        "The {} engine finds no event by its id.",
        "Read it by its position, or by a query over its tags.",
        "look-ups",
    ),
    "snapshots": ("The {} engine keeps no snapshots.", "There is nothing to drop.", "snapshots"),
    "locks": (
        "The {} engine has no locks.",
        "Decide without a lock: a decision that loses a race is made again.",
        "locks",
    ),
    "replication": (
        "The {} engine does not import the events of another log, nor list its request keys.",
        "Copy between stores of other engines.",
        "copying",
    ),
    "inline": (
        "The {} engine folds no read models within its appends.",
        "Keep the log in a SQLite file or in PostgreSQL for that, or leave inline= away and use store.project(…).",
        "inline",
    ),
    "transactions": (
        "An append cannot join a transaction of yours on the {} engine.",
        "Keep your rows and the log in one PostgreSQL database for that, or make them a projection.",
        "joined appends",
    ),
    "maintenance": (
        "The {} engine has no older layout and no backup to restore.",
        "Name a file or a PostgreSQL store.",
        "maintenance",
    ),
    "backup": ("The {} engine makes no backups itself.", "Use its own tools.", "backup"),
    "blocking": (
        "Read models are run by threads, and the {} engine given here only works on a loop.",
        "Open the store by its address; or give the engine the service `blocking`, for engines whose calls block.",
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
    """A service of an engine. Raises NotSupported, with a remedy, if the engine does not have it."""
    found = getattr(engine.services, service)
    if found is None:
        what, remedy, capability = MISSING[service]
        raise NotSupported(what.format(engine.name), remedy, engine=engine.name, capability=capability)
    return found
