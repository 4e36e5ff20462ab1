"""Chains: decisions of this process over one question, each built on the one before while that is committed.

Decisions over a hot question would meet each other's conflicts. Here the next one begins with the state that the one
before will leave, under the condition that it was written and that nobody else wrote since; both then share a commit.
Knows: which decisions are handed in and have no outcome yet. Does not know: how one is made, who commits it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from eventfold.concurrency.calls import Call
from eventfold.core.query import ConditionClause, Query
from eventfold.core.state import State
from eventfold.ports.messages import AppendRequest

T = TypeVar("T")


class Exclusive(Protocol):
    """A mutual exclusion, made by `concurrency`."""

    def run(self, work: Callable[..., T], /, *args: Any) -> T:
        """Call `work` while no other thread calls something by it."""
        ...


class Promise(Protocol):
    """Something to wait for, made by `concurrency`. Waiting for it ends after a moment, done or not: look again."""

    def set_result(self, result: None, /) -> None:
        """It is done."""
        ...


class PendingDecision:
    """A decision without an outcome, as one question sees it: the state it will leave, and what must hold for that.

    `after` where the chain began; `event` the decision's last event, behind which nothing may stand; `epoch` in which
    all of this was read; `owner` the call that makes the decision, with which the link ends.
    """

    __slots__ = ("after", "done", "epoch", "event", "future", "owner", "state")

    def __init__(self, state: State, after: int, event: bytes, epoch: int, owner: Call) -> None:
        self.state, self.after, self.event, self.epoch, self.owner = state, after, event, epoch, owner
        self.done = False  # it has an outcome
        self.future: Promise | None = None  # made for whoever wants to wait for that

    def clause(self, query: Query) -> ConditionClause:
        """The condition of a decision that builds on this one."""
        return ConditionClause(query, self.after, self.event)


class LoadClaim:
    """Questions that a call is about to load, or loads."""

    __slots__ = ("keys", "owner", "promise")

    def __init__(self, keys: Sequence[Any], owner: Call) -> None:
        self.keys, self.owner = keys, owner
        self.promise: Promise | None = None  # made for the first call that wants to wait


class DecisionPipeline:
    """The last link of every question in flight, and which calls load which questions.

    Safe under threads by the mutex it is given; `promise` makes something to wait for. What a call leaves behind that
    was ended by an exception at any point, before it could leave or release, counts as absent.
    """

    def __init__(self, mutex: Exclusive, promise: Callable[[], Promise]) -> None:
        self._links: dict[Any, PendingDecision] = {}
        self._loading: dict[Any, LoadClaim] = {}
        self._mutex, self._promise = mutex, promise

    def of(self, keys: Sequence[Any]) -> list[PendingDecision | None]:
        """The last link of each question, at one moment; None where nothing is in flight."""
        if not self._links:
            return [None] * len(keys)
        return self._mutex.run(self._of, keys)

    def _of(self, keys: Sequence[Any]) -> list[PendingDecision | None]:
        return [None if (link := self._links.get(key)) is None or link.owner.has_ended() else link for key in keys]

    def enqueue(
        self,
        keys: Sequence[Any],
        seen: Sequence[PendingDecision | None],
        new: Sequence[PendingDecision],
        is_current: Callable[[], bool],
        enqueue: Callable[[AppendRequest, Call], T],
        request: AppendRequest,
    ) -> T | None:
        """Queue a decision's request and make it the last link of its questions. Returns the request's ticket.

        None, and nothing is done, if others were queued since those it has `seen`, or `is_current` says that one has
        come and gone.
        """
        return self._mutex.run(self._enqueue, keys, seen, new, is_current, enqueue, request)

    def _enqueue(
        self,
        keys: Sequence[Any],
        seen: Sequence[PendingDecision | None],
        new: Sequence[PendingDecision],
        is_current: Callable[[], bool],
        enqueue: Callable[[AppendRequest, Call], T],
        request: AppendRequest,
    ) -> T | None:
        for now, link in zip(self._of(keys) if self._links else (None,) * len(keys), seen, strict=True):
            if now is not link:
                return None
        if not is_current():
            return None
        ticket = enqueue(request, new[0].owner)
        self._links.update(zip(keys, new, strict=True))
        return ticket

    def leave(self, keys: Sequence[Any], links: Sequence[PendingDecision]) -> None:
        """The decision has its outcome: what comes now reads it from the log."""
        self._mutex.run(self._leave, keys, links)

    def _leave(self, keys: Sequence[Any], links: Sequence[PendingDecision]) -> None:
        for key, link in zip(keys, links, strict=True):
            if self._links.get(key) is link:
                del self._links[key]
            link.done = True
            if link.future is not None:
                link.future.set_result(None)

    def outcome(self, link: PendingDecision) -> Promise | None:
        """What is done when the link's decision has an outcome, whichever; None if it has one, or never will."""
        return self._mutex.run(self._outcome, link)

    def _outcome(self, link: PendingDecision) -> Promise | None:
        if link.done or link.owner.has_ended():
            return None
        link.future = link.future or self._promise()
        return link.future

    def claim(self, mine: LoadClaim) -> Promise | None:
        """Claim loading questions: None; or what is done when the call that loads one of them has done so."""
        return self._mutex.run(self._claim, mine)

    def _claim(self, mine: LoadClaim) -> Promise | None:
        for key in mine.keys:
            claim = self._loading.get(key)
            if claim is not None and not claim.owner.has_ended():
                claim.promise = claim.promise or self._promise()
                return claim.promise
        self._loading.update(dict.fromkeys(mine.keys, mine))
        return None

    def release(self, mine: LoadClaim) -> None:
        """They are loaded, or it failed; then the next call tries. Harmless where others have claimed them."""
        self._mutex.run(self._release, mine)

    def _release(self, mine: LoadClaim) -> None:
        for key in mine.keys:
            if self._loading.get(key) is mine:
                del self._loading[key]
        if mine.promise is not None:
            mine.promise.set_result(None)
