"""Read models that every append keeps up, as an engine sees them: names, and who may append without them.

Knows: names, fingerprints, event types; the words of a refusal. Does not know: how anything is folded, who enrols one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Flag, auto

import msgspec

from eventfold.errors import InlineMissing, NotSupported


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
        now = f"Open the store with its class (inline=[…]), or give it up: eventfold projections forget {name}."
    else:
        what = f"{name} is kept within every append of {type}, by other code ({inlined.code}) than this one's ({code})."
        now = "Nothing was written: start this process again with the code that is live now."
    return InlineMissing(what, now, projection=name, type=type, code=code, live=inlined.code)


def import_refused(inlined: Sequence[str], engine: str) -> NotSupported:
    """Events of another log cannot be taken over where read models are kept within appends."""
    return NotSupported(
        f"{', '.join(inlined)} would not be folded from events that are copied into this store.",
        f"Give it up first (eventfold projections forget {inlined[0]}), copy, and name it again afterwards.",
        engine=engine,
        capability="inline read models of a copy",
    )


def joined_append_refused(name: str, type: str, engine: str) -> NotSupported:
    """An append that joins a transaction of its user's has its positions only at the COMMIT: too late to fold it."""
    return NotSupported(
        f"An append of {type} cannot join a transaction of yours: {name} is kept within every append of it.",
        f"Append it in a transaction of its own, or give {name} up: eventfold projections forget {name}.",
        engine=engine,
        capability="joined appends of inline read models",
    )
