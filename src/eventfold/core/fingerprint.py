"""The fingerprint of code that folds: hex digits that change whenever a State or a read model would fold differently.

It covers the class with its fields and methods, the classes of its fields, the upcasters of its events, and the
functions, constants and objects that any of these use, in any module, including imports within a function. Of Python's
own modules and of installed packages only names count. Code is compared as syntax, so that neither formatting nor
another Python version changes it. An object is compared as pickle would store it; one that pickle cannot store (a lock,
a connection) is reported. Knows: classes and functions. Does not know: what is stored with a fingerprint.
"""

from __future__ import annotations

import copyreg
import functools
import hashlib
import importlib
import importlib.util
import inspect
import logging
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple, cast
from uuid import UUID

from eventfold.core.class_data import get_class_data, set_class_data
from eventfold.core.event import Event, declaration_of, declared_classes, family_of, is_event_class
from eventfold.core.state import State, state_definition_of, version_of
from eventfold.core.syntax import changed_names, describe, globals_in, names_in, words_in
from eventfold.core.upcast import upcaster_from

_PLAIN = (str, bytes, int, float, complex, bool, type(None), type(...), Decimal, UUID, date, time, timedelta)
_OURS = frozenset(("eventfold", "msgspec"))
# Types that wrap a function, and the attributes that contain it.
_WRAPPERS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (types.MethodType, ("__func__", "__self__")),
    (classmethod, ("__func__",)),
    (staticmethod, ("__func__",)),
    (property, ("fget", "fset")),
    (functools.cached_property, ("func",)),
    (functools.partialmethod, ("func", "args", "keywords")),
    (functools.singledispatchmethod, ("func", "dispatcher")),
    (type(functools.lru_cache(len)), ("__wrapped__",)),
)
# Functions that find code or values by a text that is known only at run time.
_BY_TEXT = frozenset(("globals", "eval", "exec", "compile", "__import__"))
_DEEPEST = 100  # levels of objects within objects
# The names of this package's modules in the fingerprints that stores contain: moving code does not change it.
_RECORDED_MODULES = {
    "eventfold.core.aggregate": "eventfold.aggregate",
    "eventfold.core.envelope": "eventfold.record",
    "eventfold.core.event": "eventfold.event",
    "eventfold.core.query": "eventfold.query",
    "eventfold.core.state": "eventfold.state",
    "eventfold.core.table": "eventfold.projection.columns",
    "eventfold.core.tags": "eventfold.event",
    "eventfold.core.tally": "eventfold.projection.ledger",
    "eventfold.core.upcast": "eventfold.upcast",
    "eventfold.log.decided": "eventfold.flow.decided",
    "eventfold.ports.target": "eventfold.target",
    "eventfold.processes": "eventfold.process",
    "eventfold.processes.actions": "eventfold.process.wishes",
    "eventfold.processes.classes": "eventfold.process.classes",
    "eventfold.processes.effects": "eventfold.process.effects",
    "eventfold.projections.classes": "eventfold.projection.classes",
    "eventfold.projections.definition": "eventfold.projection.plan",
}
_MODULE_NAME = re.compile(r"\beventfold\.[a-z_.]*[a-z_]\b")
logger = logging.getLogger("eventfold")


class Fingerprint(NamedTuple):
    """`digest` is 24 hex digits; `unknown` describes the objects that could not be compared, each with its user."""

    digest: str
    unknown: tuple[str, ...]


_KNOWN = "__eventfold_fingerprint__"
_reported: set[tuple[str, tuple[str, ...]]] = set()


def fingerprint(cls: type[State]) -> Fingerprint:
    """Return the fingerprint of a State class, which includes the versions of the installed packages that it uses."""
    plan = state_definition_of(cls)
    known: tuple[int, Fingerprint] | None = get_class_data(cls, _KNOWN)
    if known is not None and known[0] == plan.declarations_version:
        return known[1]
    own = {_top(each.__module__) for each in (cls, *plan.events)}
    found = _digest(own, True, lambda walk: walk.state(cls, plan.events), version_of(cls))
    set_class_data(cls, _KNOWN, (plan.declarations_version, found))
    return found


def fingerprint_of_rules(
    cls: type, events: tuple[type, ...], more: Iterable[Any], version: str | int | None
) -> Fingerprint:
    """Return the fingerprint of a read model: its class, upcasters, what these use, and `more`, further values.

    Of the event classes, only those fields and methods count whose names the code uses: a field that is added to an
    event does not change the fingerprint of code that does not read it.
    """
    own = {_top(each.__module__) for each in (cls, *events)}
    return _digest(own, False, lambda walk: walk.rules(cls, events, more), version)


def report_unknown(what: str, found: Fingerprint, consequence: str) -> None:
    """Log once that some objects cannot be compared, and the consequence."""
    if found.unknown and (what, found.unknown) not in _reported:
        _reported.add((what, found.unknown))
        logger.warning(
            "%s uses objects that cannot be compared between releases: %s. %s Give the class a version (version=1), "
            "and raise it whenever its rule changes.",
            what,
            "; ".join(found.unknown),
            consequence,
        )


def _digest(
    own: set[str], versions: bool, parts_of: Callable[[_Walk], Iterator[str]], version: str | int | None
) -> Fingerprint:
    walk = _Walk(own, versions)
    parts = list(parts_of(walk))
    if walk.changed:  # objects that the code itself changes, such as a cache, are not rules: repeat without them
        walk = _Walk(own, versions, walk.changed)
        parts = list(parts_of(walk))
    sha = hashlib.sha256(repr(version).encode())
    for part in parts:
        sha.update(_as_recorded(part).encode(errors="backslashreplace") + b"\0")
    unknown = tuple(dict.fromkeys(walk.unknown)) if version is None else ()
    return Fingerprint(sha.hexdigest()[:24], unknown)


def _top(module: str | None) -> str:
    return (module or "").partition(".")[0]


def _as_recorded(text: str) -> str:
    """Return the text with the names that stores have for this package's modules."""
    return _MODULE_NAME.sub(lambda found: _RECORDED_MODULES.get(found[0], found[0]), text)


class _Walk:
    """One walk over everything that a fold uses. The code of the packages in `own` counts, even if they are installed.

    `changing` are global names and objects that the code changes, found by an earlier walk (`changed`): these are left
    out.
    """

    def __init__(self, own: set[str], versions: bool, changing: Set[tuple[int, str]] = frozenset()) -> None:
        self.unknown: list[str] = []
        self.changed: set[tuple[int, str]] = set()  # (id of the namespace, name), or (id of the object, "")
        self._changing = changing
        self._own = own - _OURS
        self._versions = versions
        self._seen: dict[int, Any] = {}  # refers to the objects, so that no id is reused
        self._within: list[int] = []
        self._users: list[str] = []  # the functions and classes that lead to the current object, for messages
        self._words: set[str] = set()
        self._skipped: frozenset[type] = frozenset()
        self._is_of_any_event = False  # then the upcasters of each event class that the code names count

    def state(self, cls: type[State], events: tuple[type, ...]) -> Iterator[str]:
        """Describe a State and its events."""
        yield from self.value(cls)
        for event in (e for e in events if e is not Event):
            for each in family_of(event):
                name, step = declaration_of(each), upcaster_from(each)
                yield f"{name.names} {name.version}"
                yield from self.value(each)
                if step is not None:
                    yield from self.value(step.function)
        if Event in events:  # whatever is declared here decides how the events of its name are read
            yield from self._changed_classes(declared_classes())

    def rules(self, cls: type, events: tuple[type, ...], more: Iterable[Any]) -> Iterator[str]:
        """Describe a class, the upcasters of its events, and those fields of the events whose names this code uses."""
        families = [each for event in events if event is not Event for each in family_of(event)]
        self._skipped = frozenset(families)
        self._is_of_any_event = Event in events
        yield from self.value(cls)
        for each in more:
            yield from self.value(each)
        for each in families:
            yield from self._upcaster_of(each)
        for each in families:
            for name, part in self._named_members(each, self._words):
                yield f"{each.__qualname__}.{name}"
                yield from self.value(part)

    def _changed_classes(self, classes: Iterable[type]) -> Iterator[str]:
        """Describe those of these classes that have a version above 1 or an upcaster, without the library's own."""
        for each in classes:
            name, step = declaration_of(each), upcaster_from(each)
            if (name.version > 1 or step is not None) and _top(each.__module__) not in _OURS:
                yield f"{name.names} {name.version}"
                if step is not None:
                    yield from self.value(step.function)

    def _named_members(self, cls: type, words: set[str]) -> Iterator[tuple[str, Any]]:
        """Iterate over those fields (type and default) and methods of a class whose names are among `words`."""
        fields: tuple[str, ...] = getattr(cls, "__struct_fields__", ())
        defaults: tuple[Any, ...] = getattr(cls, "__struct_defaults__", ())
        of_field: dict[str, Any] = dict(zip(fields[len(fields) - len(defaults) :], defaults, strict=False))
        for base in cls.__mro__:
            if not self._is_rule(base):
                continue
            for name, hint in sorted(inspect.get_annotations(base).items()):
                if name in words:
                    yield name, (hint if isinstance(hint, str) else repr(hint))
                    yield name, of_field.get(name, vars(base).get(name))
                    yield name, _classes_of(base, name)
            for name, member in sorted(vars(base).items()):
                if name in words and not name.startswith("__") and callable(getattr(member, "__get__", None)):
                    if isinstance(member, FunctionType | property | classmethod | staticmethod):
                        yield name, member

    def _upcaster_of(self, cls: type) -> Iterator[str]:
        """Describe the upcaster of an event class, with the name and version that it takes; nothing if it has none."""
        step = upcaster_from(cls)
        if step is not None:
            yield f"{declaration_of(cls).names} {declaration_of(cls).version}"
            yield from self.value(step.function)

    def value(self, value: Any) -> Iterator[str]:
        """Describe an object of any type."""
        if isinstance(value, Enum):
            yield f"{type(value).__qualname__}.{value.name}={value.value!r}"
        elif isinstance(value, datetime):
            yield value.replace(tzinfo=None).isoformat()
            yield from self.value(value.tzinfo)
        elif type(value) in _PLAIN:
            yield f"{type(value).__name__} {value!r}"
        elif isinstance(value, (list, tuple, set, frozenset, Mapping)):
            if (id(cast("object", value)), "") not in self._changing:
                yield from self._nested(value, self._collection)
        elif id(value) not in self._seen:
            self._seen[id(value)] = value
            yield from self._nested(value, self._once)

    def _nested(self, value: Any, walk: Callable[[Any], Iterator[str]]) -> Iterator[str]:
        if id(value) in self._within:  # an object that contains itself
            return
        if len(self._within) > _DEEPEST:
            yield from self._not_comparable(value)
            return
        self._within.append(id(value))
        yield from walk(value)
        self._within.pop()

    def _collection(self, value: Any) -> Iterator[str]:
        yield f"{type(value).__qualname__} {len(value)}"
        if isinstance(value, (set, frozenset)):  # their order differs between processes
            yield repr(sorted(" ".join(self.value(each)) for each in cast("set[Any]", value)))
        elif isinstance(value, Mapping):
            given = cast("Mapping[Any, Any]", value)
            for key in given:
                yield from self.value(key)
                yield from self.value(given[key])
            yield from self.value(getattr(cast("Any", value), "default_factory", None))
        else:
            for each in cast("list[Any]", value):
                yield from self.value(each)

    def _once(self, value: Any) -> Iterator[str]:
        if isinstance(value, FunctionType):
            yield from self._function(value)
        elif isinstance(value, type):
            yield from self._class(value)
        elif isinstance(value, ModuleType):
            yield value.__name__
        elif isinstance(value, BuiltinFunctionType | types.MethodWrapperType):
            yield value.__qualname__
            if not isinstance(value.__self__, ModuleType | type(None)):
                yield from self.value(value.__self__)
        else:
            yield from self._object(value)

    def _object(self, value: Any) -> Iterator[str]:
        """Describe a method, a wrapped function, a property; any other object by its class and its pickled parts."""
        cls = cast("type[Any]", type(value))
        yield cls.__qualname__
        for wrapper, names in _WRAPPERS:
            if isinstance(value, wrapper):
                for name in names:
                    yield from self.value(getattr(value, name))
                return
        if cls.__module__ == "msgspec._core":  # a default factory, or the mark for "no default"
            yield from self.value(getattr(value, "factory", repr(value)))
            return
        if getattr(value, "__module__", None) == "typing" or isinstance(value, types.GenericAlias | types.UnionType):
            yield repr(value)
            return
        if self._is_rule(cls):
            yield from self.value(cls)
        reduce = copyreg.dispatch_table.get(cls)
        try:
            kept: Any = value.__reduce_ex__(4) if reduce is None else reduce(value)
        except Exception:  # noqa: BLE001 (the object's own code reports that it cannot be pickled)
            yield from self._not_comparable(value)
            return
        if isinstance(kept, str):  # the name of a global
            yield kept
            return
        for part in kept[:3]:
            yield from self.value(part)
        for items in kept[3:5]:
            for item in items or ():
                yield from self.value(item)

    def _not_comparable(self, value: Any) -> Iterator[str]:
        cls = cast("type[Any]", type(value))
        self._not_followed(f"an object of {cls.__module__}.{cls.__qualname__}")
        yield "not comparable"

    def _not_followed(self, what: str) -> None:
        self.unknown.append(f"{what} in {self._users[-1]}" if self._users else what)

    def _function(self, function: FunctionType) -> Iterator[str]:
        yield function.__qualname__  # without its module: code that was moved is the same
        if not self._is_rule(function):
            yield f"{function.__module__} {self._version(function)}"
            return
        self._users.append(function.__qualname__)
        code = function.__code__
        self._words |= words_in(code)
        yield describe(function)
        registered = dict(getattr(function, "registry", {}))  # of a singledispatch
        for given in (function.__defaults__, function.__kwdefaults__, registered):
            yield from self.value(given)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
            try:
                inside = cell.cell_contents
            except ValueError:  # a name that was never bound
                continue
            if name != "__class__":  # the class of a method that calls super(): it is described already
                yield name
                yield from self.value(inside)
        used = sorted(names_in(code))
        space = function.__globals__
        for name in changed_names(function):
            if name in space:
                self.changed |= {(id(space), name), (id(space[name]), "")}
        for name in sorted(globals_in(code)):
            if name in space:
                yield name
                if (id(space), name) not in self._changing:
                    yield from self._global(space[name], used)
            elif name in _BY_TEXT:
                self._not_followed(f"{name}()")
        if "import_module" in used:
            self._not_followed("import_module()")
        for module, names in _imports(code, function.__globals__):
            yield from self._imported(module, names, used)
        self._users.pop()

    def _global(self, value: Any, used: Iterable[str]) -> Iterator[str]:
        yield from self.value(value)
        if isinstance(value, ModuleType) and self._is_rule(value):  # module.function(…): only the names that are used
            yield from self._nested(value, functools.partial(self._members, used))

    def _members(self, used: Iterable[str], module: ModuleType) -> Iterator[str]:
        for name in used:
            if name in vars(module):
                yield name
                yield from self._global(vars(module)[name], used)

    def _imported(self, name: str, names: tuple[str, ...], used: Iterable[str]) -> Iterator[str]:
        """Describe what a function imports when it runs."""
        if not self._is_rule_name(name):
            yield name
            return
        try:
            module = importlib.import_module(name)
        except Exception:  # noqa: BLE001 (a module of the user, whose own import will raise the same)
            self.unknown.append(f"the module {name}, which cannot be imported")
            return
        for each in names:
            yield each
            yield from self._global(getattr(module, each, None), used)
        if not names:
            yield from self._global(module, used)

    def _class(self, cls: type[Any]) -> Iterator[str]:
        yield cls.__qualname__
        if not self._is_rule(cls):
            yield f"{cls.__module__} {self._version(cls)}"
            return
        if cls in self._skipped:
            return
        self._users.append(cls.__qualname__)
        if issubclass(cls, Enum):
            yield repr([(each.name, each.value) for each in cast("Any", cls)])
        yield repr((getattr(cls, "__struct_encode_fields__", ()), getattr(cls, "__struct_fields__", ())))
        yield from self.value(getattr(cls, "__struct_defaults__", ()))
        for base in cls.__mro__:
            if self._is_rule(base) and base not in self._skipped:
                yield base.__qualname__
                yield repr(sorted(inspect.get_annotations(base).items(), key=lambda pair: pair[0]))
                yield from self._own_members(base)
        yield from self._hints(cls)
        if self._is_of_any_event and cls is not Event and is_event_class(cls):
            for each in family_of(cls):
                yield from self._upcaster_of(each)
        if self._is_rule(type(cls)):  # a metaclass
            yield from self.value(type(cls))
        self._users.pop()

    def _own_members(self, base: type[Any]) -> Iterator[str]:
        for name, member in sorted(vars(base).items()):
            if name == "__dataclass_fields__":
                yield from self.value([each for f in member.values() for each in (f.default, f.default_factory)])
            elif isinstance(member, types.MemberDescriptorType | types.GetSetDescriptorType):
                yield name
            elif not name.startswith("__") or isinstance(member, FunctionType):
                if not name.startswith(("_abc_", "__class_getitem__")):
                    yield name
                    yield from self.value(member)

    def _hints(self, cls: type[Any]) -> Iterator[str]:
        for each in _classes_of(cls):
            yield from self.value(each)

    def _is_rule(self, thing: Any) -> bool:
        """Whether the code of a class, function or module counts: its package is one of `own`, or not installed."""
        return self._is_rule_name(
            thing.__name__ if isinstance(thing, ModuleType) else getattr(thing, "__module__", None)
        )

    def _is_rule_name(self, name: str | None) -> bool:
        top = _top(name)
        return top in self._own or (top not in _OURS and not _is_installed(top))

    def _version(self, thing: Any) -> str:
        """Return the version of an installed package; "" for Python and this package, whose versions fold the same."""
        top = _top(thing.__module__)
        counts = self._versions and top not in _OURS and top not in sys.stdlib_module_names
        return str(getattr(sys.modules.get(top), "__version__", "")) if counts else ""


def _classes_of(cls: type[Any], field: str | None = None) -> list[type[Any]]:
    """Return the classes in the annotations of a class's fields, or of one field."""
    try:
        hints = typing.get_type_hints(cls, include_extras=True)
    except (NameError, TypeError):
        return []  # for local classes of a function; their names are in the annotations
    ahead: list[Any] = list(hints.values()) if field is None else [hints.get(field)]
    found: list[type[Any]] = []
    while ahead:
        hint = ahead.pop(0)
        if isinstance(hint, type) and not isinstance(hint, types.GenericAlias):
            found.append(cast("type[Any]", hint))
        else:
            ahead.extend(typing.get_args(hint))
    return found


def _imports(code: CodeType, namespace: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Iterate over the modules that code imports (absolute names), with the names imported from each; (): itself."""
    import dis

    loaded: list[Any] = []
    for each in dis.get_instructions(code):
        if each.opname == "LOAD_CONST":
            loaded.append(each.argval)
        elif each.opname == "LOAD_SMALL_INT":
            loaded.append(each.arg)
        elif each.opname == "IMPORT_NAME" and len(loaded) >= 2:
            level, names = loaded[-2:]
            package = "." * level if isinstance(level, int) else ""
            given = tuple(map(str, cast("tuple[Any, ...]", names))) if isinstance(names, tuple) else ()
            try:
                found = importlib.util.resolve_name(package + each.argval, str(namespace.get("__package__") or ""))
            except ImportError:
                continue
            yield found, given
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _imports(constant, namespace)


@functools.cache
def _is_installed(top: str) -> bool:
    if not top or top in sys.stdlib_module_names:
        return top != "__main__"
    try:
        found = importlib.util.find_spec(top) if top not in sys.modules else sys.modules[top]
    except (ImportError, ValueError):
        return False
    file = str(getattr(found, "__file__", None) or getattr(found, "origin", None) or "")
    return "site-packages" in file or "dist-packages" in file
