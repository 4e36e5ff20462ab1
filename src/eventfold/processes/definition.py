"""The compiled definition of a Process class: its name, the events it reacts to, which instances an event belongs to.

Knows: annotations, tag fields. Does not know: positions, the log, the order of steps.
"""

from __future__ import annotations

import inspect
import itertools
import typing
from collections.abc import Callable, Iterable
from functools import partial
from operator import attrgetter
from typing import Any

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
from eventfold.core.event import Event
from eventfold.core.state import state_definition_of
from eventfold.core.tags import fields_by_tag
from eventfold.errors import InvalidProcess
from eventfold.processes.actions import class_of
from eventfold.processes.classes import Process, ProcessOptions, Start

MAX_NAME_BYTES = 40  # the name is part of request keys and tags, which have at most 255 bytes
Key = tuple[Any, ...]


class ProcessDefinition(msgspec.Struct):
    """A process, compiled. `events` are the classes that `react` names; `tags` the tag key of each question field."""

    cls: type[Process]
    name: str
    start: Start
    attempts: int
    max_chain: int
    partitions: int
    events: tuple[type, ...]
    tags: tuple[str, ...]
    keys: dict[type, Callable[[Any], list[Key]]] = {}

    def keys_of(self, event: Any) -> list[Key]:
        """Return the instances that an event belongs to, each as the values of its question."""
        found = self.keys.get(class_of(event))
        if found is None:
            found = self.keys[class_of(event)] = _keys(self, class_of(event))
        return found(event)

    @property
    def location(self) -> str:
        """The name of its react method with file and line, for messages."""
        code = self.cls.react.__code__
        return f"{self.cls.__qualname__}.react ({code.co_filename.rpartition('/')[2]}, line {code.co_firstlineno})"


_DEFINITION = "__eventfold_process_plan__"


def check_name(name: str, kind: str) -> str:
    """Return the name of a process or an effect, checked: it is a part of request keys. Raises InvalidProcess."""
    return check_component_name(name, kind, InvalidProcess, max_bytes=MAX_NAME_BYTES, ascii_only=True)


def process_definition(cls: type[Process]) -> ProcessDefinition:
    """Return the definition of a Process class. Raises InvalidProcess, or InvalidState if it cannot be folded."""
    return compiled(cls, _DEFINITION, _compile)


def key_text(key: Key) -> str:
    """Return an instance's key as text, as it is displayed, stored and hashed. Different keys have different texts."""
    if len(key) == 1:
        return str(key[0])
    return ", ".join(str(part).replace("\\", "\\\\").replace(", ", "\\, ") for part in key)


def _compile(cls: type[Process]) -> ProcessDefinition:
    if not (isinstance(cls, type) and issubclass(cls, Process)) or cls is Process:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidProcess(f"{cls!r} is no process.", "Derive a class from ef.Process.")
    options = class_options(cls, ProcessOptions)
    name = check_name(options.name or component_name(cls), "a process")
    if options.start is None:
        raise InvalidProcess(
            f"{cls.__name__} does not declare where it starts, and its actions cannot be undone.",
            f'Write class {cls.__name__}(ef.Process, start="now"), or start="beginning" for all events in the log.',
        )
    state = state_definition_of(cls)
    tagged = dict(state.tags)
    plain = [field for field in state.question if field not in tagged]
    if plain:
        raise InvalidProcess(
            f"{cls.__name__} is asked by {', '.join(plain)}, which is no tag: no event names its instance.",
            "Make it an ef.Tag, or give it a default.",
        )
    tags = tuple(tagged[field] for field in state.question)
    partitions = options.partitions if tags else 1
    events = _events(cls)
    definition = ProcessDefinition(
        cls, name, options.start, options.attempts, options.max_chain, partitions, events, tags, {}
    )
    for event in events:
        definition.keys[event] = _keys(definition, event)
    return definition


def _events(cls: type[Process]) -> tuple[type, ...]:
    if inspect.iscoroutinefunction(cls.react) or inspect.isasyncgenfunction(cls.react):
        raise InvalidProcess(
            f"{cls.__name__}.react is asynchronous, and a reaction cannot wait.",
            "Make it a plain function that returns or yields its actions.",
        )
    with resolving_annotations(f"{cls.__name__}.react", InvalidProcess):
        hints = typing.get_type_hints(cls.react, None, visible_names(cls))
    found = event_classes(hints.get("event"), partial(_refuse, cls)).classes
    if Event in found:
        raise _refuse(cls, "takes every event", None)
    return found


def _refuse(cls: type, what: str, remedy: str | None) -> InvalidProcess:
    return InvalidProcess(
        f"{cls.__name__}.react {what}.", remedy or "Annotate it with event classes: def react(self, event: A | B)."
    )


def _keys(definition: ProcessDefinition, event: type) -> Callable[[Any], list[Key]]:
    """Return the function that finds an event's instances: by the fields that have the tag keys of the question."""
    by_key = fields_by_tag(event)
    missing = [key for key in definition.tags if key not in by_key]
    if missing:
        raise InvalidProcess(
            f"{definition.cls.__name__} reacts to {event.__name__}, which has no tag {', '.join(missing)}: "
            "it cannot be assigned to an instance.",
            f"Make that field of {event.__name__} an ef.Tag.",
        )
    getters = [[attrgetter(field) for field in by_key[key]] for key in definition.tags]

    def keys(event: Any) -> list[Key]:
        values = [[value for get in each for value in _values(get(event))] for each in getters]
        return list(dict.fromkeys(itertools.product(*values)))

    return keys


def _values(value: Any) -> Iterable[Any]:
    if value is None:
        return ()
    return value if isinstance(value, list | tuple | set | frozenset) else (value,)  # pyright: ignore[reportUnknownVariableType]
