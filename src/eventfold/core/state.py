"""States: classes that are folded from events, their queries, copies and differences. Pure: no clock, thread, database.

A State's fields without a default identify it (the question), the others are folded (the answer); `evolve` is one step
of the fold. Knows: event classes, queries. Does not know: bytes, the log, where events come from.
"""

from __future__ import annotations

import copy
import sys
import types
import typing
import weakref
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar, Union, cast, get_args, get_origin
from uuid import UUID

import msgspec

from eventfold.core.annotations import event_classes, resolving_annotations
from eventfold.core.class_data import get_class_data, remember_visible_names, set_class_data, visible_names
from eventfold.core.envelope import unwritten_event
from eventfold.core.event import (
    Event,
    Recorded,
    declaration_of,
    declarations_version,
    stored_names_of,
)
from eventfold.core.parameters import takes_envelope
from eventfold.core.query import Item, Query, check_limits
from eventfold.core.tags import fields_by_tag, tag_fields, tag_values
from eventfold.errors import InvalidProjection, InvalidState

S = TypeVar("S", bound="State")
Copier = Callable[[Any], Any]
FEW_TYPES = 1_000  # event types of a class whose query of one item is within the limits of a query in any case


def refuse_hidden_methods(cls: type, error: type[InvalidState | InvalidProjection] = InvalidState) -> None:
    """Raise `error` if a field has the name of a method that the library calls."""
    ours = [base for base in cls.__mro__ if base.__module__.startswith("eventfold.")]
    if cls in ours:
        return
    fields: tuple[str, ...] = getattr(cls, "__struct_fields__", ())
    for name in fields:
        if name[0] != "_" and any(callable(getattr(base, name, None)) for base in ours):
            raise error(
                f"{cls.__qualname__} has a field {name}, which hides the method of that name.",
                f"Name the field otherwise; a tag keeps its key: {name}_: Annotated[str, ef.tag({name!r})]."
                if error is InvalidState
                else f"Name the field otherwise, {name}_ for example.",
                state=cls.__qualname__,
                field=name,
            )


if TYPE_CHECKING:
    from typing_extensions import dataclass_transform

    @dataclass_transform(field_specifiers=(msgspec.field,))
    class StateMeta(type):
        """What a type checker sees of the metaclass."""

    class _Struct(metaclass=StateMeta):
        __struct_fields__: ClassVar[tuple[str, ...]]
        __struct_defaults__: ClassVar[tuple[Any, ...]]
        __eventfold_plan__: ClassVar[StateDefinition | None]  # of the class, or of a base class

else:

    class StateMeta(msgspec.StructMeta):
        """Stores the names that are visible where a class is defined, for its annotations; and its `version`."""

        def __new__(mcls, name, bases, namespace, *, version=None, **options):
            cls = super().__new__(mcls, name, bases, namespace, **options)
            refuse_hidden_methods(cls)
            if version is not None:
                set_class_data(cls, _VERSION, version)
            remember_visible_names(cls, sys._getframe(1).f_locals)
            return cls

    class _Struct(msgspec.Struct, metaclass=StateMeta):
        __eventfold_plan__ = None


_VERSION = "__eventfold_version__"


def version_of(cls: type) -> str | int | None:
    """Return the `version=` of a class, or of the nearest base class that has one; None if there is none."""
    given: list[Any] = [get_class_data(base, _VERSION) for base in cls.__mro__]
    return next((version for version in given if version is not None), None)


class State(_Struct):
    """The base class of states folded from events: `store.state(Account("a-1"))` returns the folded `Account("a-1")`.

    Write `evolve(self, event: A | B) -> None`, which changes `self` and returns nothing. The query has the event types
    in its annotation, and the tags of the fields without a default; override `query()` for another one. With a second
    parameter, `evolve(self, event: A | B, recorded: ef.Recorded)`, it gets the envelope: time, metadata, position, ….

    `class Account(ef.State, version=2)`: snapshots of another version are not used. A version is needed only if
    `evolve` uses objects that cannot be compared between releases; the logger `eventfold` warns of that.
    """

    def query(self) -> Query:
        """Return the query for the events that this state is folded from."""
        plan = state_definition_of(type(self))
        return plan.query(self)

    if TYPE_CHECKING:  # with any further parameters, so that an override with `recorded` is valid, too

        def evolve(self, event: Any, /, *more: Any, **named: Any) -> None:
            """See below."""
    else:

        def evolve(self, event: Any) -> None:
            """Apply one event: change `self`, return None, and never refuse, since the event has already happened.

            A second parameter, if there is one, gets the Recorded. An event that an aggregate records is folded into it
            immediately, before it is written: then position is 0, time is now, and id, tags and metadata are empty.
            States that are cached, or returned by a decision, are folded with the envelope that was written.
            """
            raise InvalidState(
                f"{type(self).__name__} has no evolve method.",
                "Write def evolve(self, event: …) -> None, naming the events it is folded from.",
            )


class StateDefinition(msgspec.Struct):
    """A State class, compiled once: its event types, its question, how to copy its fields."""

    cls: type[State]
    events: tuple[type, ...]
    types: tuple[str, ...]
    question: tuple[str, ...]
    tags: tuple[tuple[str, str], ...]
    copiers: tuple[tuple[str, Copier], ...]
    declarations_version: int
    recorded: bool = False  # whether evolve has a parameter for the envelope

    def query(self, state: State) -> Query:
        """Return the query of one question. A tuple field means any of its values: the query has one item for each."""
        alternatives: list[tuple[str, ...]] = [()]
        for field, key in self.tags:
            value = getattr(state, field)
            if type(value) is str and len(alternatives) == 1:  # as most are, without the calls for other types
                alternatives = [(*alternatives[0], f"{key}:{value}")]
                continue
            values = [f"{key}:{text}" for text in tag_values(value)]
            alternatives = [tags + (value,) for tags in alternatives for value in values]
        if not alternatives:
            raise InvalidState(
                f"{state!r} has an empty value in a tag field, so it matches no event.",
                "Give every tag field a value.",
                state=repr(state),
            )
        if len(alternatives) == 1 and alternatives[0]:
            query = Query((Item(self.types, tuple(sorted(alternatives[0]))),))
            return query if len(self.types) < FEW_TYPES else check_limits(query)
        return check_limits(Query.any_of(Item(self.types, tuple(sorted(tags))) for tags in alternatives))

    def key(self, state: State) -> tuple[Any, ...]:
        """Return what identifies a question: the class and the values of the question's fields."""
        if len(self.question) == 1 and type(value := getattr(state, self.question[0])) is str:  # as most are
            return (self.cls, value)
        return (self.cls, *[_hashable(getattr(state, name)) for name in self.question])

    def initial(self, state: S) -> S:
        """Return the same question with default values in the other fields: the start of a fold."""
        blank = type(state)(**{name: getattr(state, name) for name in self.question})
        for name, copy_of in self.copiers:
            if name in self.question:  # for example a list, which the caller may change later
                setattr(blank, name, copy_of(getattr(blank, name)))
        return blank


def _hashable(value: Any) -> Any:
    """Return a question's value as part of a key. Raises InvalidState if it has no hash."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_hashable, cast("list[Any]", value)))
    if isinstance(value, dict):
        return frozenset((key, _hashable(each)) for key, each in cast("dict[Any, Any]", value).items())
    if isinstance(value, set):
        return frozenset(cast("set[Any]", value))
    try:
        hash(value)
    except TypeError:
        raise InvalidState(
            f"A field without a default of a State has the value {value!r:.200}, which has no hash.",
            "Use plain values, such as text, numbers, dates or tuples of them, or values of a frozen class.",
        ) from None
    return value


def state_definition_of(cls: type[State]) -> StateDefinition:
    """Return the compiled definition of a State class. Raises InvalidState if it cannot be folded."""
    plan = cls.__eventfold_plan__
    if plan is None or plan.cls is not cls or plan.declarations_version != declarations_version():
        plan = cls.__eventfold_plan__ = _compile(cls)
    return plan


def _compile(cls: type[State]) -> StateDefinition:
    scope = visible_names(cls)
    fields, defaults = cls.__struct_fields__, cls.__struct_defaults__
    with resolving_annotations(cls.__name__, InvalidState):
        hints = typing.get_type_hints(cls, None, scope, include_extras=True)
        evolve = typing.get_type_hints(cls.evolve, None, scope)
    first = len(fields) - len(defaults)
    mixed = zip(fields[first:], defaults, strict=True)  # with kw_only, fields without a default may come late
    question = fields[:first] + tuple(field for field, default in mixed if default is msgspec.NODEFAULT)
    tags = tuple((field, key) for field, key in tag_fields(hints).items() if field in question)
    recorded = takes_envelope(cls.evolve, f"{cls.__name__}.evolve", InvalidState)
    hint = evolve.get("event", next(iter(evolve.values()), None))
    events = event_classes(hint, partial(_refuse, cls)).classes
    names: dict[str, None] = {}
    for each in events:
        names.update(dict.fromkeys(stored_names_of(each)))
    anything = Event in events
    if cls.query is State.query and not anything:
        _check_tags(cls, events, {key for _, key in tags})
    copiers = tuple((name, c) for name in fields if (c := copier_for(hints[name])) is not None)
    types = () if anything else tuple(names)
    return StateDefinition(cls, events, types, question, tags, copiers, declarations_version(), recorded)


def _refuse(cls: type, what: str, remedy: str | None) -> InvalidState:
    return InvalidState(
        f"{cls.__name__}.evolve {what}.",
        remedy or "Annotate it with event classes: def evolve(self, event: Opened | Closed) -> None.",
    )


def _check_tags(cls: type, events: Iterable[type], asked: set[str]) -> None:
    for event in events:
        try:
            has = fields_by_tag(event).keys()
        except NameError as error:
            raise InvalidState(
                f"The annotations of {event.__name__} cannot be resolved: {error}.",
                "Define the types it names where its module can see them.",
                event=event.__name__,
            ) from error
        missing = sorted(asked - has)
        if missing:
            raise InvalidState(
                f"{cls.__name__} queries by the tag {', '.join(missing)}, and {event.__name__} has no such tag.",
                "Make that field of the event an ef.Tag, or override query(): no such event would match.",
                state=cls.__name__,
                event=event.__name__,
            )


def evolve_all(state: State, events: Iterable[Any]) -> None:
    """Fold events into a state, in place. Raises InvalidState if `evolve` returns a value, which would be lost.

    For events that are not written yet, and for states whose `evolve` has no parameter for the envelope.
    """
    if state_definition_of(type(state)).recorded:
        evolve_recorded(state, map(_unwritten, events))
        return
    evolve_plain(state, events)


def evolve_plain(state: State, events: Iterable[Any]) -> None:
    """Do the same for a state whose `evolve` is known to have no parameter for the envelope."""
    evolve = state.evolve
    for event in events:
        if evolve(event) is not None:
            raise _refuse_result(state, event)


def evolve_recorded(state: State, recorded: Iterable[Recorded[Any]]) -> None:
    """Fold events into a state, in place, with their envelopes if its `evolve` has a parameter for them."""
    if not state_definition_of(type(state)).recorded:
        evolve_all(state, [each.event for each in recorded])
        return
    evolve = state.evolve
    for each in recorded:
        if evolve(each.event, each) is not None:  # pyright: ignore[reportUnnecessaryComparison]
            raise _refuse_result(state, each.event)


def _unwritten(event: Any) -> Recorded[Any]:
    name = declaration_of(cast("type[Any]", type(event)))
    return Recorded(unwritten_event(name.type, name.version), event)


def _refuse_result(state: State, event: object) -> InvalidState:
    return InvalidState(
        f"{type(state).__name__}.evolve returned a value for {type(event).__name__}, which would be lost.",
        "Assign to self and return nothing.",
    )


def copy_state(state: S, definition: StateDefinition | None = None) -> S:
    """Return a copy that shares nothing mutable with the original, so that a caller cannot change a cached state.

    `definition`: that of its class, if the caller has it.
    """
    twin = cast("Any", state).__copy__()  # by msgspec
    for name, copier_of in (definition or state_definition_of(type(state))).copiers:
        setattr(twin, name, copier_of(getattr(state, name)))
    return twin


def private_copy(event: Any) -> Any:
    """Return an event for a fold whose result is cached: the event itself if it is immutable, else a deep copy."""
    cls = cast("type[Any]", type(event))
    changes = _changing.get(cls)
    if changes is None:
        try:
            changes = copier_for(cls) is not None
        except (NameError, TypeError):  # annotations that cannot be resolved here
            changes = True
        _changing[cls] = changes
    return copy.deepcopy(event) if changes else event


_changing: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()
_IMMUTABLE = (str, bytes, int, float, bool, complex, type(None), Decimal, UUID, date, datetime, time, timedelta, Enum)


def copier_for(hint: Any) -> Copier | None:
    """Return how to copy a value of a declared type; None if it is immutable and may be shared."""
    if isinstance(hint, TypeVar):
        return copier_for(hint.__bound__) if hint.__bound__ else copy.deepcopy
    origin, args = get_origin(hint), get_args(hint)
    if origin is typing.Annotated:
        return copier_for(hint.__origin__)
    if isinstance(hint, typing.NewType):
        return copier_for(hint.__supertype__)
    if origin is typing.Literal:
        return None
    if origin in (Union, types.UnionType, tuple, frozenset):
        return None if all(a is Ellipsis or copier_for(a) is None for a in args) else copy.deepcopy
    if origin in (list, set):
        return copy.copy if copier_for(args[0]) is None else copy.deepcopy
    if origin is dict and copier_for(args[0]) is None:
        inner = copier_for(args[1])
        return copy.copy if inner is None else _dict_copier(inner)
    if isinstance(hint, type) and _is_immutable(cast("type[Any]", hint)):
        return None
    return copy.deepcopy


def _is_immutable(cls: type[Any]) -> bool:
    """Whether values of a class are immutable: built-in values, and frozen structs of immutable values."""
    if issubclass(cls, _IMMUTABLE):
        return True
    config = getattr(cls, "__struct_config__", None)
    if config is None or not config.frozen:
        return False
    hints = typing.get_type_hints(cls, include_extras=True)
    return all(hint is cls or copier_for(hint) is None for hint in hints.values())


def _dict_copier(inner: Copier) -> Copier:
    def copy_dict(value: dict[Any, Any]) -> dict[Any, Any]:
        if type(value) is dict:
            return {key: inner(each) for key, each in value.items()}
        twin = copy.copy(value)  # a defaultdict stays one
        twin.update((key, inner(each)) for key, each in value.items())
        return twin

    return copy_dict


class Change(NamedTuple):
    """The value of a field before and after; `ABSENT` where a dict did not have the key."""

    before: Any
    after: Any


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT: Any = _Absent()


def diff(before: S, after: S) -> dict[str, Change]:
    """Return what differs between two moments of one state: field -> (before, after).

    For a dict field, only the keys that differ are in the result, as `field[key]`. Raises InvalidState if the two are
    of different classes.
    """
    if type(before) is not type(after):
        raise InvalidState(
            f"A {type(before).__name__} and a {type(after).__name__} cannot be compared.",
            "Give two states of the same class.",
        )
    changes: dict[str, Change] = {}
    for name in before.__struct_fields__:
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            olds, news = cast("dict[Any, Any]", old), cast("dict[Any, Any]", new)
            for key in [*olds, *[k for k in news if k not in olds]]:
                pair = Change(olds.get(key, ABSENT), news.get(key, ABSENT))
                if pair.before != pair.after:
                    changes[f"{name}[{key}]"] = pair
        else:
            changes[name] = Change(old, new)
    return changes


if TYPE_CHECKING:
    from typing_extensions import TypeVar as _DefaultTypeVar

    _St = _DefaultTypeVar("_St", default=Any)  # so that `Step` alone is a type
else:
    _St = TypeVar("_St")


class Step(NamedTuple, Generic[_St]):
    """One step of a history: the event, and the state after it."""

    recorded: Recorded[Any]
    state: _St


__all__ = [
    "ABSENT",
    "Change",
    "State",
    "StateDefinition",
    "Step",
    "copy_state",
    "diff",
    "evolve_all",
    "evolve_plain",
    "evolve_recorded",
    "state_definition_of",
]
