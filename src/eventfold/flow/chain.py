"""Room: chains: decisions of this process over one question, each built on the one before while that is committed.

Decisions over a hot question would meet each other's conflicts. Here the next one begins with the state that the one
before will leave, under the condition that it was written and that nobody else wrote since; both then share a commit.
Knows: which decisions are handed in and have no outcome yet. Does not know: how one is made, who commits it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from eventfold.query import Clause, Query
from eventfold.state import State


class Promise(Protocol):
    """Something to wait for, of the bridge's making."""

    def set_result(self, result: None, /) -> None:
        """It is done."""
        ...


class Link:
    """A decision without an outcome, as one question sees it: the state it will leave, and what must hold for that.

    `after` where the chain began; `event` the decision's last event, behind which nothing may stand; `epoch` in which
    all of this was read.
    """

    __slots__ = ("after", "done", "epoch", "event", "future", "state")

    def __init__(self, state: State, after: int, event: bytes, epoch: int) -> None:
        self.state, self.after, self.event, self.epoch = state, after, event, epoch
        self.done = False  # it has an outcome
        self.future: Promise | None = None  # made for whoever wants to wait for that

    def clause(self, query: Query) -> Clause:
        """The condition of a decision that builds on this one."""
        return Clause(query, self.after, self.event)


class Chains:
    """The last link of every question in flight, and who loads which.

    Safe under threads by the mutex it is given; `promise` makes a future for whoever has to wait.
    """

    def __init__(self, mutex: AbstractContextManager[Any], promise: Callable[[], Promise]) -> None:
        self._links: dict[Any, Link] = {}
        self._loading: dict[Any, Promise | None] = {}
        self._mutex, self._promise = mutex, promise

    def of(self, keys: Sequence[Any]) -> list[Link | None]:
        """The last link of each question, at one moment; None where nothing is in flight."""
        if not self._links:
            return [None] * len(keys)
        with self._mutex:
            return [self._links.get(key) for key in keys]

    def extend(
        self,
        keys: Sequence[Any],
        seen: Sequence[Link | None],
        new: Sequence[Link],
        current: Callable[[], bool],
        put: Callable[[], object],
    ) -> bool:
        """Hand a decision in (`put`) and make it the last link of its questions.

        False, and nothing done, if others were handed in since those it has `seen`, or `current` says that one has
        come and gone.
        """
        with self._mutex:
            if any(self._links.get(key) is not link for key, link in zip(keys, seen, strict=True)) or not current():
                return False
            put()
            self._links.update(zip(keys, new, strict=True))
            return True

    def leave(self, keys: Sequence[Any], links: Sequence[Link]) -> None:
        """The decision has its outcome: what comes now reads it from the log."""
        with self._mutex:
            for key, link in zip(keys, links, strict=True):
                if self._links.get(key) is link:
                    del self._links[key]
                link.done = True
                if link.future is not None:
                    link.future.set_result(None)

    def outcome(self, link: Link) -> Promise | None:
        """What is done when the link's decision has an outcome, whichever; None if it has one already."""
        with self._mutex:
            if link.done:
                return None
            link.future = link.future or self._promise()
            return link.future

    def claim(self, keys: Sequence[Any]) -> Promise | None:
        """Be the one who loads these questions: None; or what is done when whoever loads one of them has done so."""
        with self._mutex:
            for key in keys:
                if key in self._loading:
                    future = self._loading[key] = self._loading[key] or self._promise()
                    return future
            self._loading.update(dict.fromkeys(keys))
            return None

    def release(self, keys: Sequence[Any]) -> None:
        """They are loaded, or it failed; then the next one tries."""
        with self._mutex:
            for future in {self._loading.pop(key, None) for key in keys}:
                if future is not None:
                    future.set_result(None)
