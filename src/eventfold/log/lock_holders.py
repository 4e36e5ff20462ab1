"""Which block of this process holds which lock of a store, including blocks that an exception ended before releasing.

Knows: owners, names of locks. Does not know: engines, how long callers wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import ReferenceType, ref

from eventfold.concurrency.calls import Call
from eventfold.log.pipeline import Exclusive


class LockSet:
    """The locks that one `with` block acquires for one owner. `call` is acquiring or releasing them."""

    __slots__ = ("__weakref__", "call", "held", "names", "owner")

    def __init__(self, names: Sequence[str], owner: str) -> None:
        self.names, self.owner = names, owner
        self.held = False  # True while all of them are acquired
        self.call = Call()

    def is_over(self) -> bool:
        """Whether an exception ended the block: the engine may still hold its locks, but no caller uses them."""
        return not self.held and self.call.has_ended()


class LockTable:
    """Which `with` block of this process has which lock of a store. Locks of a block that is over can be claimed."""

    def __init__(self, mutex: Exclusive) -> None:
        self._mutex = mutex
        self._of: dict[str, ReferenceType[LockSet]] = {}

    def claim(self, name: str, hold: LockSet) -> tuple[str | None, bool]:
        """Claim a lock for a set. Returns the other owner and False if another set has it.

        Otherwise returns None, and whether the engine may still hold the lock for a block that is over.
        """
        return self._mutex.run(self._claim, name, hold)

    def _claim(self, name: str, hold: LockSet) -> tuple[str | None, bool]:
        found = self._of.get(name)
        other = None if found is None else found()
        if other is not None and other is not hold and not other.is_over():
            return other.owner, False
        self._of[name] = ref(hold)
        return None, found is not None

    def has(self, name: str, hold: LockSet) -> bool:
        """Whether the set has claimed the lock."""
        found = self._of.get(name)
        return found is not None and found() is hold

    def drop(self, name: str, hold: LockSet) -> None:
        """Remove the set's claim on the lock."""
        self._mutex.run(self._drop, name, hold)

    def _drop(self, name: str, hold: LockSet) -> None:
        if self.has(name, hold):
            del self._of[name]
