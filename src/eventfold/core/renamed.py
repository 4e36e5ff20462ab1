"""Old public names: each is refused with an error that says which name to write instead.

Knows: the names of version 0.1 and those of 1.0. Does not know: what they mean. Nothing here runs while the new names
are used: the import finder is asked last, and the attributes and keywords are looked up only where they are written.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, ParamSpec, TypeVar, cast

from eventfold.errors import EventfoldError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

# Modules, below `eventfold`. A module of an old folder is found by its longest beginning in this table.
MODULES = {
    "aggregate": "core.aggregate",
    "bridge": "concurrency",
    "engine": "ports.engine",
    "event": "core.event",
    "fingerprint": "core.fingerprint",
    "flow": "log",
    "inlined": "ports.inline",
    "integrity": "ports.integrity",
    "joining": "transactions",
    "posting": "webhooks",
    "process": "processes",
    "processes.webhooks": "webhooks",
    "projection": "projections",
    "query": "core.query",
    "record": "core.envelope",
    "refusal": "ports.refusals",
    "registry": "core.registry",
    "running": "projections",
    "sink": "ports.sink",
    "snapshot": "core.snapshot",
    "state": "core.state",
    "target": "ports.target",
    "targets.alchemy": "targets.sqlalchemy",
    "targets.beside": "targets.outbox",
    "targets.duck": "targets.duckdb",
    "testing.conformance.every": "testing.conformance.all_chapters",
    "testing.conformance.place": "testing.conformance.engine_under_test",
    "unknown": "core.unknown_fields",
    "upcast": "core.upcast",
}
# Names that were renamed as well when their module was, or that are exported by `eventfold` now.
HINTS = {
    "engine": "Optional methods of an engine are in its services now; request is receipt_of.",
    "query": "Query is in eventfold itself; Clause is ConditionClause now.",
    "record": "Receipt and NewEvent are in eventfold itself.",
    "running": "Desk is ProjectionAdmin now, in eventfold.projections.admin.",
    "sink": "Held is SinkState now.",
    "target": "Place is PartitionKey, Entry is ParkedEvent, Registered is ProjectionRecord now.",
    "testing.conformance.place": "Place is EngineUnderTest now, and the fixture place is engine_under_test.",
}
# Names in modules, below `eventfold`.
NAMES = {
    "Unknown": "UnknownFields",
    "schema.Described": "schema.EventDescription",
    "schema.lock_of": "schema.build_lock",
    "schema.types_of": "schema.event_classes",
    "testing.Loop": "testing.LoopRunner",
}
# Attributes and methods, by class.
ATTRIBUTES = {
    "Decision": {"told": "description"},
    "Effect": {"take": "call_with"},
    "EventfoldError": {"now": "remedy"},
    "Store": {
        "authorised": "with_authorization",
        "joining": "in_transaction",
        "settle": "run_until_idle",
    },
    "ProjectionAdmin": {"forget": "remove", "keeping": "follower_progress", "known": "list"},
    "AsyncProjectionAdmin": {"forget": "remove", "known": "list"},
    "Faulty": {"forgive": "clear"},
    "Query": {"names": "count_names"},
}
# Keyword arguments, by function or class.
KEYWORDS = {
    "EventfoldError": {"now": "remedy"},
    "copy_to": {"succeed": "keep_identity"},
    "effect": {"first": "first_delay", "most": "max_delay"},
    "webhook": {"first": "first_delay", "most": "max_delay"},
    "Process": {"bound": "max_chain"},
    "PostgresEngine": {"colour": "mode"},
}
# Commands and options of the command line, by the words that stand before them.
COMMANDS = {"projections forget": "projections remove"}
OPTIONS = {"copy": {"--succeed": "--keep-identity"}}


def explain_name(name: str) -> str | None:
    """What to write instead of an old module or name below `eventfold`; None if it is not an old one."""
    if name in NAMES:
        return f"eventfold.{name} was renamed. Write eventfold.{NAMES[name]}."
    beginning = name
    while beginning and beginning not in MODULES:
        beginning = beginning.rpartition(".")[0]
    if not beginning:
        return None
    message = f"The module eventfold.{beginning} was renamed. Import from eventfold.{MODULES[beginning]}."
    return f"{message} {HINTS[beginning]}" if beginning in HINTS else message


class RenamedModules:
    """An import finder that is asked last: raises ImportError for old modules, and for old names in `from … import`.

    `from eventfold import Unknown` asks for a module `eventfold.Unknown` once the package has no such attribute. An
    AttributeError would be replaced by Python's own message, and a ModuleNotFoundError as well; an ImportError is not.
    """

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        """Find nothing."""
        package, _, name = fullname.partition(".")
        if package == "eventfold" and (message := explain_name(name)):
            raise ImportError(message, name=fullname)


class RenamedAttribute:
    """Stands in a class under an old name. Raises AttributeError with the new one."""

    def __init__(self, old: str, new: str) -> None:
        self._old, self._new = old, new

    def __get__(self, instance: object, owner: type) -> NoReturn:
        name = owner.__name__
        raise AttributeError(f"{name}.{self._old} was renamed. Write {name}.{self._new}.")


def refuse_old_attributes(known_as: str) -> Callable[[type[T]], type[T]]:
    """A class decorator: the class refuses its old names, those of `ATTRIBUTES`."""

    def decorate(cls: type[T]) -> type[T]:
        for old, new in ATTRIBUTES[known_as].items():
            setattr(cls, old, RenamedAttribute(old, new))
        return cls

    return decorate


def check_keywords(function: str, keywords: Mapping[str, Any]) -> None:
    """Raises TypeError if one of these keywords is an old one of a function or class."""
    for old, new in KEYWORDS[function].items():
        if old in keywords:
            raise TypeError(f"{function}(): the argument {old}= was renamed. Write {new}=….")


def refuse_old_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """The function, or coroutine function, with its old keywords refused by name: those of `KEYWORDS`."""
    import inspect  # here: few modules declare such functions, and `import eventfold` is quick

    name = function.__name__
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_and_wait(*args: P.args, **kwargs: P.kwargs) -> Any:
            check_keywords(name, kwargs)
            return await function(*args, **kwargs)

        return cast("Callable[P, R]", call_and_wait)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        check_keywords(name, kwargs)
        return function(*args, **kwargs)

    return call


refuse_old_attributes("EventfoldError")(EventfoldError)  # here: errors.py imports nothing of the package


def refuse_old_imports() -> None:
    """Refuse old modules, and old names in `from … import`, from now on; once in a process."""
    if not any(type(each).__name__ == RenamedModules.__name__ for each in sys.meta_path):
        sys.meta_path.append(cast("Any", RenamedModules()))
