"""The decision pipeline: decisions of this process over one state, each based on the one that is still being written.

Independent decisions over a frequently changed state would cause conflicts for each other. In the pipeline the next
decision starts from the state after the pending one, under the condition that the pending one is written and that no
other matching event was appended after it. So several decisions share a commit. See decision 16.
Knows: what is cached, which decisions are pending, which call loads which state. Does not know: how a decision is made,
how a state is loaded, how appends are committed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Any, Protocol, TypeVar

import msgspec

from eventfold.concurrency.calls import Call
from eventfold.core.query import ConditionClause, Query
from eventfold.core.state import State
from eventfold.log.state_cache import StateCache
from eventfold.ports.messages import AppendRequest

T = TypeVar("T")


class Exclusive(Protocol):
    """A mutex, implemented in `concurrency`."""

    def run(self, work: Callable[..., T], /, *args: Any) -> T:
        """Call `work` while no other thread runs a call through this mutex. Returns its result."""
        ...


class Promise(Protocol):
    """A promise, implemented in `concurrency`. Waiting for it ends after a short time even if it is not done."""

    def set_result(self, result: None, /) -> None:
        """Mark it as done, and wake the waiters."""
        ...


class Source(Enum):
    """Where the states of a decision may come from. States that the source does not have are read from the log."""

    MEMORY = auto()  # pending decisions and the cache
    PENDING = auto()  # pending decisions only
    LOG = auto()  # neither


class Question(msgspec.Struct, frozen=True, gc=False):
    """A state that a decision needs, with its key in the cache and the query of its events."""

    state: State
    key: Any
    query: Query


class PendingDecision:
    """A decision without an outcome, for one of its questions.

    `state`  the state after the decision's events.
    `after`  the position that the first pending decision over the state was based on.
    `event`  the id of the decision's last event: a later decision requires that no event matches after it.
    `epoch`  the epoch of the store in which the states were read.
    `call`   the call that makes the decision.
    """

    __slots__ = ("after", "call", "epoch", "event", "is_done", "promise", "state")

    def __init__(self, state: State, after: int, event: bytes, epoch: int, call: Call) -> None:
        self.state, self.after, self.event, self.epoch, self.call = state, after, event, epoch, call
        self.is_done = False  # it has an outcome
        self.promise: Promise | None = None  # made for the first call that wants to wait for the outcome


class BaseState(msgspec.Struct, frozen=True):
    """A state to decide over, which must not be changed, and the clause that holds while it is current."""

    state: State
    clause: ConditionClause
    pending: PendingDecision | None  # the pending decision that leads to it; None if its events are in the log


class DecisionBase(msgspec.Struct, frozen=True):
    """The states that a decision is made over.

    `is_final`: all of them were read from the log, at one position, so that an error of the decision is final.
    `is_pending`: one of them is the state after a pending decision.
    """

    states: list[BaseState]
    is_final: bool
    is_pending: bool


class LoadClaim:
    """The keys of the states that a call loads, or is about to load."""

    __slots__ = ("call", "keys", "promise")

    def __init__(self, keys: Sequence[Any], call: Call) -> None:
        self.keys, self.call = keys, call
        self.promise: Promise | None = None  # made for the first call that wants to wait


class DecisionPipeline:
    """The last pending decision of each state, and which call loads which state. Safe under threads.

    `enqueue` queues a request; `promise` makes a promise. If an exception ended a call before it could leave or
    release, its pending decisions and claims count as absent.
    """

    def __init__(
        self,
        cache: StateCache,
        enqueue: Callable[[AppendRequest, Call], Any],
        mutex: Exclusive,
        promise: Callable[[], Promise],
    ) -> None:
        self._cache, self._enqueue_request, self._mutex, self._promise = cache, enqueue, mutex, promise
        self._pending: dict[Any, PendingDecision] = {}
        self._loading: dict[Any, LoadClaim] = {}

    def base(
        self, questions: Sequence[Question], source: Source, epoch: int, loaded: Mapping[Any, tuple[State, int]]
    ) -> tuple[DecisionBase, list[Question]]:
        """Return the states to decide over, and the questions whose states must be loaded from the log first.

        `loaded`: by key, the states that the caller has loaded, each with its position.
        """
        states: list[BaseState] = []
        missing: list[Question] = []
        is_final, is_pending = True, False
        for question, pending in zip(questions, self._pending_for(questions, source), strict=True):
            if pending is not None:
                clause = ConditionClause(question.query, pending.after, pending.event)
                states.append(BaseState(pending.state, clause, pending))
                is_final, is_pending = False, True
                continue
            found = loaded.get(question.key) if loaded else None
            cached = None
            if found is not None and source is not Source.LOG:
                cached = self._cache.get(question.key, epoch)  # it may have been cached since
            elif source is Source.MEMORY:
                cached = self._cache.get_trusted(question.key, epoch)
            if cached is not None and (found is None or cached[1] > found[1]):
                found, is_final = cached, False
            if found is None:
                missing.append(question)
            else:
                states.append(BaseState(found[0], ConditionClause(question.query, found[1]), None))
        return DecisionBase(states, is_final, is_pending), missing

    def _pending_for(self, questions: Sequence[Question], source: Source) -> Sequence[PendingDecision | None]:
        if source is Source.LOG or not self._pending:
            return [None] * len(questions)
        return self._mutex.run(self._pending_of, questions)

    def _pending_of(self, questions: Sequence[Question]) -> list[PendingDecision | None]:
        found = [self._pending.get(question.key) for question in questions]
        return [None if each is None or each.call.has_ended() else each for each in found]

    def enqueue(
        self,
        questions: Sequence[Question],
        base: Sequence[BaseState],
        decisions: Sequence[PendingDecision],
        request: AppendRequest,
        call: Call,
    ) -> Any:
        """Queue a decision's request for `call` and make it the last pending one of its states. Returns the ticket.

        Returns None, and queues nothing, if another decision over one of the states was queued since `base` was read.
        """
        return self._mutex.run(self._enqueue, questions, base, decisions, request, call)

    def _enqueue(
        self,
        questions: Sequence[Question],
        base: Sequence[BaseState],
        decisions: Sequence[PendingDecision],
        request: AppendRequest,
        call: Call,
    ) -> Any:
        pending = self._pending_of(questions) if self._pending else (None,) * len(questions)
        for question, over, last, mine in zip(questions, base, pending, decisions, strict=True):
            if last is not over.pending:
                return None
            if last is None:  # one may also have been queued and written since
                cached = self._cache.get(question.key, mine.epoch)
                if cached is not None and cached[1] > over.clause.after:
                    return None
        ticket = self._enqueue_request(request, call)
        for question, mine in zip(questions, decisions, strict=True):
            self._pending[question.key] = mine
        return ticket

    def leave(self, questions: Sequence[Question], decisions: Sequence[PendingDecision]) -> None:
        """Remove a decision that has its outcome: later decisions read the states from the cache or the log."""
        self._mutex.run(self._leave, questions, decisions)

    def _leave(self, questions: Sequence[Question], decisions: Sequence[PendingDecision]) -> None:
        for question, mine in zip(questions, decisions, strict=True):
            if self._pending.get(question.key) is mine:
                del self._pending[question.key]
            mine.is_done = True
            if mine.promise is not None:
                mine.promise.set_result(None)

    def promise_of(self, decision: PendingDecision) -> Promise | None:
        """Return a promise that is done when the decision has an outcome; None if it has one, or will never have."""
        return self._mutex.run(self._promise_of, decision)

    def _promise_of(self, decision: PendingDecision) -> Promise | None:
        if decision.is_done or decision.call.has_ended():
            return None
        decision.promise = decision.promise or self._promise()
        return decision.promise

    def claim(self, mine: LoadClaim) -> Promise | None:
        """Claim loading these states. Returns None if claimed; else a promise that is done when another call is."""
        return self._mutex.run(self._claim, mine)

    def _claim(self, mine: LoadClaim) -> Promise | None:
        for key in mine.keys:
            claim = self._loading.get(key)
            if claim is not None and not claim.call.has_ended():
                claim.promise = claim.promise or self._promise()
                return claim.promise
        self._loading.update(dict.fromkeys(mine.keys, mine))
        return None

    def release(self, mine: LoadClaim) -> None:
        """End a claim: the states are loaded, or loading them failed. Claims of other calls stay."""
        self._mutex.run(self._release, mine)

    def _release(self, mine: LoadClaim) -> None:
        for key in mine.keys:
            if self._loading.get(key) is mine:
                del self._loading[key]
        if mine.promise is not None:
            mine.promise.set_result(None)
