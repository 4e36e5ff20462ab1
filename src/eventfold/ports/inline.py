"""Read models that every append keeps up, as an engine sees them: names, and who may append without them.

Knows: names, fingerprints, event types; the words of a refusal. Does not know: how anything is folded, who enrols one.
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
    """What an engine does in addition when it repeats an append that failed and was rolled back.

    It begins with OPTIMISTIC, which costs least, and adds the flag that belongs to the failure. The same failure with
    its flag set is final.
    """

    OPTIMISTIC = 0
    CHECK_IDS = auto()  #   after a stored event id: look up every id before writing
    WRITE_EACH = auto()  #  after a row that the database rejects: write rows request by request, to find whose it is
    REREAD_ROWS = auto()  # after rows that were outdated in the projector's cache, which it has discarded since


class InlineRegistration(msgspec.Struct, frozen=True):
    """A read model that is folded within every append: whoever lacks its `code` writes no event of its `types`.

    `code` is a fingerprint. `ticket` is the folder's own: another says that rows it remembers are not those now.
    """

    name: str
    code: str
    types: tuple[str, ...]
    incarnation: str


class StaleRows(Exception):
    """What was folded was folded from rows that are no longer those: fold it again, in a new transaction."""


class InlineTransaction(Protocol):
    """Read models in one transaction of an append. `types`: the events they take."""

    types: frozenset[str]

    def fold(self, events: Sequence[StoredEvent], at_once: bool = False) -> EventfoldError | None:
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
    def registrations(self) -> Sequence[InlineRegistration]:
        """Those that are enrolled."""
        ...

    async def read(self, query: Query, after: int) -> Page:
        """The next matching events."""
        ...

    async def register(self, inlined: InlineRegistration) -> None:
        """From this commit on every append folds it, or is refused. In place of one of the same name."""
        ...

    async def unregister(self, name: str) -> None:
        """From this commit on no append folds it."""
        ...


def missing_code(
    inlined: Sequence[InlineRegistration], codes: Mapping[str, str], types: Iterable[str]
) -> InlineMissing | None:
    """Why events of these types may not be appended by whoever has these codes, by name; None if they may."""
    for each in inlined:
        code = codes.get(each.name)
        if code == each.code:
            continue
        taken = next((name for name in types if name in each.types), None)
        if taken is not None:
            return _missing_code_error(each, code, taken)
    return None


def _missing_code_error(inlined: InlineRegistration, code: str | None, type: str) -> InlineMissing:
    name = inlined.name
    if code is None:
        what = f"{name} is kept within every append of {type}, and this process has not its code."
        remedy = f"Open the store with its class (inline=[…]), or give it up: eventfold projections remove {name}."
    else:
        what = f"{name} is kept within every append of {type}, by other code ({inlined.code}) than this one's ({code})."
        remedy = "Nothing was written: start this process again with the code that is live now."
    return InlineMissing(what, remedy, projection=name, type=type, code=code, live=inlined.code)


def import_refused(inlined: Sequence[str], engine: str) -> NotSupported:
    """Events of another log cannot be taken over where read models are kept within appends."""
    return NotSupported(
        f"{', '.join(inlined)} would not be folded from events that are copied into this store.",
        f"Give it up first (eventfold projections remove {inlined[0]}), copy, and name it again afterwards.",
        engine=engine,
        capability="inline read models of a copy",
    )


def joined_append_refused(name: str, type: str, engine: str) -> NotSupported:
    """An append that joins a transaction of its user's has its positions only at the COMMIT: too late to fold it."""
    return NotSupported(
        f"An append of {type} cannot join a transaction of yours: {name} is kept within every append of it.",
        f"Append it in a transaction of its own, or give {name} up: eventfold projections remove {name}.",
        engine=engine,
        capability="joined appends of inline read models",
    )
