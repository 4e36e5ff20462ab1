"""Which block of this process holds which lock of a store, including blocks that an exception ended before releasing.

Knows: owners, names of locks. Does not know: engines, how long callers wait.
"""

from __future__ import annotations

import getpass
import os
import platform
from collections.abc import Sequence
from weakref import ReferenceType, ref

from eventfold.concurrency.calls import Call
from eventfold.log.pipeline import Exclusive


class LockSet:
    """The locks that one `with` block acquires for one owner. `call` is acquiring or releasing them."""

    __slots__ = ("__weakref__", "call", "is_acquired", "names", "owner")

    def __init__(self, names: Sequence[str], owner: str) -> None:
        self.names, self.owner = names, owner
        self.is_acquired = False  # True while all of them are acquired
        self.call = Call()

    def is_over(self) -> bool:
        """Whether an exception ended the block: the engine may still hold its locks, but no caller uses them."""
        return not self.is_acquired and self.call.has_ended()


class LockTable:
    """Which `with` block of this process has which lock of a store. Locks of a block that is over can be claimed."""

    def __init__(self, mutex: Exclusive) -> None:
        self._mutex = mutex
        self._holders: dict[str, ReferenceType[LockSet]] = {}

    def claim(self, name: str, locks: LockSet) -> tuple[str | None, bool]:
        """Claim a lock for a set. Returns the other owner and False if another set has it.

        Otherwise returns None, and whether the engine may still hold the lock for a block that is over.
        """
        return self._mutex.run(self._claim, name, locks)

    def _claim(self, name: str, locks: LockSet) -> tuple[str | None, bool]:
        reference = self._holders.get(name)
        other = None if reference is None else reference()
        if other is not None and other is not locks and not other.is_over():
            return other.owner, False
        self._holders[name] = ref(locks)
        return None, reference is not None

    def has(self, name: str, locks: LockSet) -> bool:
        """Whether the set has claimed the lock."""
        reference = self._holders.get(name)
        return reference is not None and reference() is locks

    def drop(self, name: str, locks: LockSet) -> None:
        """Remove the set's claim on the lock."""
        self._mutex.run(self._drop, name, locks)

    def _drop(self, name: str, locks: LockSet) -> None:
        if self.has(name, locks):
            del self._holders[name]


def whoami() -> str:
    """Return the default name of a lock's owner: user, machine and process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # in a container, a user with a number only; no free file descriptor
        user = f"user {os.getuid()}" if hasattr(os, "getuid") else "an unknown user"
    return f"{user} on {platform.node()}, process {os.getpid()}"
