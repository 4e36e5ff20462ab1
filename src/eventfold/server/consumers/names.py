"""The name under which a caller's consumer is stored, and which consumers a caller sees.

A consumer of a caller that is narrowed to tags or types is stored under its name with a suffix made of the narrowing.
So credentials of the same part of the store share it, and no other credential learns that it exists.
Knows: callers, names. Does not know: storage.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from eventfold.errors import EventfoldError, InvalidInput
from eventfold.server.consumers.definition import check_consumer_name
from eventfold.server.scopes import Caller

SUFFIX = "-x"
DIGITS = 10


def stored_name(caller: Caller, name: str) -> str:
    """Return the name of a consumer in the store. Raises InvalidInput on a name that it cannot have."""
    check_consumer_name(name)
    suffix = _suffix(caller)
    if not suffix:
        return name
    if len(name) + len(suffix) > 40:
        raise InvalidInput(
            f"The name {name} has more than {40 - len(suffix)} characters.", "Give the consumer a shorter name."
        )
    return name + suffix


def shown_name(caller: Caller, stored: str) -> str | None:
    """Return the name of a stored consumer for a caller; None if the caller does not see it."""
    suffix = _suffix(caller)
    if not suffix:
        return stored
    return stored.removesuffix(suffix) if stored.endswith(suffix) else None


def named_for(caller: Caller, name: str, error: EventfoldError) -> EventfoldError:
    """Return an error about a stored consumer with the name that the caller gave it."""
    stored = name + _suffix(caller)
    if stored == name:
        return error
    fields = {
        key: value.replace(stored, name) if isinstance(value, str) else value for key, value in error.fields.items()
    }
    return type(error)(error.what.replace(stored, name), error.remedy.replace(stored, name), **fields)


def _suffix(caller: Caller) -> str:
    if not caller.is_narrowed:
        return ""
    part = (sorted(caller.tags), sorted(caller.tag_prefixes), sorted(caller.types))
    return SUFFIX + blake2b(msgspec.json.encode(part), digest_size=DIGITS // 2).hexdigest()
