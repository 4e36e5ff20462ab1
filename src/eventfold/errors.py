"""Every error that the library raises on purpose, as one tree.

    EventfoldError
    ├── InvalidInput                an argument cannot be used; nothing was written
    │   ├── InvalidEvent            an event that could not be read back, is too large, or has an invalid tag
    │   ├── InvalidQuery            a query, a bound or a cursor that is not valid
    │   │   └── PositionBeyondHead  a position greater than the log's head
    │   ├── InvalidState            a State (or event) class that cannot be folded, or an invalid ``at=``
    │   ├── InvalidDecision         a decision that returned something other than events
    │   ├── InvalidProjection       a Projection class that is not valid
    │   │   └── InvalidFilter       a filter, an order, a limit or a cursor of rows that cannot be used
    │   ├── InvalidProcess          a Process class, or an action of its reaction, that is not valid
    │   └── InvalidUrl              an address that names no engine
    ├── AppendConflict              another writer wrote first: read again and decide again
    ├── AppendUnconfirmed           the reply was lost: repeat the identical append
    ├── EventIdReused               an event id that is in the log was appended with other content
    ├── Unreadable                  an event is in the log but cannot be read as requested
    │   ├── UnknownEventType        no class for this event type is loaded in this process
    │   ├── UndecodableEvent        its payload does not fit its class, or its version is newer
    │   └── CorruptEvent            its bytes differ from those that were written
    ├── CursorMismatch              a cursor or checkpoint of another store, or of lost history
    ├── ProjectionError             a read model cannot be used, or cannot continue
    │   ├── UnknownProjection       no projection of that name
    │   │   └── EventNotParked      the event to retry or skip is not parked (or no longer)
    │   ├── UnknownAlert            no alert of that name, or no open episode of that key
    │   ├── ProjectionChanged       its code differs from the code that wrote its rows
    │   ├── ProjectionStopped       a handler failed, or it is paused
    │   ├── ProjectionDamaged       its stored rows or records differ from what was written
    │   ├── ProgressUnknown         its checkpoint in an earlier epoch of the store is not known here
    │   ├── ProjectionBehind        it did not reach the awaited position in time
    │   ├── LeaseLost               another runner took over the lease
    │   ├── LeaseHeld               another runner holds the lease
    │   ├── InlineMissing           an inline read model is registered, and this process does not have its code
    │   ├── InlineFailed            an inline read model failed on an event, so the append failed
    │   └── TargetUnavailable       the database of its rows cannot be used
    ├── ProcessError                a process cannot handle an event: one of its actions failed
    │   └── ProcessLoops            a chain of its own reactions is longer than allowed
    ├── DeliveryFailed              an effect was not delivered; it is retried
    ├── SourceUnavailable           a system outside, to be compared with, cannot be read
    ├── DataMissing                 a data set of an example is not on this machine
    ├── DataChanged                 the file of a data set is not the one that the figures are about
    ├── MigrationError              a migration from tables cannot go on; nothing was lost
    │   ├── MappingIncomplete       a table or a column that no entry of migration.toml maps, or is undecided
    │   ├── ValueNotExact           a column holds a value that its type in events cannot hold exactly
    │   └── CaptureStopped          a change was missed, or the source is not as it was: an alarm, nothing is merged
    ├── InvalidSignature            a webhook that was not signed with this secret, or too long ago
    ├── StoreUnavailable            the store cannot be used now
    │   ├── StoreNotFound           there is nothing at the address
    │   ├── NotAStore               there is something other than a store at the address
    │   ├── StoreVersionMismatch    its layout is newer than this eventfold, or needs an upgrade
    │   ├── StoreReadOnly           it cannot be written to
    │   ├── StoreFull               the disk or quota is full
    │   ├── StoreBusy               another writer or lock holder blocked it for longer than the timeout
    │   ├── StoreUnsafe             its settings would break a guarantee, so it was refused
    │   ├── StoreDamaged            the file is broken, or was replaced while open
    │   ├── ReplicaMismatch         a local copy is of another log, or of another epoch of it
    │   └── StoreClosed             it was closed, or opened before a fork
    ├── NotSupported                this engine cannot do that; the message names one that can
    └── MissingExtra                an optional dependency is not installed

Every message is two sentences: what happened, and what to do now. ``code`` is stable across releases; ``fields``
holds the facts by name, for programs. Knows: names of errors. Does not know: engines, the rest of the package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

_MISSING: Any = object()  # the default of `remedy` at run time, which is a required argument


def _signature(self: object, what: str, remedy: str, **fields: Any) -> None:
    """The signature of EventfoldError for `inspect`: it has no default for `remedy`."""


class EventfoldError(Exception):
    """The base class: catch it to catch every error that the library raises on purpose.

    ``code``   a stable, hyphenated identifier for programs (``append-conflict``).
    ``what``   the first sentence of the message: what happened.
    ``remedy`` the second sentence of the message: what to do now.
    ``fields`` the facts by name (positions, types, paths), safe to log.
    """

    code: ClassVar[str] = "error"

    what: str
    remedy: str
    fields: dict[str, Any]

    if TYPE_CHECKING:

        def __init__(self, what: str, remedy: str, **fields: Any) -> None: ...
    else:

        def __init__(self, what: str, remedy: str = _MISSING, **fields: Any) -> None:
            if remedy is _MISSING:  # a wrapper that checks the arguments would slow down every raise
                _refuse_missing_remedy(fields)
            super().__init__(f"{what} {remedy}")
            self.what = what
            self.remedy = remedy
            self.fields = fields

        __init__.__wrapped__ = _signature

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what pickle needs, so that errors can pass between the processes of a pool."""
        return (_rebuild, (type(self), self.what, self.remedy, self.fields))


def _rebuild(cls: type[EventfoldError], what: str, remedy: str, fields: dict[str, Any]) -> EventfoldError:
    return cls(what, remedy, **fields)


def _refuse_missing_remedy(fields: dict[str, Any]) -> NoReturn:
    """Raise TypeError; if `remedy` was given under its old name `now`, with what to write instead."""
    if "now" in fields:  # as core/renamed.py words it, which imports this module
        raise TypeError("EventfoldError(): the argument now= was renamed. Write remedy=….")
    raise TypeError("EventfoldError() is missing the argument remedy. Write remedy=….")


class InvalidInput(EventfoldError):
    """An argument cannot be used; nothing was written."""

    code = "invalid-input"


class InvalidEvent(InvalidInput):
    """An event that could not be read back, is too large, or has an invalid tag."""

    code = "invalid-event"


class InvalidQuery(InvalidInput):
    """A query that is not valid: an empty item, an invalid tag, an invalid bound."""

    code = "invalid-query"


class PositionBeyondHead(InvalidQuery):
    """A position greater than the log's head: a position of another store, or of history that was lost.

    Raised wherever a position is an argument: ``after=``, ``until=``, ``at=``, in a condition, for a cursor. Fields:
    ``position``, ``head``.
    """

    code = "position-beyond-head"


class InvalidState(InvalidInput):
    """A State class that cannot be folded, or an ``at=`` that is neither a position nor a moment."""

    code = "invalid-state"


class InvalidDecision(InvalidInput):
    """A decision returned something other than events."""

    code = "invalid-decision"


class InvalidProjection(InvalidInput):
    """A Projection class that is not valid: its handlers, options or fields cannot be used."""

    code = "invalid-projection"


class InvalidFilter(InvalidProjection):
    """A filter of rows or events, or an order, a limit or a cursor of rows, that cannot be used."""

    code = "invalid-filter"


class InvalidProcess(InvalidInput):
    """A Process class that cannot be run, or an action of its reaction that cannot be executed."""

    code = "invalid-process"


class InvalidUrl(InvalidInput):
    """The address names no engine."""

    code = "invalid-url"


class AppendConflict(EventfoldError):
    """Events that match the condition were appended after the position given with it.

    Fields: ``clause`` (the part of the condition that failed, numbered from 0: its index in ``unless=``, or that of
    the State among a decision's arguments), ``query`` (its query), ``after`` (the exclusive position of the condition),
    ``found`` (the position of the first matching event). If several parts fail, the first of them is reported.
    """

    code = "append-conflict"


class AppendUnconfirmed(EventfoldError):
    """It is unknown whether the append was written. Repeating it with the same event ids is safe."""

    code = "append-unconfirmed"


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Raise AttributeError; for a removed name, with what to write instead."""
        if name == "AppendCancelled":
            raise AttributeError(
                "eventfold.errors.AppendCancelled was removed: a cancelled append raises asyncio.CancelledError. Write "
                "`except asyncio.CancelledError`, raise it again, and learn the outcome by repeating the append with "
                "the same event ids, or the same key or command_id."
            )
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class EventIdReused(EventfoldError):
    """An event id that is already in the log was appended again with other content."""

    code = "event-id-reused"


class Unreadable(EventfoldError):
    """An event is in the log but cannot be read as requested. It is never skipped."""

    code = "unreadable"


class UnknownEventType(Unreadable):
    """No class for this event type is loaded in this process."""

    code = "unknown-event-type"


class UndecodableEvent(Unreadable):
    """The payload does not fit its class, or has a version that no class here reads.

    Fields: ``position``, ``type``, ``field``; ``version``, and ``newest`` if the version is above the newest known one.
    """

    code = "undecodable-event"


class CorruptEvent(Unreadable):
    """The stored bytes do not match the checksum that was written with them."""

    code = "corrupt-event"


class CursorMismatch(EventfoldError):
    """A cursor belongs to another store, or to history that this store no longer has."""

    code = "cursor-mismatch"


class ProjectionError(EventfoldError):
    """A read model cannot be used, or cannot continue. Field: ``projection``."""

    code = "projection"


class UnknownProjection(ProjectionError):
    """The target has no projection of that name."""

    code = "unknown-projection"


class UnknownAlert(ProjectionError):
    """The store has no alert of that name, or no open episode of that key. Fields: ``alert``, ``key``."""

    code = "unknown-alert"


class EventNotParked(UnknownProjection):
    """The event to retry or skip is not parked, or no longer. Fields: ``position``, ``state``."""

    code = "event-not-parked"


class ProjectionChanged(ProjectionError):
    """The code differs from the code that wrote the rows: rebuild, or accept the change."""

    code = "projection-changed"


class ProjectionStopped(ProjectionError):
    """The projection does not continue: a handler failed at ``position``, or an operator paused it."""

    code = "projection-stopped"


class ProjectionDamaged(ProjectionError):
    """The rows or records of a projection differ from what was written. Fields: ``table``, ``row``."""

    code = "projection-damaged"


class ProgressUnknown(ProjectionError):
    """No checkpoint of an effect, process or follower is known here, and the store had another epoch before.

    It is not started from the beginning, since it may have handled the events already. Field: ``epoch``.
    """

    code = "progress-unknown"


class ProjectionBehind(ProjectionError):
    """The projection did not reach the awaited position in time. Fields: ``position``, ``wanted``."""

    code = "projection-behind"


class LeaseLost(ProjectionError):
    """Another runner took over the lease; nothing of the current page was written."""

    code = "lease-lost"


class LeaseHeld(ProjectionError):
    """Another runner holds the lease of this name; only one may work at a time."""

    code = "lease-held"


class InlineMissing(ProjectionError):
    """An inline read model is registered, and this process does not have its code. Nothing was written."""

    code = "inline-missing"


class InlineFailed(ProjectionError):
    """An inline read model failed on an event of the append: nothing of the append was written.

    Fields: ``handler``, ``type``. ``__cause__`` is the error that its code raised.
    """

    code = "inline-failed"


class TargetUnavailable(ProjectionError):
    """The database of the rows is unreachable, read-only or full, or is not the expected one."""

    code = "target-unavailable"


class ProcessError(EventfoldError):
    """A process cannot handle an event. Fields: ``process``, ``key``, ``position``, ``command``, ``index``."""

    code = "process"


class ProcessLoops(ProcessError):
    """A process caused a chain of its own reactions that is longer than its ``max_chain`` allows."""

    code = "process-loops"


class DeliveryFailed(EventfoldError):
    """An effect was not delivered. Fields: ``status``, ``event_id``."""

    code = "delivery-failed"


class InvalidSignature(EventfoldError):
    """A webhook was not signed with this secret, was changed in transit, or is too old."""

    code = "invalid-signature"


class StoreUnavailable(EventfoldError):
    """The store cannot be used now."""

    code = "store-unavailable"


class StoreNotFound(StoreUnavailable):
    """There is nothing at that address."""

    code = "store-not-found"


class NotAStore(StoreUnavailable):
    """There is something at that address, but not an eventfold store."""

    code = "not-a-store"


class StoreVersionMismatch(StoreUnavailable):
    """The store's layout has another version than the one this eventfold writes."""

    code = "store-version-mismatch"


class StoreReadOnly(StoreUnavailable):
    """The store cannot be written to."""

    code = "store-read-only"


class StoreFull(StoreUnavailable):
    """The disk, or the quota, is full. Nothing of the append was written."""

    code = "store-full"


class StoreBusy(StoreUnavailable):
    """Another writer, or the holder of a lock, blocked the store for longer than the timeout. Nothing was written."""

    code = "store-busy"


class StoreUnsafe(StoreUnavailable):
    """The store was refused: its settings, or a second name of its file, would break durability or ordering."""

    code = "store-unsafe"


class StoreDamaged(StoreUnavailable):
    """The file is broken, or was replaced or unlinked while it was open."""

    code = "store-damaged"


class ReplicaMismatch(StoreUnavailable):
    """A local copy is of another log, or of another epoch of it, than the one that it is to be a copy of."""

    code = "replica-mismatch"


class StoreClosed(StoreUnavailable):
    """The store was closed, or was opened before a fork."""

    code = "store-closed"


class SourceUnavailable(EventfoldError):
    """A system outside that a store is compared with cannot be read. Fields: ``source``."""

    code = "source-unavailable"


class DataMissing(EventfoldError):
    """A data set of an example is not on this machine. Fields: ``data``, ``package``, ``digest``, ``command``."""

    code = "data-missing"


class DataChanged(EventfoldError):
    """The file of a data set differs from the one that the figures are about. Fields: ``data``, ``digest``, ``found``,
    ``path``, ``command``.
    """

    code = "data-changed"


class MigrationError(EventfoldError):
    """A migration from tables to events cannot go on; nothing was lost. Fields: ``source``."""

    code = "migration"


class MappingIncomplete(MigrationError):
    """A table or a column that no entry of migration.toml maps, or that is undecided. Fields: ``missing``."""

    code = "mapping-incomplete"


class ValueNotExact(MigrationError):
    """A column holds a value that its kind cannot hold exactly. Fields: ``table``, ``column``, ``key``."""

    code = "value-not-exact"


class CaptureStopped(MigrationError):
    """A change of the source was missed, or cannot be read. Fields: ``kind``, ``table``, ``key``."""

    code = "capture-stopped"


class NotSupported(EventfoldError):
    """This engine cannot do that. Fields: ``engine``, ``capability``."""

    code = "not-supported"


class MissingExtra(EventfoldError):
    """An optional dependency is not installed. Fields: ``extra``."""

    code = "missing-extra"
