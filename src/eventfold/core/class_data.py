"""Data about a user's class, stored as an attribute of that class, so that both are freed together.

A dictionary with classes as keys would never free the classes defined in functions and tests, nor the objects that
their methods refer to: a value that refers to its key keeps the key alive, even in a dictionary with weak keys.

Knows: classes, and the names in annotations. Does not know: which data, and what it is used for.
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
    """Return data of a class or object, without those of its base classes; None if there are none."""
    own: Any = getattr(owner, "__dict__", None)
    return None if own is None else own.get(what)


def set_class_data(owner: Any, what: str, value: Any) -> None:
    """Store data of a class, or of an object that has a `__dict__`; for other objects, do nothing."""
    if isinstance(owner, type):
        type.__setattr__(owner, what, value)
    elif hasattr(owner, "__dict__"):
        owner.__dict__[what] = value


def remember_visible_names(cls: type, scope: dict[str, Any]) -> None:
    """Store the local names that a class's annotations use, if the class is defined in a function; no other names."""
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
    """Return the local names stored for a class and its base classes, by which to resolve their annotations."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        found.update(get_class_data(base, NAMES) or {})
    return found


def _annotations_of(cls: type) -> Iterator[str]:
    """Iterate over the annotations of a class's fields and methods, as texts."""
    yield from map(_text, vars(cls).get("__annotations__", {}).values())
    for each in vars(cls).values():
        member: Any = getattr(each, "__func__", each)  # of a static method
        if isinstance(member, types.FunctionType):
            try:
                yield from map(_text, member.__annotations__.values())
            except NameError:  # evaluated lazily (Python 3.14), in a scope that has the names
                continue


def _text(hint: Any) -> str:
    return hint if isinstance(hint, str) else repr(hint)
