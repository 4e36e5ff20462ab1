"""Upcasters: plain typed functions that convert an event of an old class to a newer one.

    @ef.upcast
    def with_currency(old: PricedV1) -> Priced:
        return Priced(old.item, old.amount, "EUR")

The old class keeps its stored name and version. Every read applies the chain of upcasters to its end, so states and
projections handle only the newest classes, also where a decision has just returned an event of an old one. A tuple as
the return type splits one event into several. Stored events are never rewritten.
Knows: classes. Does not know: bytes, positions, where events are stored.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, Union, cast, get_args, get_origin

import msgspec

from eventfold.core.annotations import resolving_annotations
from eventfold.core.class_data import set_class_data
from eventfold.core.event import (
    classes_named,
    declaration_of,
    hint_for_generic,
    is_event_class,
    register_upcast_source,
    without_parameters,
)
from eventfold.errors import InvalidEvent

F = TypeVar("F", bound=Callable[..., Any])


class Upcaster(msgspec.Struct, frozen=True):
    """One step: from a class to one class, or to several if it splits events."""

    function: Callable[[Any], Any]
    source: type
    targets: tuple[type, ...]

    @property
    def name(self) -> str:
        """The name of its function in messages."""
        return f"{self.function.__module__}.{self.function.__qualname__}"


UPCASTER = "__eventfold_upcaster__"


def upcast(function: F) -> F:
    """Declare `def step(old: Old) -> New` as the conversion of an old event class to a newer one. A decorator.

    Raises InvalidEvent at the declaration if the same class has another upcaster already, if the step closes a cycle,
    or if its annotations are not event classes.
    """
    with resolving_annotations(f"the upcaster {function.__qualname__}", InvalidEvent):
        hints = typing.get_type_hints(function, None, sys._getframe(1).f_locals)  # pyright: ignore[reportPrivateUsage]
    result = hints.pop("return", None)
    sources = [without_parameters(each) for each in hints.values()]
    targets = tuple(_classes(result))
    if len(sources) != 1 or not targets or not all(map(_is_event, [*sources, *targets])):
        raise InvalidEvent(
            f"The annotations of the upcaster {function.__qualname__} do not name an old and a new event class.",
            next(filter(None, map(hint_for_generic, [*sources, *targets])), None)
            or "Annotate it: def step(old: OldClass) -> NewClass (or -> tuple[A, B] for a split).",
        )
    step = Upcaster(function, sources[0], targets)
    known = upcaster_from(step.source)
    if known is not None and known.name != step.name:
        raise InvalidEvent(
            f"{step.source.__qualname__} has two upcasters, {known.name} and {step.name}.",
            "Keep one upcaster for each old class; chain them one version at a time.",
        )
    _refuse_cycles(step)
    set_class_data(step.source, UPCASTER, step)
    for target in targets:
        register_upcast_source(target, step.source)
    return function


def _classes(hint: Any) -> Iterator[Any]:
    if get_origin(hint) in (tuple, list, Union, types.UnionType):
        for arg in get_args(hint):
            if arg is not Ellipsis:
                yield from _classes(arg)
    elif hint is not None:
        yield without_parameters(hint)


def _is_event(cls: Any) -> bool:
    return isinstance(cls, type) and is_event_class(cls)


def _refuse_cycles(step: Upcaster) -> None:
    seen, ahead = {step.source}, list(step.targets)
    while ahead:
        cls = ahead.pop()
        if cls in seen:
            raise InvalidEvent(
                f"The upcaster {step.name} leads back to {cls.__qualname__}.",
                "Write upcasters from older classes to newer ones only.",
            )
        following = upcaster_from(cls)
        if following is not None:
            seen.add(cls)
            ahead.extend(following.targets)


def upcaster_from(cls: type) -> Upcaster | None:
    """Return the upcaster of a class, or None."""
    return cls.__dict__.get(UPCASTER)


def current_classes(cls: type) -> tuple[type, ...]:
    """Return the classes of a class's events after all upcasters: itself if it has none."""
    step = upcaster_from(cls)
    return (cls,) if step is None else tuple(end for target in step.targets for end in current_classes(target))


def check_no_gap(cls: type) -> None:
    """Raise InvalidEvent if an older version of an event has a class whose upcasters do not reach this one."""
    own = declaration_of(cls)
    if own.version == 1:
        return
    for older in classes_named(own.type):
        if declaration_of(older).type == own.type and declaration_of(older).version < own.version:
            for end in map(declaration_of, current_classes(older)):
                if end.type == own.type and end.version < own.version:
                    raise InvalidEvent(
                        f"{own.type} has a gap: its upcasters lead {' → '.join(version_chain(older))}, "
                        f"and {cls.__qualname__} is version {own.version}.",
                        "Write the upcaster to that version, in a module that is imported with the class.",
                        type=own.type,
                        version=end.version,
                    )


def apply_upcasters(event: object) -> tuple[Any, ...]:
    """Return an event after all upcasters: one event, or several if one splits it.

    Raises what an upcaster raises, and TypeError if one returns an object of a class that it did not declare.
    """
    step = type(event).__dict__.get(UPCASTER)
    while step is not None:  # the fast path: almost every upcaster returns one event
        event = step.function(event)
        if type(event) not in step.targets:
            return _parts(step, event)
        step = type(event).__dict__.get(UPCASTER)
    return (event,)


def _parts(step: Upcaster, result: object) -> tuple[Any, ...]:
    parts = tuple(cast("list[Any]", result)) if isinstance(result, (tuple, list)) else (result,)
    for part in parts:
        if not isinstance(part, step.targets):
            wanted = " or ".join(t.__qualname__ for t in step.targets)
            raise TypeError(f"{step.name} returned {part!r}, not {wanted}")
    return tuple(end for part in parts for end in apply_upcasters(part))


def version_chain(cls: type) -> list[str]:
    """Return the versions that a class is upcast through, for messages: ["PricedV1 v1", "Priced v2"]."""
    way = [f"{cls.__qualname__} v{declaration_of(cls).version}"]
    step = upcaster_from(cls)
    return way if step is None else way + [name for target in step.targets for name in version_chain(target)]
