"""The user's code that a server knows: events, States, projections and processes of the modules that it was given.

Knows: imports, which class is what. Does not know: stores, HTTP, how code that uses an event is found.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from eventfold.core.event import Event, declaration_of, is_event_class
from eventfold.core.state import State, state_definition_of
from eventfold.core.user_code import user_code_errors
from eventfold.errors import InvalidInput
from eventfold.processes import Effect, Process
from eventfold.processes.work import name_of
from eventfold.projections.catalog import declaring_module
from eventfold.projections.definition import ProjectionLike, projection_definition
from eventfold.schema.describe import event_classes
from eventfold.schema.entries import CatalogueEntry, entries

REMEDY = "Give import paths of modules, such as bank, or MODULE:NAME of a class, such as bank:Account."


class Registered:
    """What the modules of a server declare, by name.

    `modules`: import paths (`bank`), addresses of one object (`bank:Account`), module objects, or classes. A module
    counts with what it imports from its own package. Of one object, the events that it folds are registered too.
    Raises InvalidInput if something cannot be imported, or two classes of one kind have the same name.
    """

    def __init__(self, modules: Iterable[str | ModuleType | object] = ()) -> None:
        self.modules: tuple[str, ...] = ()
        self.events: dict[tuple[str, int], type] = {}  # by stored name and version
        self.states: dict[str, type[State]] = {}  # by the name of the class; processes and aggregates too
        self.projections: dict[str, ProjectionLike] = {}  # by the name of the projection
        self.processes: dict[str, type[Process] | Effect] = {}  # by the name of the process or effect
        for each in modules:
            self._add_source(each)

    def __bool__(self) -> bool:
        return bool(self.modules)

    @cached_property
    def catalogue(self) -> list[CatalogueEntry]:
        """The catalogue of the registered events. It reads source code once: ask for it in a thread."""
        sources = {f"{cls.__module__}.{cls.__qualname__}" for cls in self.events.values()}
        homes = dict.fromkeys([*self.modules, *(cls.__module__ for cls in self.events.values())])
        return [each for each in entries(homes) if each.source in sources]

    def event_class(self, name: str) -> type | None:
        """Return the newest class that writes events of this type; None if no registered class does."""
        versions = [version for type_name, version in self.events if type_name == name]
        return self.events[name, max(versions)] if versions else None

    def _add_source(self, source: str | ModuleType | object) -> None:
        if isinstance(source, str):
            module_name, colon, name = source.partition(":")
            module: Any = _import(module_name)
            if not colon:
                self._add_module(module)
                return
            found: Any = module
            for part in name.split("."):
                if not hasattr(found, part):
                    raise InvalidInput(f"{module_name} has no {name}.", REMEDY, module=source)
                found = getattr(found, part)
            source = found
        if isinstance(source, ModuleType):
            self._add_module(source)
        elif not self._add(source):
            raise InvalidInput(f"{source!r} is no event, State, projection, process or effect.", REMEDY)

    def _add_module(self, module: ModuleType) -> None:
        self._remember(module.__name__)
        for cls in event_classes([module.__name__]):
            self._add(cls)
        for value in list(vars(module).values()):
            home = _home_of(value)
            if home is not None and (home == module.__name__ or home.startswith(f"{module.__name__}.")):
                self._add(value)

    def _add(self, value: Any) -> bool:
        """Register one object and the events that it folds; return whether it is one that can be registered."""
        if inspect.isclass(value) and issubclass(value, State):
            if _is_base(value):
                return False
            self._put(self.states, value.__name__, value)
            self._add_events(state_definition_of(value).events)
        if (home := _home_of(value)) is None:
            return False
        self._remember(home)
        self._add_named(value)
        return True

    def _add_named(self, value: Any) -> None:
        if isinstance(value, Effect) or (inspect.isclass(value) and issubclass(value, Process)):
            self._put(self.processes, name_of(value), value)
        elif declaring_module(value) is not None:
            definition = projection_definition(cast("ProjectionLike", value))
            self._put(self.projections, definition.name, value)
            self._add_events(definition.events)
        elif inspect.isclass(value) and is_event_class(value):
            self._add_events((value,))

    def _add_events(self, classes: Iterable[type]) -> None:
        for cls in classes:
            if cls is not Event and is_event_class(cls):
                declared = declaration_of(cls)
                self.events[declared.type, declared.version] = cls

    def _put(self, into: dict[str, Any], name: str, value: Any) -> None:
        other = into.setdefault(name, value)
        if other is not value:
            raise InvalidInput(
                f"Two registered classes are named {name}: {_address(other)} and {_address(value)}.",
                "Register one of them only: MODULE:NAME instead of MODULE.",
                name=name,
            )

    def _remember(self, module: str) -> None:
        if module not in self.modules:
            self.modules = (*self.modules, module)


def _import(name: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    with user_code_errors(f"Importing {name}", InvalidInput):
        try:
            return importlib.import_module(name)
        except (ModuleNotFoundError, ValueError) as error:
            missing = getattr(error, "name", None)
            if missing is not None and not f"{name}.".startswith(f"{missing}."):
                raise  # a module that the user's module imports
            raise InvalidInput(
                f"There is no module {name!r} in {folder} or among the installed packages.", REMEDY, module=name
            ) from error


def _home_of(value: Any) -> str | None:
    """The module that declares an object which can be registered; None for any other object."""
    if isinstance(value, Effect):
        return value.code.partition(":")[0]
    if (projection := declaring_module(value)) is not None:
        return projection
    if inspect.isclass(value) and not _is_base(value) and (is_event_class(value) or issubclass(value, State)):
        return value.__module__
    return None


def _is_base(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "eventfold"


def _address(value: Any) -> str:
    return value.code if isinstance(value, Effect) else f"{value.__module__}:{getattr(value, '__qualname__', value)}"
