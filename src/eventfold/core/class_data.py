"""What the library knows of a user's class, kept on the class itself, so that both are freed together.

A dictionary of the library's with classes as keys would keep the classes of every function and test for ever, with all
that their methods enclose: a value that leads back to its key keeps it alive, weak or not.

Knows: classes, and the names that annotations mention. Does not know: what is kept, and why.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from typing import Any

NAMES = "__eventfold_names__"
_WORD = re.compile(r"[^\W\d]\w*")
_HINTS = (types.GenericAlias, types.UnionType, str)


def get_class_data(owner: Any, what: str) -> Any:
    """What was kept of a class, or of an object, itself: not of a class that it is derived from. None if nothing."""
    own: Any = getattr(owner, "__dict__", None)
    return None if own is None else own.get(what)


def set_class_data(owner: Any, what: str, value: Any) -> None:
    """Keep something of a class, or of an object that has room for it: others have it computed again each time."""
    if isinstance(owner, type):
        type.__setattr__(owner, what, value)
    elif hasattr(owner, "__dict__"):
        owner.__dict__[what] = value


def remember_visible_names(cls: type, scope: dict[str, Any]) -> None:
    """Keep those names of the function that a class is written in which its annotations mention, and no others."""
    if "<locals>" not in cls.__qualname__:
        return
    kept: dict[str, Any] = {}
    ahead = [text for base in cls.__mro__[:-1] for text in _annotations_of(base)]
    while ahead:
        for name in set(_WORD.findall(ahead.pop())) & scope.keys() - kept.keys():
            value = kept[name] = scope[name]
            if isinstance(value, _HINTS) or type(value).__module__ == "typing":
                ahead.append(str(value))  # Alias = list["Entry"]
    set_class_data(cls, NAMES, kept)


def visible_names(cls: type) -> dict[str, Any]:
    """The names of functions that a class and those it is derived from were written in, for their annotations."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        found.update(get_class_data(base, NAMES) or {})
    return found


def _annotations_of(cls: type) -> Iterator[str]:
    """The annotations of a class's fields and methods, as texts."""
    yield from map(_text, vars(cls).get("__annotations__", {}).values())
    for each in vars(cls).values():
        member: Any = getattr(each, "__func__", each)  # of a static method
        if isinstance(member, types.FunctionType):
            try:
                yield from map(_text, member.__annotations__.values())
            except NameError:  # evaluated late (Python 3.14): its own scope knows the names
                continue


def _text(hint: Any) -> str:
    return hint if isinstance(hint, str) else repr(hint)
