"""A cache of folded states: a cached state is caught up instead of folded from the beginning.

A cached state is never changed, so callers must copy it. It is valid only in the epoch of the store in which it was
folded: in another epoch its events may be lost; and until a class or an upcaster is declared (a module that is imported
late): then the events before it may be read otherwise.
Knows: states, positions, epochs, when classes were declared. Does not know: how states are folded, logs.
"""

from __future__ import annotations

from typing import Any

from eventfold.core.event import declarations_version
from eventfold.core.state import State

DISTRUST_READS = 16  # reads from the log after an outdated state; under constant writes by others, 1 in 17 is in vain


class StateCache:
    """The states folded last, at most `size`. Safe under threads: entries are replaced, not changed."""

    def __init__(self, size: int = 1_000, snapshots: int = 1_000) -> None:
        self.size = size
        self.snapshots = snapshots  # events folded from one snapshot to the next; 0: no snapshots
        self._entries: dict[Any, tuple[tuple[State, int], int]] = {}  # (state, position), epoch
        self._events_since_snapshot: dict[Any, int] = {}
        self._distrusted_reads = 0
        self._declarations_version = declarations_version()

    def get(self, key: Any, epoch: int) -> tuple[State, int] | None:
        """Return the state and its position, inclusive; None if it is not cached or was folded in another epoch."""
        if self._declarations_version != declarations_version():
            self._declarations_version = declarations_version()
            self.clear()
        try:
            entry = self._entries.get(key)
        except TypeError:  # a question with an unhashable value is not cached
            return None
        return None if entry is None or entry[1] != epoch else entry[0]

    def get_trusted(self, key: Any, epoch: int) -> tuple[State, int] | None:
        """Return the same without reading the log, or None if cached states were outdated lately.

        The state is probably current. The caller must check that with an append condition.
        """
        if self._distrusted_reads:
            self._distrusted_reads -= 1
            return None
        return self.get(key, epoch)

    def distrust(self) -> None:
        """Let the next DISTRUST_READS states be read from the log: a cached state was outdated, so others write too."""
        self._distrusted_reads = DISTRUST_READS

    def put(self, key: Any, state: State, position: int, epoch: int) -> None:
        """Cache a state unless a later one of the same epoch is cached. The caller must not use the object any more."""
        try:
            entry = self._entries.get(key)
        except TypeError:
            return
        if self.size < 1 or (entry is not None and entry[1] == epoch and entry[0][1] >= position):
            return
        if entry is not None:
            self._entries.pop(key, None)  # so that it becomes the last in order
        self._entries[key] = ((state, position), epoch)
        while len(self._entries) > self.size:
            try:
                oldest = next(iter(self._entries))
                self._entries.pop(oldest, None)
                self._events_since_snapshot.pop(oldest, None)
            except (StopIteration, RuntimeError):  # another thread removes entries at the same time
                break

    def count_folded(self, key: Any, events: int | None) -> int:
        """Add to the events folded into a state since its last snapshot, and return the sum. None: set it to 0."""
        try:
            self._events_since_snapshot[key] = 0 if events is None else self._events_since_snapshot.get(key, 0) + events
            return self._events_since_snapshot[key]
        except TypeError:
            return events or 0

    def clear(self) -> None:
        """Remove every state."""
        self._entries.clear()
        self._events_since_snapshot.clear()
