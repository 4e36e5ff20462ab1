"""Room: the fingerprint of a fold: hex digits that change whenever a State would fold, or mean, something else.

What counts: its fields and methods, those of the classes it is made of, the events' fields, the upcasters on the way,
and the functions, constants and value objects that any of these use, wherever they are written. Of packages that are
nobody's rules (Python's own, installed ones) only the name and version. Knows: classes and byte code. Does not know:
what is kept under a fingerprint.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
import types
import typing
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from types import CodeType, FunctionType, ModuleType
from typing import Any, cast
from uuid import UUID

from eventfold.event import Event, declared, family_of
from eventfold.state import State, plan_of
from eventfold.upcast import step_from

_PLAIN = (str, bytes, int, float, complex, bool, type(None), type(...), Decimal, UUID, date, datetime, time, timedelta)
_OURS = frozenset(("eventfold", "msgspec"))
_known: dict[type, tuple[int, str]] = {}


def fingerprint(cls: type[State]) -> str:
    """24 hex digits that change when what a State folds, or how, changes. Also with the version of Python."""
    plan = plan_of(cls)
    known = _known.get(cls)
    if known is not None and known[0] == plan.generation:
        return known[1]
    sha = hashlib.sha256(sys.version.encode())
    for part in _Walk({_top(each.__module__) for each in (cls, *plan.events)}).fold(cls, plan.events):
        sha.update(part.encode(errors="backslashreplace") + b"\0")
    found = sha.hexdigest()[:24]
    _known[cls] = (plan.generation, found)
    return found


def _top(module: str | None) -> str:
    return (module or "").partition(".")[0]


class _Walk:
    """One walk over all that a fold uses. `own`: the packages whose code is rules, installed or not."""

    def __init__(self, own: set[str]) -> None:
        self._own = own - _OURS
        self._seen: dict[int, Any] = {}  # kept, so that no id is used twice
        self._within: list[int] = []

    def fold(self, cls: type[State], events: tuple[type, ...]) -> Iterator[str]:
        """Everything about a State and its events."""
        yield from self.value(cls)
        for event in (e for e in events if e is not Event):
            for each in family_of(event):
                name, step = declared(each), step_from(each)
                yield f"{name.names} {name.version}"
                yield from self.value(each)
                if step is not None:
                    yield from self.value(step.function)

    def value(self, value: Any) -> Iterator[str]:
        """Whatever a name may stand for."""
        if isinstance(value, Enum):
            yield f"{type(value).__qualname__}.{value.name}={value.value!r}"
        elif isinstance(value, _PLAIN):
            yield repr(value)
        elif isinstance(value, CodeType):
            yield from self._code(value)
        elif isinstance(value, (list, tuple, set, frozenset, dict)):
            if id(cast(object, value)) not in self._within:  # one that holds itself
                self._within.append(id(cast(object, value)))
                yield from self._collection(value)
                self._within.pop()
        elif id(value) not in self._seen:
            self._seen[id(value)] = value
            yield from self._once(value)

    def _collection(self, value: Any) -> Iterator[str]:
        yield f"{type(value).__qualname__} {len(value)}"
        if isinstance(value, (set, frozenset)):  # their order differs between processes
            yield repr(sorted(" ".join(self.value(each)) for each in cast("set[Any]", value)))
            return
        for each in cast("list[Any]", value):
            yield from self.value(each)
            if isinstance(value, dict):
                yield from self.value(cast("dict[Any, Any]", value)[each])

    def _once(self, value: Any) -> Iterator[str]:
        if isinstance(value, FunctionType):
            yield from self._function(value)
        elif isinstance(value, type):
            yield from self._class(value)
        elif isinstance(value, ModuleType):
            yield value.__name__
        else:
            yield from self._object(value)

    def _object(self, value: Any) -> Iterator[str]:
        """A method, a wrapped function, a property, a value object."""
        yield type(value).__qualname__
        found = False
        for inner in ("__func__", "__wrapped__", "wrapped", "fget", "fset", "func", "args", "keywords", "factory"):
            part = getattr(value, inner, None)
            if part is not None and not (inner == "args" and isinstance(value, BaseException)):
                found = True
                yield from self.value(part)
        if found:
            return
        cls = cast("type[Any]", type(value))
        if self._is_rule(cls):
            yield from self.value(cls)
            for name in _fields(cls):
                yield name
                yield from self.value(getattr(value, name, None))

    def _function(self, function: FunctionType) -> Iterator[str]:
        yield f"{function.__module__}.{function.__qualname__}"
        if not self._is_rule(function):
            yield _version(function)
            return
        code = function.__code__
        yield from self._code(code)
        registered = dict(getattr(function, "registry", {}))  # of a singledispatch
        for given in (function.__defaults__, function.__kwdefaults__, registered):
            yield from self.value(given)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
            try:
                inside = cell.cell_contents
            except ValueError:  # a name that was never bound
                continue
            yield name
            yield from self.value(inside)
        used = list(dict.fromkeys(_names(code)))
        for name in used:
            if name in function.__globals__:
                yield name
                yield from self._global(function.__globals__[name], used)

    def _global(self, value: Any, used: Iterable[str]) -> Iterator[str]:
        yield from self.value(value)
        if isinstance(value, ModuleType) and self._is_rule(value):  # module.function(…): what is named of it
            for name in used:
                if name in vars(value):
                    yield name
                    yield from self.value(vars(value)[name])

    def _code(self, code: CodeType) -> Iterator[str]:
        # The names belong to it: byte code says `attribute number 3`.
        yield f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_exceptiontable.hex()}"
        for constant in code.co_consts:
            yield from self.value(constant)

    def _class(self, cls: type[Any]) -> Iterator[str]:
        yield f"{cls.__module__}.{cls.__qualname__}"
        if not self._is_rule(cls):
            yield _version(cls)
            return
        if issubclass(cls, Enum):
            yield repr([(each.name, each.value) for each in cast("Any", cls)])
        yield repr((getattr(cls, "__struct_encode_fields__", ()), getattr(cls, "__struct_fields__", ())))
        yield from self.value(getattr(cls, "__struct_defaults__", ()))
        for base in cls.__mro__:
            if self._is_rule(base):
                yield base.__qualname__
                yield repr(sorted(inspect.get_annotations(base).items(), key=lambda pair: pair[0]))
                for name, member in sorted(vars(base).items()):
                    if name == "__dataclass_fields__":
                        yield from self.value(
                            [each for f in member.values() for each in (f.default, f.default_factory)]
                        )
                    elif not name.startswith("__") or isinstance(member, FunctionType):
                        yield name
                        yield from self.value(member)
        yield from self._hints(cls)

    def _hints(self, cls: type[Any]) -> Iterator[str]:
        """The classes that its fields are made of."""
        try:
            hints = typing.get_type_hints(cls, include_extras=True)
        except (NameError, TypeError):
            return  # of a function's own classes; their names are in the annotations
        ahead: list[Any] = list(hints.values())
        while ahead:
            hint = ahead.pop(0)
            if isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
                yield from self.value(hint)
            else:
                ahead.extend(typing.get_args(hint))

    def _is_rule(self, thing: Any) -> bool:
        """Whether something is written by whoever wrote the fold, or at least installed by nobody."""
        name = thing.__name__ if isinstance(thing, ModuleType) else getattr(thing, "__module__", None)
        top = _top(name)
        return top in self._own or (top not in _OURS and not _is_installed(top))


@functools.cache
def _is_installed(top: str) -> bool:
    if not top or top in sys.stdlib_module_names:
        return top != "__main__"
    file = getattr(sys.modules.get(top), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


def _version(thing: Any) -> str:
    return str(getattr(sys.modules.get(_top(thing.__module__)), "__version__", ""))


def _fields(cls: type[Any]) -> list[str]:
    names = getattr(cls, "__struct_fields__", None) or getattr(cls, "__dataclass_fields__", None)
    return sorted(names if names is not None else getattr(cls, "__slots__", ()))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
