"""The code that uses an event: what decides, folds or projects it, or reacts to it, by annotations and source code.

Knows: functions, states, read models, processes and effects of given modules. Does not know: pages, files.
"""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
import typing
from collections.abc import Iterable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import msgspec

from eventfold.core.aggregate import Aggregate
from eventfold.core.event import Event
from eventfold.core.state import State, state_definition_of
from eventfold.core.syntax import parsed
from eventfold.errors import EventfoldError
from eventfold.processes import Effect, Process
from eventfold.processes.definition import process_definition as process_plan
from eventfold.projections import Projection, SqlProjection, Subscription
from eventfold.projections.definition import projection_definition as kept_plan
from eventfold.schema.describe import event_classes

_READ_MODELS = (Projection, SqlProjection, Subscription)
_BASES = (State, Aggregate, Process, *_READ_MODELS)


class EventUsage(msgspec.Struct):
    """The names of the code that uses one event class. `decide` includes processes that record it by a timer."""

    decide: set[str] = msgspec.field(default_factory=set[str])
    fold: set[str] = msgspec.field(default_factory=set[str])
    project: set[str] = msgspec.field(default_factory=set[str])
    react: set[str] = msgspec.field(default_factory=set[str])


def find_usage(modules: Iterable[str]) -> dict[type, EventUsage]:
    """For every known event class, the code of these modules and packages that uses it."""
    found = {cls: EventUsage() for cls in event_classes()}
    for name, value in _members(list(modules)):
        try:
            for kind, events in _consumed_events(value):
                for event in _with_subclasses(events, found):
                    getattr(found[event], kind).add(name)
            for where, function in _deciding_functions(name, value):
                for event in _events_made_by(function, found):
                    found[event].decide.add(where)
        except EventfoldError:
            continue  # for example a base class without an evolve method, which folds nothing
    return found


def _members(modules: list[str]) -> Iterator[tuple[str, Any]]:
    for name, module in list(sys.modules.items()):
        if any(name == m or name.startswith(m + ".") for m in modules):
            for key, value in list(vars(module).items()):
                home = value.function.__module__ if isinstance(value, Effect) else getattr(value, "__module__", None)
                if home in (name, "eventfold.processes.effects") and value not in _BASES:
                    yield key, value


def _consumed_events(value: Any) -> Iterator[tuple[str, Iterable[type]]]:
    """The events that a class or effect consumes, with the kind of use."""
    if isinstance(value, Effect):
        yield "react", value.events
    elif not inspect.isclass(value):
        return
    elif issubclass(value, State):
        yield "fold", state_definition_of(value).events
        if issubclass(value, Process):
            yield "react", process_plan(value).events
    elif issubclass(value, Subscription):
        yield "react", kept_plan(value).events
    elif issubclass(value, _READ_MODELS):
        yield "project", kept_plan(value).events


def _with_subclasses(events: Iterable[type], found: dict[type, EventUsage]) -> Iterator[type]:
    for event in events:
        if event is not Event:
            yield from (each for each in (event, *event.__subclasses__()) if each in found)


def _deciding_functions(name: str, value: Any) -> Iterator[tuple[str, FunctionType]]:
    """The functions that may decide: those with a parameter that is a State, methods of aggregates, and reactions."""
    if inspect.isfunction(value):
        if any(inspect.isclass(hint) and issubclass(hint, State) for hint in _hints(value).values()):
            yield name, value
    elif inspect.isclass(value) and issubclass(value, (Aggregate, Process)):
        for key, method in vars(value).items():
            if inspect.isfunction(method) and key not in ("evolve", "done", "query"):
                yield f"{name}.{key}", method


def _events_made_by(function: FunctionType, found: dict[type, EventUsage]) -> set[type]:
    """The event classes in the return annotation of a function, and those it calls by name."""
    made = {cls for cls in _classes(_hints(function).get("return")) if cls in found}
    for place, name in _called_names(function):
        value = function.__globals__.get(place or name)
        if place:  # module.Class(…)
            value = vars(value).get(name) if isinstance(value, ModuleType) else None
        if isinstance(value, type) and value in found:
            made.add(value)
    return made


def _called_names(function: FunctionType) -> Iterator[tuple[str, str]]:
    """The names that a function's source calls, as (module or "", name); patterns of `match` are not calls."""
    try:
        tree = parsed(lambda: ast.parse(textwrap.dedent(inspect.getsource(function))))
    except (OSError, SyntaxError):  # the function was defined at a prompt
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield "", node.func.id
            elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                yield node.func.value.id, node.func.attr


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError):
        return {}


def _classes(hint: Any) -> Iterator[type]:
    if isinstance(hint, type) and not typing.get_args(hint):
        yield hint
    for arg in typing.get_args(hint):
        yield from _classes(arg)
