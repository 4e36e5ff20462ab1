"""Values as text, from a command line or a URL, as the question of a State: its fields, converted to their types.

Knows: the fields of States. Does not know: where the text comes from, stores.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any, get_args, get_origin

import msgspec

from eventfold.core.state import State, state_definition_of
from eventfold.core.user_code import user_code_errors
from eventfold.errors import InvalidState


def question_of(cls: type[State], given: Mapping[str, Any], usage: str) -> State:
    """Return the State whose question has these values: texts (a list of them for several), or values of JSON.

    `usage` is the second sentence of errors: how the fields are written. Raises InvalidState on an unknown or a missing
    field, and on a value that its type does not accept.
    """
    fields = state_definition_of(cls).question
    if unknown := [name for name in given if name not in fields]:
        raise InvalidState(f"{cls.__name__} has no key {unknown[0]}.", usage, field=unknown[0])
    if missing := [name for name in fields if name not in given]:
        raise InvalidState(f"{cls.__name__} also needs {', '.join(missing)}.", usage, missing=missing)
    hints = typing.get_type_hints(cls, include_extras=True)
    with user_code_errors(f"Making {cls.__name__}"):
        return cls(**{name: _convert(cls, name, value, hints[name], usage) for name, value in given.items()})


def _convert(cls: type[State], name: str, value: Any, hint: Any, usage: str) -> Any:
    if isinstance(value, str) and takes_several(hint):
        value = [value]
    try:
        return msgspec.convert(value, type=hint, strict=False)
    except (msgspec.ValidationError, TypeError) as error:
        raise InvalidState(f"{value!r} is not a valid {name} of {cls.__name__}: {error}.", usage, field=name) from error


def takes_several(hint: Any) -> bool:
    """Whether a field of this type takes several values: a tuple, list or set."""
    while get_origin(hint) is typing.Annotated:
        hint = get_args(hint)[0]
    return (get_origin(hint) or hint) in (tuple, list, set, frozenset)
