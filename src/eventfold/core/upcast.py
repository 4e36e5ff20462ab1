"""Upcasters: plain typed functions that turn an event of an old class into today's.

    @ef.upcast
    def with_currency(old: PricedV1) -> Priced:
        return Priced(old.item, old.amount, "EUR")

The old class keeps the stored name and the version it had; the chain is followed to its end at every read, so
states and projections know today's classes only. A tuple as the return type splits one event into several.
Knows: classes. Does not know: bytes, positions, where events are stored. Nothing in the log is ever rewritten.
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
    """One step: from a class to one class, or, split, to several."""

    function: Callable[[Any], Any]
    source: type
    targets: tuple[type, ...]

    @property
    def name(self) -> str:
        """How messages name it."""
        return f"{self.function.__module__}.{self.function.__qualname__}"


_UPCASTER = "__eventfold_upcaster__"


def upcast(function: F) -> F:
    """Declares `def step(old: Old) -> New` as the way from an old event class to a newer one.

    Checked when it is declared: raises InvalidEvent on a second step from the same class (a fork), a step
    that leads back to where it began, or annotations that are no event classes.
    """
    with resolving_annotations(f"the upcaster {function.__qualname__}", InvalidEvent):
        hints = typing.get_type_hints(function, None, sys._getframe(1).f_locals)  # pyright: ignore[reportPrivateUsage]
    result = hints.pop("return", None)
    sources = [without_parameters(each) for each in hints.values()]
    targets = tuple(_classes(result))
    if len(sources) != 1 or not targets or not all(map(_is_event, [*sources, *targets])):
        raise InvalidEvent(
            f"The upcaster {function.__qualname__} does not say from which event class to which.",
            next(filter(None, map(hint_for_generic, [*sources, *targets])), None)
            or "Annotate it: def step(old: OldClass) -> NewClass (or -> tuple[A, B] for a split).",
        )
    step = Upcaster(function, sources[0], targets)
    known = upcaster_from(step.source)
    if known is not None and known.name != step.name:
        raise InvalidEvent(
            f"{step.source.__qualname__} has two upcasters, {known.name} and {step.name}.",
            "Keep one way from each old class; chain them one version at a time.",
        )
    _refuse_cycles(step)
    set_class_data(step.source, _UPCASTER, step)
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
                "An upcaster leads from older to newer only.",
            )
        following = upcaster_from(cls)
        if following is not None:
            seen.add(cls)
            ahead.extend(following.targets)


def upcaster_from(cls: type) -> Upcaster | None:
    """The step that leads on from a class, if there is one."""
    return cls.__dict__.get(_UPCASTER)


def current_classes(cls: type) -> tuple[type, ...]:
    """The classes that a class's events end up as: itself where no step leads on."""
    step = upcaster_from(cls)
    return (cls,) if step is None else tuple(end for target in step.targets for end in current_classes(target))


def check_no_gap(cls: type) -> None:
    """Raises InvalidEvent where an older version of an event has a class, and no way leads on from it to this one."""
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
                        "Write the upcaster that leads on to it, in a module that is imported with the class.",
                        type=own.type,
                        version=end.version,
                    )


def apply_upcasters(event: object) -> tuple[Any, ...]:
    """An event taken through every step to today's classes: one event, or several after a split.

    Raises whatever an upcaster raises, and TypeError if one returns what it did not declare.
    """
    step = type(event).__dict__.get(_UPCASTER)
    while step is not None:  # nearly always one event becomes one
        event = step.function(event)
        if type(event) not in step.targets:
            return _parts(step, event)
        step = type(event).__dict__.get(_UPCASTER)
    return (event,)


def _parts(step: Upcaster, result: object) -> tuple[Any, ...]:
    parts = tuple(cast("list[Any]", result)) if isinstance(result, (tuple, list)) else (result,)
    for part in parts:
        if not isinstance(part, step.targets):
            wanted = " or ".join(t.__qualname__ for t in step.targets)
            raise TypeError(f"{step.name} returned {part!r}, not {wanted}")
    return tuple(end for part in parts for end in apply_upcasters(part))


def version_chain(cls: type) -> list[str]:
    """A class's way through its versions, in words, for people: ["PricedV1 v1", "Priced v2"]."""
    way = [f"{cls.__qualname__} v{declaration_of(cls).version}"]
    step = upcaster_from(cls)
    return way if step is None else way + [name for target in step.targets for name in version_chain(target)]
