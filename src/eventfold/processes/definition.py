"""What a Process class means, compiled once: its name, the events it reacts to, which instance one belongs to.

Knows: annotations, tag fields. Does not know: positions, the log, the order of steps.
"""

from __future__ import annotations

import inspect
import itertools
import re
import types
import typing
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, Union, get_args, get_origin

import msgspec

from eventfold.core.class_data import get_class_data, set_class_data, visible_names
from eventfold.core.event import Event, declarations_version, hint_for_generic, is_event_class, without_parameters
from eventfold.core.state import state_definition_of as fold_of
from eventfold.core.tags import tag_fields
from eventfold.errors import InvalidProcess
from eventfold.processes.actions import class_of
from eventfold.processes.classes import Process, Start, process_options

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
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
    generation: int
    keys: dict[type, Callable[[Any], list[Key]]] = {}

    def keys_of(self, event: Any) -> list[Key]:
        """The instances an event belongs to, each as the values of its question."""
        found = self.keys.get(class_of(event))
        if found is None:
            found = self.keys[class_of(event)] = _keys(self, class_of(event))
        return found(event)

    @property
    def location(self) -> str:
        """Where its reaction is written, for whoever must mend it."""
        code = self.cls.react.__code__
        return f"{self.cls.__qualname__}.react ({code.co_filename.rpartition('/')[2]}, line {code.co_firstlineno})"


_DEFINITION = "__eventfold_process_plan__"


def process_definition(cls: type[Process]) -> ProcessDefinition:
    """The plan of a Process class. Raises InvalidProcess, or InvalidState where it cannot be folded."""
    plan: ProcessDefinition | None = get_class_data(cls, _DEFINITION)
    if plan is None or plan.generation != declarations_version():
        plan = _compile(cls)
        set_class_data(cls, _DEFINITION, plan)
    return plan


def key_text(key: Key) -> str:
    """An instance's key as it is told, remembered and hashed: another text for every other key."""
    if len(key) == 1:
        return str(key[0])
    return ", ".join(str(part).replace("\\", "\\\\").replace(", ", "\\, ") for part in key)


def _compile(cls: type[Process]) -> ProcessDefinition:
    if not (isinstance(cls, type) and issubclass(cls, Process)) or cls is Process:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidProcess(f"{cls!r} is no process.", "Derive a class from ef.Process.")
    terms = process_options(cls)
    name = terms.name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
    if not NAME.fullmatch(name) or "__" in name:
        raise InvalidProcess(
            f"{name!r} cannot be the name of a process.",
            "Use up to 40 small letters, digits and single underscores, a letter first: name=….",
        )
    if terms.start is None:
        raise InvalidProcess(
            f"{cls.__name__} does not say where it starts, and what it does cannot be taken back.",
            f'Say class {cls.__name__}(ef.Process, start="now"), or start="beginning" for every event there ever was.',
        )
    fold = fold_of(cls)
    tagged = dict(fold.tags)
    plain = [field for field in fold.question if field not in tagged]
    if plain:
        raise InvalidProcess(
            f"{cls.__name__} asks by {', '.join(plain)}, which is no tag: no event says which instance it belongs to.",
            "Make it an ef.Tag, or give it a default.",
        )
    tags = tuple(tagged[field] for field in fold.question)
    partitions = terms.partitions if tags else 1
    events = _events(cls)
    plan = ProcessDefinition(
        cls, name, terms.start, terms.attempts, terms.max_chain, partitions, events, tags, declarations_version(), {}
    )
    for event in events:
        plan.keys[event] = _keys(plan, event)
    return plan


def _events(cls: type[Process]) -> tuple[type, ...]:
    if inspect.iscoroutinefunction(cls.react) or inspect.isasyncgenfunction(cls.react):
        raise InvalidProcess(
            f"{cls.__name__}.react is asynchronous, and a reaction waits for nothing.",
            "Make it a plain function that returns or yields what it asks for.",
        )
    try:
        hints = typing.get_type_hints(cls.react, None, visible_names(cls))
    except NameError as error:
        raise InvalidProcess(
            f"The annotations of {cls.__name__}.react cannot be resolved: {error}.",
            "Define the classes it names in the same module or function, above it.",
        ) from error
    hint = hints.get("event")
    found = list(_alternatives(hint))
    for each in found:
        if not (isinstance(each, type) and is_event_class(each)) or each is Event:
            told = "does not say which events it reacts to" if each in (None, Any) else f"takes {each!r}"
            raise InvalidProcess(
                f"{cls.__name__}.react {told}.",
                hint_for_generic(each) or "Annotate it with event classes: def react(self, event: A | B).",
            )
    return tuple(found)


def _alternatives(hint: Any) -> Iterable[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        for arg in get_args(hint):
            yield from _alternatives(arg)
    elif get_origin(hint) is typing.Annotated:
        yield from _alternatives(hint.__origin__)
    else:
        yield without_parameters(hint)


def _keys(plan: ProcessDefinition, event: type) -> Callable[[Any], list[Key]]:
    """How an event of a class says which instances it belongs to: by the fields with the question's tag keys."""
    by_key: dict[str, list[str]] = {}
    for field, key in tag_fields(typing.get_type_hints(event, include_extras=True)).items():
        by_key.setdefault(key, []).append(field)
    missing = [key for key in plan.tags if key not in by_key]
    if missing:
        raise InvalidProcess(
            f"{plan.cls.__name__} reacts to {event.__name__}, which has no tag {', '.join(missing)}: "
            "nobody could say which instance it belongs to.",
            f"Make that field of {event.__name__} an ef.Tag.",
        )
    getters = [[attrgetter(field) for field in by_key[key]] for key in plan.tags]

    def keys(event: Any) -> list[Key]:
        values = [[value for get in each for value in _values(get(event))] for each in getters]
        return list(dict.fromkeys(itertools.product(*values)))

    return keys


def _values(value: Any) -> Iterable[Any]:
    if value is None:
        return ()
    return value if isinstance(value, list | tuple | set | frozenset) else (value,)  # pyright: ignore[reportUnknownVariableType]
