"""Calls in flight, and whether one that holds something can still release it.

A signal handler may raise at any instruction, also between acquiring something and the `try` that releases it. What a
call acquires is therefore bound to its coroutine: the interpreter itself knows when a coroutine has ended.
Knows: coroutines. Does not know: what a call holds. Short, because `log` must import it without importing threads.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar
from weakref import ReferenceType, ref

C = TypeVar("C", bound=Coroutine[Any, Any, Any])


class Call:
    """A call in flight, known by its coroutine, which is referred to weakly."""

    __slots__ = ("_coroutine",)

    def __init__(self) -> None:
        self._coroutine: ReferenceType[Any] | None = None

    def bind(self, coroutine: C) -> C:
        """Bind the call to the coroutine that makes it. Returns the coroutine, to be awaited."""
        self._coroutine = ref(coroutine)
        return coroutine

    def has_ended(self) -> bool:
        """Whether its coroutine has returned, or was ended by an exception, or never came to be."""
        if self._coroutine is None:
            return True
        coroutine = self._coroutine()
        return coroutine is None or coroutine.cr_frame is None
