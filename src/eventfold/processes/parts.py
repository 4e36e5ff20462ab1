"""Work that is made of parts: effects, subscriptions or processes, and steps that are due at a time.

An alert or the delivery of alerts is such work: `store.run` runs its parts.
Knows: what the runner asks of a part. Does not know: what a part does, threads, clocks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeGuard

import msgspec

from eventfold.projections.admin import ProjectionAdmin


class Clocked(Protocol):
    """Something with steps that are due at a time. A TimerQueue is one."""

    async def fire(self, now: int) -> int:
        """Do what is due at `now` (µs since 1970 UTC), and return how many steps that were.

        It is called after commits and at least once a second, in the thread that fires timers: it must not wait for a
        network. Several runners may call it at the same time.
        """
        ...

    def next_due(self) -> int | None:
        """Return when the next step is due, in µs since 1970 UTC; None if none is known."""
        ...


class Parts(msgspec.Struct, frozen=True):
    """The parts of some work. `work`: what is run as if it were given alone; `clocked`: makes what has due times."""

    work: tuple[Any, ...] = ()
    clocked: tuple[Callable[[ProjectionAdmin], Clocked], ...] = ()


class Composite(Protocol):
    """An object or a class that is made of parts."""

    def __eventfold_parts__(self) -> Parts:
        """Return the parts. Raises InvalidProcess if there can be none."""
        ...


def is_composite(work: object) -> TypeGuard[Composite]:
    """Whether some work is made of parts."""
    return inspect.ismethod(getattr(work, "__eventfold_parts__", None))  # bound: of an object, or a class method


def module_of(work: object) -> str:
    """Return the module that declares a class, or an object whose `code` is MODULE:NAME."""
    return work.__module__ if isinstance(work, type) else str(getattr(work, "code", "")).partition(":")[0]


def expand(work: Iterable[Any]) -> tuple[list[Any], list[Callable[[ProjectionAdmin], Clocked]]]:
    """Return all work that is not made of parts, in order, and the makers of what has due times."""
    plain: list[Any] = []
    clocked: list[Callable[[ProjectionAdmin], Clocked]] = []
    for each in work:
        parts = each.__eventfold_parts__() if is_composite(each) else Parts((each,))
        plain.extend(parts.work)
        clocked.extend(parts.clocked)
    return plain, clocked


def make(clocked: Sequence[Callable[[ProjectionAdmin], Clocked]], admin: ProjectionAdmin) -> list[Clocked]:
    """Return what has due times, made for a store."""
    return [each(admin) for each in clocked]
