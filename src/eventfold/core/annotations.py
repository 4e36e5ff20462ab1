"""Reads the annotations, class keywords and names of user classes: states, read models, processes.

Knows: type hints, event classes, class keywords. Does not know: what they are used for, the log.
"""

from __future__ import annotations

import re
import types
import typing
import unicodedata
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec

from eventfold.core.class_data import get_class_data, set_class_data
from eventfold.core.event import (
    Event,
    Recorded,
    declarations_version,
    hint_for_generic,
    is_event_class,
    without_parameters,
)
from eventfold.errors import InvalidInput

T = TypeVar("T")
Owner = TypeVar("Owner")
Options = TypeVar("Options", bound=msgspec.Struct)
_OPTIONS = "__eventfold_options__"


class EventHint(NamedTuple):
    """The event classes of an annotation; `batch`: whether it is a list; `recorded`: whether it is `Recorded[…]`."""

    classes: tuple[type, ...]
    batch: bool = False
    recorded: bool = False


def event_classes(
    hint: Any, refuse: Callable[[str, str | None], InvalidInput], *, recorded: bool = False, batch: bool = False
) -> EventHint:
    """Return the event classes of an annotation: one, a union, or an alias of either; `Event` itself means any.

    `recorded` allows `Recorded[…]`, `batch` a list. Raises `refuse(what, remedy)`: `what` follows the name of the
    function in the message; `remedy` is None if there is no special one.
    """
    is_list = batch and get_origin(hint) is list
    if is_list:
        (hint,) = get_args(hint)
    found: list[Any] = []
    is_recorded = False
    for each in alternatives(hint):
        if recorded and get_origin(each) is Recorded:
            is_recorded = True
            found.extend(alternatives(get_args(each)[0]))
        else:
            found.append(each)
    from eventfold.core.upcast import current_classes  # imported here: upcasters read annotations by this module

    for each in found:
        if not (isinstance(each, type) and (each is Event or is_event_class(each))):
            silent = hint in (None, Any, types.NoneType)
            what = (
                "does not name the event classes it takes" if silent else f"takes {each!r}, which is not an event class"
            )
            raise refuse(what, hint_for_generic(each))
        newer = current_classes(each)
        if newer != (each,):
            names = " and ".join(dict.fromkeys(cls.__qualname__ for cls in newer))
            raise refuse(
                f"takes {each.__qualname__}, whose events are upcast to {names} and never reach it",
                f"Name {names} instead.",
            )
    return EventHint(tuple(found), is_list, is_recorded)


def alternatives(hint: Any) -> list[Any]:
    """Return the types of a union, also within `Annotated` and type aliases; for any other hint, the hint itself."""
    if get_origin(hint) in (Union, types.UnionType):
        return [each for arg in get_args(hint) for each in alternatives(arg)]
    if get_origin(hint) is typing.Annotated:
        return alternatives(hint.__origin__)
    if isinstance(hint, getattr(typing, "TypeAliasType", ())):
        return alternatives(hint.__value__)
    return [without_parameters(hint)]


@contextmanager
def resolving_annotations(name: str, error: type[InvalidInput]) -> Generator[None]:
    """Raise `error` if a name in the annotations of `name` cannot be resolved inside the block."""
    try:
        yield
    except NameError as found:
        raise error(
            f"The annotations of {name} cannot be resolved: {found}.",
            "Define the classes it names in the same module or function, above it.",
        ) from found


def take_options(keywords: dict[str, Any], options: type[msgspec.Struct]) -> dict[str, Any]:
    """Remove the class keywords that are fields of `options` from `keywords`, and return them."""
    return {key: keywords.pop(key) for key in tuple(keywords) if key in options.__struct_fields__}


def read_options(cls: type, options: type[Options], given: dict[str, Any], error: type[InvalidInput]) -> Options:
    """Return class keywords as a struct of options. Raises `error` on unknown keywords and invalid values."""
    try:
        return msgspec.convert(given, options)
    except msgspec.ValidationError as found:
        raise error(
            f"The keywords of {cls.__qualname__} cannot be used: {found}.",
            "See the documentation of its base class for their meaning.",
        ) from None


def set_class_options(cls: type, options: msgspec.Struct) -> None:
    """Store the options of a class."""
    set_class_data(cls, _OPTIONS, options)


def class_options(cls: type, options: type[Options]) -> Options:
    """Return the options of a class's own keywords, without those of its base classes."""
    return get_class_data(cls, _OPTIONS) or options()


def component_name(cls: type) -> str:
    """Return the name of a class in snake_case, the default name of a read model or process."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()


def check_component_name(
    name: str, kind: str, error: type[InvalidInput], *, max_bytes: int, ascii_only: bool = False
) -> str:
    """Return a name if every table, topic and lease can have it: small letters, digits and single underscores.

    Raises `error`; `kind` is the kind of component, with its article ("a projection").
    """
    fits = name.isidentifier() and "__" not in name and len(name.encode("utf-8", "replace")) <= max_bytes
    same = name == name.lower() and unicodedata.is_normalized("NFKC", name)
    if fits and same and name[0].isalpha() and (name.isascii() or not ascii_only):
        return name
    raise error(
        f"{name!r} cannot be the name of {kind}.",
        f"Use small letters{' (a to z)' if ascii_only else ''}, digits and single underscores, a letter first, "
        f"{max_bytes} bytes at most: name=….",
    )


class _Compiled(NamedTuple):
    definition: Any
    declarations_version: int


def compiled(owner: Owner, key: str, compile: Callable[[Owner], T]) -> T:
    """Return the definition of a class or object, cached on it; recompiled if event classes were declared since."""
    kept: _Compiled | None = get_class_data(owner, key)
    if kept is None or kept.declarations_version != declarations_version():
        version = declarations_version()
        kept = _Compiled(compile(owner), version)
        set_class_data(owner, key, kept)
    return kept.definition
