"""Every error the library raises, as one tree.

    EventfoldError
    ├── InvalidInput                what the caller gave cannot be used; nothing was written
    │   ├── InvalidEvent            an event that could not be read back, is too large, or has a bad tag
    │   ├── InvalidQuery            a query that means nothing
    │   │   └── PositionBeyondHead  a position that this store has not given
    │   ├── InvalidState            a State (or event) class that cannot be folded, or a bad ``at=``
    │   ├── InvalidDecision         a decision that returned something other than events
    │   ├── InvalidProjection       a Projection class that cannot be kept
    │   ├── InvalidProcess          a Process class, or what its reaction asked for, that means nothing
    │   └── InvalidUrl              an address that names no engine
    ├── AppendConflict              someone else wrote first: read again and decide again
    ├── AppendUnconfirmed           the answer was lost: repeat the identical append
    ├── EventIdReused               a known event id came back with other content
    ├── Unreadable                  an event is there but cannot be given as asked
    │   ├── UnknownEventType        no class of that name is known in this process
    │   ├── UndecodableEvent        its payload no longer fits its class
    │   └── CorruptEvent            its bytes are not the bytes that were written
    ├── CursorMismatch              progress kept against another store, or against lost history
    ├── ProjectionError             a read model cannot be used, or go on, as asked
    │   ├── UnknownProjection       no projection of that name
    │   │   └── EventNotParked      what is to be retried or skipped is not parked there (any more)
    │   ├── ProjectionChanged       its code is not the code its rows were made by
    │   ├── ProjectionStopped       a handler failed, or somebody paused it
    │   ├── ProjectionDamaged       what is kept about it is not as it was written
    │   ├── ProgressUnknown         how far it came in another epoch is not known here
    │   ├── ProjectionBehind        it did not get as far as was waited for
    │   ├── LeaseLost               another runner has taken the work over
    │   ├── LeaseHeld               somebody else is at it under this name
    │   ├── InlineMissing           one is kept within every append, and this process has not its code
    │   ├── InlineFailed            one that is kept within the append could not take it
    │   └── TargetUnavailable       the database its rows are kept in cannot be used
    ├── ProcessError                a process cannot take an event: what it asked for failed
    │   └── ProcessLoops            what it does makes it react again, and again
    ├── DeliveryFailed              an effect did not get through; it is tried again
    ├── InvalidSignature            a webhook that was not signed with this secret, or long ago
    ├── StoreUnavailable            the store cannot be used now
    │   ├── StoreNotFound           nothing is there
    │   ├── NotAStore               something else is there
    │   ├── StoreVersionMismatch    it was written by a newer (or needs an upgrade from an older) eventfold
    │   ├── StoreReadOnly           it cannot be written to
    │   ├── StoreFull               the disk or quota is full
    │   ├── StoreBusy               another writer held it for too long
    │   ├── StoreUnsafe             its settings would break a promise, so it was refused
    │   ├── StoreDamaged            the file itself is broken, or was replaced while open
    │   └── StoreClosed             it was closed, or opened before a fork
    ├── NotSupported                this engine cannot do that; the message names what can
    └── MissingExtra                an optional dependency is not installed

Knows: words. Every message is two sentences: what happened, what to do now. ``code`` is stable
across releases; ``fields`` holds the facts by name, for programs. Does not know: engines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar


class EventfoldError(Exception):
    """The root: catch this to catch everything the library raises on purpose.

    ``code``   a stable, hyphenated word for programs (``append-conflict``).
    ``what``   the first sentence: what happened.
    ``remedy`` the second sentence: what to do now.
    ``fields`` the facts by name (positions, types, paths), safe to log.
    """

    code: ClassVar[str] = "error"

    def __init__(self, what: str, remedy: str, **fields: Any) -> None:
        super().__init__(f"{what} {remedy}")
        self.what = what
        self.remedy = remedy
        self.fields: dict[str, Any] = fields

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep errors picklable, so that they survive process pools."""
        return (_rebuild, (type(self), self.what, self.remedy, self.fields))


def _rebuild(cls: type[EventfoldError], what: str, remedy: str, fields: dict[str, Any]) -> EventfoldError:
    return cls(what, remedy, **fields)


class InvalidInput(EventfoldError):
    """What the caller gave cannot be used; nothing was written."""

    code = "invalid-input"


class InvalidEvent(InvalidInput):
    """An event that could not be read back, is too large, or carries a bad tag."""

    code = "invalid-event"


class InvalidQuery(InvalidInput):
    """A query that means nothing: an empty item, a bad tag, a bad bound."""

    code = "invalid-query"


class PositionBeyondHead(InvalidQuery):
    """A position that the log has not reached: of another store, or of history that was lost.

    The same wherever a position is given: ``after=``, ``until=``, ``at=``, in a condition, for a cursor. Fields:
    ``position``, ``head``.
    """

    code = "position-beyond-head"


class InvalidState(InvalidInput):
    """A State that cannot be folded, or a moment (``at=``) that cannot be one."""

    code = "invalid-state"


class InvalidDecision(InvalidInput):
    """A decision returned something other than events."""

    code = "invalid-decision"


class InvalidProjection(InvalidInput):
    """A Projection class that cannot be kept: what it takes, asks or stores cannot be understood."""

    code = "invalid-projection"


class InvalidProcess(InvalidInput):
    """A Process class that cannot be run, or something its reaction asked for that cannot be done."""

    code = "invalid-process"


class InvalidUrl(InvalidInput):
    """The address names no engine."""

    code = "invalid-url"


class AppendConflict(EventfoldError):
    """Events matching the condition were written after the position the writer had looked up to.

    Fields: ``clause`` (which piece of the condition: its number, from 0, in ``unless=``, or that of the State among a
    decision's arguments), ``query`` (what it asks), ``after`` (position looked up to), ``found`` (position of the first
    such event). Where several pieces forbid the append, it is the first of them.
    """

    code = "append-conflict"


class AppendUnconfirmed(EventfoldError):
    """The append may or may not have been written. Repeating it with the same event ids is safe."""

    code = "append-unconfirmed"


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """Refuses a name that was removed, and says what to write. Raises AttributeError."""
        if name == "AppendCancelled":
            raise AttributeError(
                "eventfold.errors.AppendCancelled is no more: a cancelled append raises asyncio.CancelledError. Write "
                "`except asyncio.CancelledError`, raise it again, and learn the outcome by repeating the append with "
                "the same event ids, or the same key or command_id."
            )
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class EventIdReused(EventfoldError):
    """An event id that is already in the log came back with other content."""

    code = "event-id-reused"


class Unreadable(EventfoldError):
    """An event is in the log but cannot be given as asked. It is never skipped."""

    code = "unreadable"


class UnknownEventType(Unreadable):
    """No class of this event type is known in this process."""

    code = "unknown-event-type"


class UndecodableEvent(Unreadable):
    """The payload no longer fits its class. Fields: ``position``, ``type``, ``field``."""

    code = "undecodable-event"


class CorruptEvent(Unreadable):
    """The stored bytes do not have the checksum that was written with them."""

    code = "corrupt-event"


class CursorMismatch(EventfoldError):
    """A cursor belongs to another store, or to history this store no longer has."""

    code = "cursor-mismatch"


class ProjectionError(EventfoldError):
    """A read model cannot be used, or cannot go on, as asked. Field: ``projection``."""

    code = "projection"


class UnknownProjection(ProjectionError):
    """No projection of that name is kept there."""

    code = "unknown-projection"


class EventNotParked(UnknownProjection):
    """What is to be retried or skipped is not parked, or not any more. Fields: ``position``, ``state``."""

    code = "event-not-parked"


class ProjectionChanged(ProjectionError):
    """The code is not the code its rows were made by: rebuild, or accept the change."""

    code = "projection-changed"


class ProjectionStopped(ProjectionError):
    """It does not go on: a handler failed at ``position``, or somebody paused it."""

    code = "projection-stopped"


class ProjectionDamaged(ProjectionError):
    """What a target keeps about it is not as it was written. Fields: ``table``, ``row``."""

    code = "projection-damaged"


class ProgressUnknown(ProjectionError):
    """An effect, process or follower would begin in a store that had another epoch before. Field: ``epoch``."""

    code = "progress-unknown"


class ProjectionBehind(ProjectionError):
    """It did not reach the position that was waited for. Fields: ``position``, ``wanted``."""

    code = "projection-behind"


class LeaseLost(ProjectionError):
    """Another runner has taken the work over; nothing of the page in hand was written."""

    code = "lease-lost"


class LeaseHeld(ProjectionError):
    """Somebody else is at it just now, under this name; one at a time may."""

    code = "lease-held"


class InlineMissing(ProjectionError):
    """A read model is kept within every append, and this process has not its code. Nothing was written."""

    code = "inline-missing"


class InlineFailed(ProjectionError):
    """A read model that is kept within the append could not take an event of it: nothing of the append was written.

    Fields: ``handler``, ``type``. The cause is the error that its code raised.
    """

    code = "inline-failed"


class TargetUnavailable(ProjectionError):
    """The database its rows are kept in is away, read-only, full or not what was expected."""

    code = "target-unavailable"


class ProcessError(EventfoldError):
    """A process cannot take an event. Fields: ``process``, ``key``, ``position``, ``command``, ``index``."""

    code = "process"


class ProcessLoops(ProcessError):
    """What a process does makes it react again, more often than its max_chain allows."""

    code = "process-loops"


class DeliveryFailed(EventfoldError):
    """An effect did not get through. Fields: ``status``, ``event_id``."""

    code = "delivery-failed"


class InvalidSignature(EventfoldError):
    """A webhook was not signed with this secret, was changed on its way, or is too old."""

    code = "invalid-signature"


class StoreUnavailable(EventfoldError):
    """The store cannot be used now."""

    code = "store-unavailable"


class StoreNotFound(StoreUnavailable):
    """Nothing is at that address."""

    code = "store-not-found"


class NotAStore(StoreUnavailable):
    """Something is at that address, and it is no eventfold store."""

    code = "not-a-store"


class StoreVersionMismatch(StoreUnavailable):
    """The store's layout is of another version than this eventfold writes."""

    code = "store-version-mismatch"


class StoreReadOnly(StoreUnavailable):
    """The store cannot be written to."""

    code = "store-read-only"


class StoreFull(StoreUnavailable):
    """The disk, or the quota, is full. Nothing of the append was written."""

    code = "store-full"


class StoreBusy(StoreUnavailable):
    """Another writer held the store for longer than the timeout. Nothing was written."""

    code = "store-busy"


class StoreUnsafe(StoreUnavailable):
    """The store's settings, or a second name of its file, would break a promise (durability, order): it was refused."""

    code = "store-unsafe"


class StoreDamaged(StoreUnavailable):
    """The file is broken, or was replaced or unlinked while it was open."""

    code = "store-damaged"


class StoreClosed(StoreUnavailable):
    """The store was closed, or was opened before a fork."""

    code = "store-closed"


class NotSupported(EventfoldError):
    """This engine cannot do that. Fields: ``engine``, ``capability``."""

    code = "not-supported"


class MissingExtra(EventfoldError):
    """An optional dependency is not installed. Fields: ``extra``."""

    code = "missing-extra"
