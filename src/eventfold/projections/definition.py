"""The definition of a projection, compiled once from its class: its query, key, handlers and fingerprint.

Knows: annotations, source and byte code. Does not know: positions, targets, the order of steps.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import textwrap
import typing
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from operator import attrgetter
from types import CodeType
from typing import Any, Literal, cast

import msgspec

from eventfold.core.annotations import (
    check_component_name,
    class_options,
    compiled,
    component_name,
    event_classes,
    resolving_annotations,
)
from eventfold.core.class_data import visible_names
from eventfold.core.event import Event, Recorded, stored_names_of
from eventfold.core.fingerprint import fingerprint_of_rules, report_unknown
from eventfold.core.parameters import takes_envelope
from eventfold.core.query import Item, Query
from eventfold.core.syntax import parsed
from eventfold.core.table import RowCodec, row_codec_of
from eventfold.errors import InvalidProjection
from eventfold.ports.sink import Sink
from eventfold.projections.classes import (
    ClassOptions,
    Policy,
    Projection,
    SqlProjection,
    Subscription,
)
from eventfold.projections.row_watcher import RowWatcher

Key = tuple[Any, ...]
KeyOf = Callable[..., Any]  # of an event, and of its Recorded where `key_recorded`
MAX_NAME_BYTES = 63  # the shortest limit for table names among the supported databases
LIBRARY_MODULES = {
    "abc",
    "builtins",
    "msgspec",
    "msgspec._core",
    "typing",
    "eventfold.projections.classes",
    "eventfold.projections.definition",
}  # modules of base classes that do not count for a fingerprint


class SubscriptionSpec(msgspec.Struct, eq=False, dict=True):
    """A subscription built from values instead of a class: how a process or an effect appears on the read side.

    `code` is MODULE:NAME; `handle` is called with each event of the classes `events`. An event that fails is parked
    after one attempt, so that only later events of its key wait. The checkpoint is saved after `events_per_checkpoint`
    events: after a crash, as many may be handled again.
    """

    name: str
    code: str
    events: tuple[type, ...]
    start: str
    partitions: int
    handle: Callable[[Recorded[Any]], None]
    key: KeyOf
    events_per_checkpoint: int = 1


ProjectionLike = (
    type[Projection] | type[SqlProjection] | type[Subscription] | SqlProjection | Subscription | SubscriptionSpec
)


class Handler(msgspec.Struct):
    """A handler method and the event classes that it takes.

    `batch`: it takes a list of events; `recorded`: it takes Recorded objects, which have the envelope.
    """

    name: str
    call: Callable[..., Any]
    events: tuple[type, ...]
    batch: bool
    recorded: bool


class ProjectionDefinition(msgspec.Struct):
    """A compiled projection. `kind`: "rows" (Projection), "sql" (SqlProjection) or "effects" (Subscription).

    `shape`: its tables, and `meaning`: its defaults, query and partitions, each as text for the fingerprint.
    `key_fields`: the fields of an event that are its key; none if the class has a `key` function.
    """

    cls: type
    kind: Literal["rows", "sql", "effects"]
    name: str
    code: str
    events: tuple[type, ...]
    query: Query
    shape: str
    meaning: str
    target: str | Sink | None
    on_error: Policy
    attempts: int
    partitions: int
    start: str
    key: KeyOf | None
    rows: RowCodec | None = None
    recorded: bool = False
    keeps: bool = False
    handlers: tuple[Handler, ...] = ()
    tables: dict[str, str] = {}
    without_key: Policy = "stop"
    version: str | int | None = None
    events_per_checkpoint: int = 1  # of effects: as many may be repeated after a crash
    key_fields: tuple[str, ...] = ()
    key_recorded: bool = False  # whether `key` takes the event's Recorded as well
    prints: list[str] = []  # computed at first use: the fingerprint, and the one of the first releases
    watch: Callable[..., RowWatcher] | None = None  # makes what watches the rows of a partition: see row_watcher.py

    @property
    def fingerprint(self) -> str:
        """The fingerprint: 8 hex digits for its tables, a hyphen, 24 for the rules of its code."""
        return self._fingerprints()[0]

    def is_code_of(self, fingerprint: str) -> bool:
        """Whether rows with this fingerprint were folded by this code; also by the first releases' fingerprint."""
        return fingerprint in self._fingerprints()

    def _fingerprints(self) -> list[str]:
        if not self.prints:
            if self.kind == "effects":  # they are never repeated, so only their own class counts
                self.prints = [class_fingerprint(self.cls, self.shape, self.meaning)]
            else:
                rules = fingerprint_of_rules(self.cls, self.events, (self.key, self.meaning), self.version)
                report_unknown(self.name, rules, "Changes to these are not detected.")
                tables = class_fingerprint(self.cls, self.shape, self.meaning)
                self.prints = [f"{tables.partition('-')[0]}-{rules.digest}", tables]
        return self.prints


def keys_of(result: Any) -> tuple[Key, ...]:
    """Return the result of a `key` function (a key, a list of keys, or None) as a tuple of distinct keys."""
    if result is None:
        return ()
    several: list[Any] = list(dict.fromkeys(cast("list[Any]", result))) if isinstance(result, list) else [result]
    return tuple([cast("Key", each) if isinstance(each, tuple) else (each,) for each in several])


_DEFINITION = "__eventfold_projection_plan__"
COMPILE = "__eventfold_compile__"  # the class method of kinds of read models that are defined in higher layers


def projection_definition(projection: ProjectionLike) -> ProjectionDefinition:
    """Return the definition of a projection class, or of an instance of one with handlers. Raises InvalidProjection."""
    return compiled(projection, _DEFINITION, _compile)


def projection_definitions(projections: Sequence[ProjectionLike]) -> list[ProjectionDefinition]:
    """Return the definitions of several projections. Raises InvalidProjection where two have the same name."""
    definitions = [projection_definition(each) for each in projections]
    for definition in definitions:
        twin = next((p for p in definitions if p.name == definition.name and p.cls is not definition.cls), None)
        if twin is not None:
            raise InvalidProjection(
                f"{definition.code} and {twin.code} are both called {definition.name}.",
                "Give one of them another name (name=…).",
                name=definition.name,
            )
    return definitions


def _compile(projection: ProjectionLike) -> ProjectionDefinition:
    if isinstance(projection, SubscriptionSpec):
        return _compile_spec(projection)
    cls: Any = projection if isinstance(projection, type) else type(projection)
    bases = (Projection, SqlProjection, Subscription)
    if (compile_class := getattr(cls, COMPILE, None)) is not None:
        return compile_class()
    if not issubclass(cls, bases) or cls in bases:
        raise InvalidProjection(
            f"{projection!r} is not a projection.",
            "Derive a class from ef.Projection, ef.SqlProjection or ef.Subscription.",
        )
    terms = class_options(cls, ClassOptions)
    name = terms.name or component_name(cls)
    check_component_name(name, "a projection", InvalidProjection, max_bytes=MAX_NAME_BYTES)
    with resolving_annotations(cls.__name__, InvalidProjection):
        if issubclass(cls, Projection):
            return _compile_rows(cls, name, terms)
        return _compile_handlers(projection, cls, name, terms)


def _compile_spec(spec: SubscriptionSpec) -> ProjectionDefinition:
    query = query_of_events(spec.events)
    return ProjectionDefinition(
        SubscriptionSpec,
        "effects",
        spec.name,
        spec.code,
        spec.events,
        query,
        "{}",
        f"{query!r} {spec.partitions}",
        None,
        "park",
        1,
        spec.partitions,
        spec.start,
        spec.key,
        handlers=(Handler("handle", spec.handle, spec.events, False, True),),
        events_per_checkpoint=spec.events_per_checkpoint,
    )


def _compile_rows(cls: type[Projection], name: str, terms: ClassOptions) -> ProjectionDefinition:
    hints = typing.get_type_hints(cls, None, visible_names(cls), include_extras=True)
    fields, defaults = cls.__struct_fields__, cls.__struct_defaults__
    key_fields = fields[: len(fields) - len(defaults)]
    if not key_fields:
        raise InvalidProjection(
            f"{cls.__name__} has no field without a default, so its rows have no key.",
            "Declare the fields of the key first, without defaults: carrier: str.",
        )
    parameters = [p for p in inspect.signature(cls.evolve).parameters if p != "self"]
    recorded = takes_envelope(cls.evolve, f"{cls.__name__}.evolve", InvalidProjection) or len(parameters) > 1
    evolve = typing.get_type_hints(cls.evolve, None, visible_names(cls))
    hint = evolve.get(parameters[0]) if parameters else None
    events = event_classes(hint, partial(refuse_row_events, cls)).classes
    key = None if "key" in fields else getattr(cls, "key", None)
    rows = row_codec_of(cls, name, hints, key_fields, terms.indexes)
    by_name = key is None
    if by_name:
        key = key_by_name(cls, key_fields, events)
    key_recorded = not by_name and key_takes_envelope(cls)
    query = query_of_events(events)
    shape = f"{rows.table.columns} {rows.table.key} {rows.table.indexes}"
    return ProjectionDefinition(
        cls,
        "rows",
        name,
        f"{cls.__module__}:{cls.__qualname__}",
        events,
        query,
        shape,
        f"{[repr(d) for d in defaults]} {query!r} {terms.partitions}",
        terms.target,
        terms.on_error,
        terms.attempts,
        terms.partitions,
        terms.start or "beginning",
        key,
        rows,
        recorded=recorded,
        keeps=cls.keep is not Projection.keep,
        without_key=terms.without_key,
        version=terms.version,
        key_fields=key_fields if by_name else (),
        key_recorded=key_recorded,
    )


def key_takes_envelope(cls: type, *, of_rows: bool = True) -> bool:
    """Whether the `key` of a class has a second parameter, for the Recorded. Raises InvalidProjection.

    `of_rows`: it is called without an instance, since rows are found by it.
    """
    name, kept, key = f"{cls.__name__}.key", inspect.getattr_static(cls, "key"), cast("Any", cls).key
    method = not isinstance(kept, staticmethod | classmethod) and inspect.isfunction(kept)
    if of_rows and (isinstance(kept, classmethod) or (method and len(inspect.signature(key).parameters) > 1)):
        raise InvalidProjection(
            f"{name} is no static method, but it is called without a row.",
            "Write @staticmethod above it, and def key(event: …): a second parameter gets the event's ef.Recorded.",
        )
    recorded = takes_envelope(key, name, InvalidProjection, method=method and not of_rows)
    with suppress(NameError, TypeError):  # of an annotation that is visible to a type checker only
        hint = next(iter(typing.get_type_hints(key, None, visible_names(cls)).values()), None)
        if Recorded in (hint, typing.get_origin(hint)):
            raise InvalidProjection(
                f"{name} takes a Recorded, but its first parameter gets the event alone.",
                "Write def key(event: …, recorded: ef.Recorded).",
            )
    return recorded


def refuse_row_events(cls: type, what: str, remedy: str | None) -> InvalidProjection:
    """Return the error for an `evolve` of rows that takes something other than one event."""
    return InvalidProjection(
        f"{cls.__name__}.evolve {what}.",
        remedy
        or "Annotate it with event classes: def evolve(self, event: Opened | Closed) -> None; a second parameter "
        "gets the event's ef.Recorded.",
    )


def _key_by_name(cls: type, fields: tuple[str, ...], events: tuple[type, ...]) -> Callable[[Any], Any]:
    """Return the function that reads an event's key from its fields of these names. Raises InvalidProjection."""
    for event in events:
        missing = [field for field in fields if field not in typing.get_type_hints(event)]
        if missing:
            raise InvalidProjection(
                f"The key of {cls.__name__} has {', '.join(missing)}, but {event.__name__} has no field of that name.",
                f"Declare how to find an event's row: @staticmethod def key(event: {event.__name__}) -> …",
            )
    get = attrgetter(*fields)
    return (lambda event: (get(event),)) if len(fields) == 1 else get


key_by_name = _key_by_name  # the fingerprints in stores contain the function's name


def _compile_handlers(projection: Any, cls: type, name: str, terms: ClassOptions) -> ProjectionDefinition:
    instance = projection if not isinstance(projection, type) else cls()
    sql = isinstance(instance, SqlProjection)
    handlers = tuple(_handlers(cls, instance, sql))
    if not handlers:
        raise InvalidProjection(
            f"{cls.__name__} has no handler: none of its public methods takes an event.",
            "Write a method such as def departed(self, event: FlightDeparted, tx: ef.Transaction) -> None.",
        )
    if not sql and terms.start is None:
        raise InvalidProjection(
            f"{cls.__name__} does not declare where it starts, and effects cannot be undone.",
            'Write class X(ef.Subscription, start="now"), or start="beginning" to handle all events of the log.',
        )
    key: KeyOf | None = getattr(instance, "key", None)
    if key is None and (terms.on_error == "park" or terms.partitions > 1):
        raise InvalidProjection(
            f"{cls.__name__} parks events or has partitions, but does not declare the key of an event.",
            "Write @staticmethod def key(event: …) -> str.",
        )
    key_recorded = key is not None and key_takes_envelope(cls, of_rows=False)
    tables: dict[str, str] = getattr(instance, "tables", {})
    for table in tables:
        if not table.isidentifier():
            raise InvalidProjection(
                f"{table!r} cannot be the name of a table of {cls.__name__}.",
                "Use letters, digits and underscores, a letter first: handlers write it in SQL as {table}.",
            )
    events = tuple(dict.fromkeys(event for handler in handlers for event in handler.events))
    query = query_of_events(events)
    return ProjectionDefinition(
        cls,
        "sql" if sql else "effects",
        name,
        f"{cls.__module__}:{cls.__qualname__}",
        events,
        query,
        f"{tables}",
        f"{query!r} {terms.partitions}",
        terms.target,
        terms.on_error,
        terms.attempts,
        terms.partitions,
        terms.start or "beginning",
        key,
        handlers=handlers,
        tables=tables,
        without_key=terms.without_key,
        version=terms.version,
        key_recorded=key_recorded,
    )


def _handlers(cls: type, instance: Any, sql: bool) -> typing.Iterator[Handler]:
    for name, value in inspect.getmembers(cls, inspect.isfunction):
        if name.startswith("_") or name == "key" or isinstance(inspect.getattr_static(cls, name), staticmethod):
            continue
        parameters = list(inspect.signature(value).parameters)[1:]
        hints = typing.get_type_hints(value, None, visible_names(cls))
        if len(parameters) != (2 if sql else 1):
            raise InvalidProjection(
                f"{cls.__name__}.{name} takes {len(parameters)} arguments besides self.",
                "A handler takes the event and the transaction; start other methods with an underscore."
                if sql
                else "A handler takes the event; start other methods with an underscore.",
            )
        hint = event_classes(hints.get(parameters[0]), partial(_refuse, cls, name), recorded=True, batch=True)
        yield Handler(name, getattr(instance, name), hint.classes, hint.batch, hint.recorded)


def query_of_events(events: tuple[type, ...]) -> Query:
    """Return the query for all events of these classes."""
    if Event in events:
        return Query()
    names: dict[str, None] = {}
    for each in events:
        names.update(dict.fromkeys(stored_names_of(each)))
    return Query.any_of([Item(tuple(names))])


def _refuse(cls: type, method: str, what: str, remedy: str | None) -> InvalidProjection:
    return InvalidProjection(
        f"{cls.__name__}.{method} {what}.",
        remedy or f"Annotate it with event classes: def {method}(self, event: Opened | Closed, …) -> None.",
    )


def class_fingerprint(cls: type, tables: str, more: str) -> str:
    """Return 8 hex digits for its `tables`, a hyphen, 16 for its code and `more` (such as its query)."""
    code = "\n".join(_source_of(each) for each in cls.__mro__ if each.__module__ not in LIBRARY_MODULES)
    return f"{_digest(tables)[:8]}-{_digest(tables + more + code)[:16]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _source_of(cls: type) -> str:
    try:
        tree = parsed(lambda: ast.parse(textwrap.dedent(inspect.getsource(cls))))
    except (OSError, TypeError, SyntaxError):  # a console, a generated class: use its byte code
        return f"{sys.implementation.cache_tag}\n{_byte_code_of(cls)}"
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return "".join(ast.unparse(tree).split())


def _byte_code_of(cls: type) -> str:
    parts: list[str] = []
    for name, value in sorted(vars(cls).items()):
        function: Any = getattr(value, "__func__", value)
        if inspect.isfunction(function):
            parts.append(name + _of(function.__code__))
    return "\n".join(parts)


def _of(code: CodeType) -> str:
    doc = code.co_consts[0] if code.co_consts and isinstance(code.co_consts[0], str) else None
    constants = [_of(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts if each != doc]
    first = code.co_consts[0] if code.co_consts and not code.co_flags & 0x4000000 else ""
    return f"{code.co_code.hex()} {code.co_names} {constants} {first}"
