"""Inline read models as an engine sees them: read models that are folded within the transaction of every append.

Knows: names, fingerprints, event types, the messages of refusals. Does not know: how events are folded, who registers a
read model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Flag, auto
from typing import Any, Protocol

import msgspec

from eventfold.core.envelope import StoredEvent
from eventfold.core.query import Query
from eventfold.errors import EventfoldError, InlineMissing, NotSupported
from eventfold.ports.messages import Page


class AppendMode(Flag):
    """Additional steps of an engine when it repeats an append that failed and was rolled back.

    The first attempt is OPTIMISTIC, which costs least. Each failure adds the flag that belongs to it; the same failure
    with its flag set is final.
    """

    OPTIMISTIC = 0
    CHECK_IDS = auto()  #   after an event id that is stored already: look up every id before writing
    WRITE_EACH = auto()  #  after a row that the database rejects: write rows request by request, to find the request
    REREAD_ROWS = auto()  # after outdated rows in the projector's cache, which it has discarded since


class InlineRegistration(msgspec.Struct, frozen=True):
    """A read model that is folded within every append: a process without its `code` may not append events of `types`.

    `code` is the fingerprint of the read model's class. `incarnation` is a text that the projector chose at
    registration: if it differs, the rows in the projector's cache are not the rows of this registration.
    """

    name: str
    code: str
    types: tuple[str, ...]
    incarnation: str


class StaleRows(Exception):
    """The rows that events were folded into have changed since they were read: fold again, in a new transaction."""


class InlineTransaction(Protocol):
    """The inline read models in one transaction of an append. `types`: the event types that they fold."""

    types: frozenset[str]

    def fold(self, events: Sequence[StoredEvent], at_once: bool = False) -> EventfoldError | None:
        """Fold the events of one request. Returns the error if that fails, and undoes everything folded for them.

        `at_once`: write the rows now, so that a row that the database rejects belongs to this request. Raises
        InlineFailed if it is unknown which request of the transaction failed: then the engine rolls back and repeats
        the transaction with `at_once` (see AppendMode.WRITE_EACH).
        """
        ...

    def write(self) -> None:
        """Write the rows and checkpoints of all folded events. Raises StaleRows, and InlineFailed as `fold` does."""
        ...

    def end(self, head: int | None) -> None:
        """Report the end of the transaction: `head` is the position of the last event after the COMMIT; None: rollback.

        Called once, after every transaction, so that rows in memory are discarded if they were not committed.
        """
        ...


class InlineProjector(Protocol):
    """Folds read models within appends. An engine calls it, and knows nothing else about read models."""

    @property
    def codes(self) -> Mapping[str, str]:
        """The fingerprints of the read models whose code this process has, by name."""
        ...

    def begin(self, connection: Any, head: int, inlined: Sequence[InlineRegistration]) -> InlineTransaction:
        """Begin within a transaction of `connection` that holds the writers' lock.

        `head`: the position of the last event before this transaction. `inlined`: the registrations in the store.
        """
        ...

    def forget(self) -> None:
        """Discard all rows in memory: an exception ended a transaction before `InlineTransaction.end` was called."""
        ...


class ExclusiveTransaction(Protocol):
    """A transaction during which no process appends. It is committed or rolled back as a whole."""

    @property
    def connection(self) -> Any:
        """The database driver's connection."""
        ...

    @property
    def head(self) -> int:
        """The position of the last event; 0 if the log is empty."""
        ...

    @property
    def registrations(self) -> Sequence[InlineRegistration]:
        """The read models that every append folds."""
        ...

    async def read(self, query: Query, after: int) -> Page:
        """Return the next page of matching events; `after` is exclusive."""
        ...

    async def register(self, inlined: InlineRegistration) -> None:
        """Register a read model, in place of one of the same name.

        From the commit on every append folds it, or is refused.
        """
        ...

    async def unregister(self, name: str) -> None:
        """Remove a registration: from the commit on no append folds the read model."""
        ...


def missing_code(
    inlined: Sequence[InlineRegistration], codes: Mapping[str, str], types: Iterable[str]
) -> InlineMissing | None:
    """Return why a process with these `codes` (by name) may not append events of these types; None if it may."""
    for each in inlined:
        code = codes.get(each.name)
        if code == each.code:
            continue
        type = next((name for name in types if name in each.types), None)
        if type is not None:
            return _missing_code_error(each, code, type)
    return None


def _missing_code_error(inlined: InlineRegistration, code: str | None, type: str) -> InlineMissing:
    name = inlined.name
    if code is None:
        what = f"{name} is folded within every append of {type}, and this process does not have its code."
        remedy = f"Open the store with its class (inline=[…]), or remove it: eventfold projections remove STORE {name}."
    else:
        what = f"{name} is folded within every append of {type} by other code ({inlined.code}) than here ({code})."
        remedy = "Nothing was written: start this process again with the code that is live now."
    return InlineMissing(what, remedy, projection=name, type=type, code=code, live=inlined.code)


def import_refused(inlined: Sequence[str], engine: str) -> NotSupported:
    """The error of an import into a store with inline read models: an import does not fold them."""
    return NotSupported(
        f"{', '.join(inlined)} would not be folded from events that are copied into this store.",
        f"Remove it first (eventfold projections remove STORE {inlined[0]}), copy, and register it again afterwards.",
        engine=engine,
        capability="inline read models of a copy",
    )


def joined_append_refused(name: str, type: str, engine: str) -> NotSupported:
    """The error of an append in a user's transaction: positions are assigned at its COMMIT, too late to fold them."""
    return NotSupported(
        f"An append of {type} cannot join a transaction of yours: {name} is folded within every append of it.",
        f"Append it in a transaction of its own, or remove {name}: eventfold projections remove STORE {name}.",
        engine=engine,
        capability="joined appends of inline read models",
    )
