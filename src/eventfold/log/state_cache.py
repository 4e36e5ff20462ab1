"""States already folded, kept to be caught up instead of folded again.

What is kept is never changed and never handed out: callers get copies. A state is believed in the epoch of the store
in which it was folded, and in no other: events that it counts may be lost there. Knows: states, positions, epochs.
"""

from __future__ import annotations

from typing import Any

from eventfold.core.state import State

DISTRUST_READS = 16  # questions: where others write all the time, one look in seventeen is made in vain


class StateCache:
    """The most recently folded states, at most `size`. Safe under threads: entries are replaced, not changed."""

    def __init__(self, size: int = 1_000, snapshots: int = 1_000) -> None:
        self.size = size
        self.snapshots = snapshots  # events folded from one snapshot to the next; 0 keeps none
        self._kept: dict[Any, tuple[tuple[State, int], int]] = {}  # (state, position), epoch
        self._folded: dict[Any, int] = {}
        self._doubts = 0

    def get(self, key: Any, epoch: int) -> tuple[State, int] | None:
        """The state and the position it is folded through, inclusive; None where it was folded in another epoch."""
        try:
            found = self._kept.get(key)
        except TypeError:  # a question with an unhashable value is not kept
            return None
        return None if found is None or found[1] != epoch else found[0]

    def get_trusted(self, key: Any, epoch: int) -> tuple[State, int] | None:
        """The same, where it is likely to be the state now: a look at the log is saved, and a condition must hold."""
        if self._doubts:
            self._doubts -= 1
            return None
        return self.get(key, epoch)

    def distrust(self) -> None:
        """What was believed turned out to be old: others write, too. The next few are looked up in the log."""
        self._doubts = DISTRUST_READS

    def put(self, key: Any, state: State, position: int, epoch: int) -> None:
        """Keep a state as of an epoch, unless a later one of it is kept. The caller must not use it any more."""
        try:
            known = self._kept.get(key)
        except TypeError:
            return
        if self.size < 1 or (known is not None and known[1] == epoch and known[0][1] >= position):
            return
        if known is not None:
            self._kept.pop(key, None)  # so that it becomes the youngest
        self._kept[key] = ((state, position), epoch)
        while len(self._kept) > self.size:
            try:
                oldest = next(iter(self._kept))
                self._kept.pop(oldest, None)
                self._folded.pop(oldest, None)
            except (StopIteration, RuntimeError):  # another thread is making room as well
                break

    def count_folded(self, key: Any, events: int | None) -> int:
        """Count events folded into a question's state since its last snapshot; None begins again."""
        try:
            self._folded[key] = 0 if events is None else self._folded.get(key, 0) + events
            return self._folded[key]
        except TypeError:
            return events or 0

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._folded.clear()
