"""Who has which lock of this store: also who had it, and was ended by an exception before it could give it back.

Knows: owners and names. Does not know: engines, how long anybody waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import ReferenceType, ref

from eventfold.concurrency.calls import Call
from eventfold.log.pipeline import Exclusive


class LockSet:
    """Locks that are taken together for one owner, by one `with`. `call` is taking them, or giving them back."""

    __slots__ = ("__weakref__", "call", "held", "names", "owner")

    def __init__(self, names: Sequence[str], owner: str) -> None:
        self.names, self.owner = names, owner
        self.held = False  # all of them, until they are given back
        self.call = Call()

    def is_over(self) -> bool:
        """Whether nobody has them, although they may still be locked: an exception ended what had them."""
        return not self.held and self.call.has_ended()


class LockTable:
    """Which `with` of this store has which lock. What was left behind by one that is over is taken from it."""

    def __init__(self, mutex: Exclusive) -> None:
        self._mutex = mutex
        self._of: dict[str, ReferenceType[LockSet]] = {}

    def claim(self, name: str, hold: LockSet) -> tuple[str | None, bool]:
        """Who else has it, or None: then it is this one's to be locked; and whether it may be locked still."""
        return self._mutex.run(self._claim, name, hold)

    def _claim(self, name: str, hold: LockSet) -> tuple[str | None, bool]:
        found = self._of.get(name)
        other = None if found is None else found()
        if other is not None and other is not hold and not other.is_over():
            return other.owner, False
        self._of[name] = ref(hold)
        return None, found is not None

    def has(self, name: str, hold: LockSet) -> bool:
        """Whether it is this one's."""
        found = self._of.get(name)
        return found is not None and found() is hold

    def drop(self, name: str, hold: LockSet) -> None:
        """It is this one's no longer."""
        self._mutex.run(self._drop, name, hold)

    def _drop(self, name: str, hold: LockSet) -> None:
        if self.has(name, hold):
            del self._of[name]
