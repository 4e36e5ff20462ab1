"""Calls in progress, and whether a call that holds a resource can still release it.

A signal handler may raise at any instruction, also between acquiring a resource and the `try` that releases it. A
resource is therefore bound to the coroutine of the call: the interpreter itself knows when a coroutine has ended.
Knows: coroutines. Does not know: what a call holds. A module of its own, because `log` imports it without threads.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar
from weakref import ReferenceType, ref

C = TypeVar("C", bound=Coroutine[Any, Any, Any])


class Call:
    """A call in progress, identified by a weak reference to its coroutine."""

    __slots__ = ("_coroutine",)

    def __init__(self) -> None:
        self._coroutine: ReferenceType[Any] | None = None

    def bind(self, coroutine: C) -> C:
        """Bind the call to its coroutine. Returns the coroutine, to be awaited."""
        self._coroutine = ref(coroutine)
        return coroutine

    def has_ended(self) -> bool:
        """Whether its coroutine has returned, was ended by an exception, or was never created."""
        if self._coroutine is None:
            return True
        coroutine = self._coroutine()
        return coroutine is None or coroutine.cr_frame is None
