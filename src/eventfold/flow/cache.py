"""Room: states already folded, kept to be caught up instead of folded again.

What is kept is never changed and never handed out: callers get copies. Knows: states, positions.
"""

from __future__ import annotations

from typing import Any

from eventfold.state import State

DOUBTS = 16  # questions: where others write all the time, one look in seventeen is made in vain


class StateCache:
    """The most recently folded states, at most `size`. Safe under threads: entries are replaced, not changed."""

    def __init__(self, size: int = 1_000, snapshots: int = 1_000) -> None:
        self.size = size
        self.snapshots = snapshots  # events folded from one snapshot to the next; 0 keeps none
        self._kept: dict[Any, tuple[State, int]] = {}
        self._folded: dict[Any, int] = {}
        self._doubts = 0

    def get(self, key: Any) -> tuple[State, int] | None:
        """The state and the position it is folded through, inclusive."""
        try:
            return self._kept.get(key)
        except TypeError:  # a question with an unhashable value is not kept
            return None

    def believed(self, key: Any) -> tuple[State, int] | None:
        """The same, where it is likely to be the state now: a look at the log is saved, and a condition must hold."""
        if self._doubts:
            self._doubts -= 1
            return None
        return self.get(key)

    def doubt(self) -> None:
        """What was believed turned out to be old: others write, too. The next few are looked up in the log."""
        self._doubts = DOUBTS

    def put(self, key: Any, state: State, position: int) -> None:
        """Keep a state, unless a later one is kept already. The caller must not use it any more."""
        try:
            known = self._kept.get(key)
        except TypeError:
            return
        if self.size < 1 or (known is not None and known[1] >= position):
            return
        if known is not None:
            self._kept.pop(key, None)  # so that it becomes the youngest
        self._kept[key] = (state, position)
        while len(self._kept) > self.size:
            try:
                oldest = next(iter(self._kept))
                self._kept.pop(oldest, None)
                self._folded.pop(oldest, None)
            except (StopIteration, RuntimeError):  # another thread is making room as well
                break

    def folded(self, key: Any, events: int | None) -> int:
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
