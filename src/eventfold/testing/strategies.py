"""Hypothesis strategies from event and state classes, for tests with generated events.

    @hypothesis.given(events_of(MoneyDeposited, MoneyWithdrawn, account="a-1"))
    def test_the_balance_is_the_sum(events): ...

Knows: classes and their fields. Does not know: stores. Needs the package `hypothesis`: `eventfold[testing]`.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar, cast

from eventfold.core.event import declaration_of
from eventfold.core.tags import tag_fields
from eventfold.errors import MissingExtra

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise MissingExtra(
        f"Strategies need the package hypothesis, which cannot be imported ({error.name or error}).",
        'Install it: pip install "eventfold[testing]".',
        extra="testing",
    ) from error

_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=20)
_TAG = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="$"), min_size=1, max_size=12)
# Values that JSON and a column can store: no NaN, no infinities, no naive datetimes.
_OWN: dict[Any, st.SearchStrategy[Any]] = {
    str: _TEXT,
    int: st.integers(-(2**53), 2**53),
    float: st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: not (x == 0 and math.copysign(1, x) < 0)),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**9), max_value=10**9),
    datetime: st.datetimes(
        min_value=datetime(1970, 1, 2),
        max_value=datetime(2200, 1, 1),
        timezones=st.just(UTC),
    ),
}


def event_of(cls: type, **fixed: Any) -> st.SearchStrategy[Any]:
    """Events of one class; `fixed` gives fields a value, or a strategy of their own."""
    declaration_of(cls)  # refuses a class that is not an event
    return st.builds(cls, **_fields(cls, fixed))


def events_of(*classes: type, max_size: int = 30, **fixed: Any) -> st.SearchStrategy[list[Any]]:
    """Lists of events of some classes, in any order; `fixed` applies to the classes that have the field."""
    kinds = [event_of(cls, **{k: v for k, v in fixed.items() if k in typing.get_type_hints(cls)}) for cls in classes]
    return st.lists(st.one_of(kinds), max_size=max_size)


def _fields(cls: type, fixed: Mapping[str, Any]) -> dict[str, st.SearchStrategy[Any]]:
    hints = typing.get_type_hints(cls, include_extras=True)
    tags = tag_fields(hints)
    strategies: dict[str, st.SearchStrategy[Any]] = {}
    for name, hint in hints.items():
        if typing.get_origin(hint) is typing.ClassVar:
            continue
        if name in fixed:
            value = fixed[name]
            strategies[name] = value if isinstance(value, st.SearchStrategy) else st.just(value)
        else:
            strategies[name] = value_of(hint, tag=name in tags)
    return strategies


def value_of(hint: Any, *, tag: bool = False) -> st.SearchStrategy[Any]:
    """Values of a declared type that are equal when they are read back from the log."""
    if isinstance(hint, TypeVar):
        hint = hint.__bound__ or str
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return value_of(hint.__origin__, tag=tag)
    if tag and hint is str:
        return _TAG
    if hint in _OWN:
        return _OWN[hint]
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return st.lists(value_of(args[0], tag=tag), max_size=4).map(tuple)
    if origin in (list, set, frozenset):
        make = cast("Callable[[list[Any]], Any]", origin)
        return st.lists(value_of(args[0], tag=tag), max_size=4, unique=origin is not list).map(make)
    if origin is dict:
        return st.dictionaries(value_of(args[0]), value_of(args[1]), max_size=4)
    if origin is not None and type(None) in args:
        return st.one_of(st.none(), *[value_of(a, tag=tag) for a in args if a is not type(None)])
    if isinstance(hint, type) and hasattr(hint, "__struct_fields__"):
        return st.builds(hint, **_fields(hint, {}))
    return cast("st.SearchStrategy[Any]", st.from_type(hint))
