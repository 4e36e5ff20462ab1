"""Reads the parameters of the functions of user classes that take an event, and perhaps its envelope.

Knows: signatures. Does not know: annotations (see annotations.py), who calls the functions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from eventfold.errors import InvalidInput

_PLACED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
_OF_ANY_NUMBER = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def takes_envelope(function: Callable[..., Any], name: str, error: type[InvalidInput], *, method: bool = True) -> bool:
    """Whether a function has a second parameter, for the Recorded: one without a default, or with this name.

    `method`: its first parameter is `self`. Raises `error` if it takes no event, or more than the two, or if calling it
    would return a coroutine or a generator.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # such as attrgetter, which takes one value
        return False
    own = list(signature.parameters.values())
    form = f"def {name.rpartition('.')[2]}({'self, ' if method else ''}event: …, recorded: ef.Recorded)"
    if _awaits(function):
        raise error(f"{name} is a coroutine function or a generator: it would not run.", f"Write {form}.")
    first = own[:1] if method and own[:1] and own[0].kind not in _OF_ANY_NUMBER else []
    given = own[len(first) :]
    if not given or given[0].kind not in _PLACED:
        raise error(f"{name} takes no event: {signature}.", f"Write {form}; the second parameter may be left out.")
    more = _beyond_the_event(given)
    if len(more) > 1 or any(each.kind is each.KEYWORD_ONLY for each in more):
        raise error(f"{name} takes more than an event and its envelope: {signature}.", f"Write {form}.")
    return bool(more)


def _beyond_the_event(given: Sequence[inspect.Parameter]) -> list[inspect.Parameter]:
    more = [each for each in given[1:] if each.kind not in _OF_ANY_NUMBER]
    return [each for each in more if each.default is each.empty or each.name == "recorded"]


def _awaits(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function)
