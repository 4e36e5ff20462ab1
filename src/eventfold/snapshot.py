"""Room: a folded state as bytes, and the fingerprint that says whether those bytes may still be believed.

A snapshot is never a source of truth: dropping all of them changes nothing but time. It is believed only while the
code that folded it is the same: the class's fields and methods, the functions and constants they use, the events'
fields, and the upcasters on the way. Knows: classes and byte code. Does not know: where snapshots are kept.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any, TypeVar

import msgspec

from eventfold.event import Event, declared, family_of
from eventfold.state import State, plan_of
from eventfold.upcast import step_from

S = TypeVar("S", bound=State)
_PLAIN = (str, bytes, int, float, bool, type(None), tuple, frozenset)
_known: dict[type, tuple[int, str]] = {}


class Snapshot(msgspec.Struct, frozen=True):
    """A state as it was folded through `position`, where the event `event_id` stands; `state` as JSON."""

    fingerprint: str
    position: int
    event_id: bytes
    state: bytes


def key_of(question: State) -> str | None:
    """What a snapshot is kept under: the class and the question; None where a question has no JSON form."""
    plan = plan_of(type(question))
    try:
        asked = msgspec.json.encode([getattr(question, name) for name in plan.question]).decode()
    except (TypeError, ValueError):
        return None
    return f"{type(question).__module__}.{type(question).__qualname__} {asked}"


def pack(state: State) -> bytes | None:
    """A state as bytes, or None where it would not come back equal (a field typed Any, a NaN)."""
    try:
        packed = msgspec.json.encode(state)
        return packed if msgspec.json.decode(packed, type=type(state)) == state else None
    except (TypeError, ValueError, OverflowError):
        return None


def unpack(cls: type[S], packed: bytes) -> S | None:
    """The state back, or None where the bytes are not such a state."""
    try:
        return msgspec.json.decode(packed, type=cls)
    except ValueError:  # msgspec's errors are ValueErrors; the snapshot is dropped, the log is folded
        return None


def fingerprint(cls: type[State]) -> str:
    """24 hex digits that change when what a State folds, or how, changes. Also with the version of Python."""
    plan = plan_of(cls)
    known = _known.get(cls)
    if known is not None and known[0] == plan.generation:
        return known[1]
    sha = hashlib.sha256(sys.version.encode())
    for part in _parts(cls, plan.events):
        sha.update(part.encode())
    found = sha.hexdigest()[:24]
    _known[cls] = (plan.generation, found)
    return found


def _parts(cls: type[State], events: tuple[type, ...]) -> Iterator[str]:
    seen: set[Any] = set()
    for base in cls.__mro__:
        if base is not State and issubclass(base, State):
            yield f"{base.__qualname__} {base.__struct_fields__} {base.__annotations__}"
            for name, member in sorted(vars(base).items()):
                yield from _code(name, member, seen)
    yield repr(cls.__struct_defaults__)
    for event in (e for e in events if e is not Event):
        for each in family_of(event):
            name = declared(each)
            defaults = getattr(each, "__struct_defaults__", ())
            yield f"{name.names} {name.version} {inspect.get_annotations(each)} {defaults}"
            step = step_from(each)
            if step is not None:
                yield from _code("upcast", step.function, seen)


def _code(name: str, member: Any, seen: set[Any]) -> Iterator[str]:
    function = getattr(member, "__func__", getattr(member, "fget", member))
    if not isinstance(function, FunctionType) or function in seen:
        return
    seen.add(function)
    yield name
    yield from _of(function.__code__)
    for used in _names(function.__code__):
        value = function.__globals__.get(used)
        if isinstance(value, _PLAIN):
            yield f"{used}={value!r}"
        elif isinstance(value, FunctionType):
            yield from _code(used, value, seen)


def _of(code: CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _of(constant)
        else:
            yield repr(constant)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
