"""Calls in flight: whether one that has claimed something, or was lent it, can still give it back.

A signal handler may raise at any instruction, also between taking something and the `try` that gives it back. What was
taken is therefore bound to the coroutine that took it. Knows: coroutines. Does not know: what is claimed or lent.
"""

from __future__ import annotations

from typing import Any
from weakref import ReferenceType

Call = ReferenceType[Any]  # a coroutine, weakly


def has_ended(call: Call) -> bool:
    """Whether a call has ended, however it did: the interpreter itself notes that, whatever of ours could not run."""
    coroutine = call()
    return coroutine is None or coroutine.cr_frame is None
