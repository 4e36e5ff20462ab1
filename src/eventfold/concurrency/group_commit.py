"""Group commit for threads: the thread that finds no leader becomes the leader and commits every waiting append.

Knows: locks, the port's `append_many`. Does not know: event loops, engines.
"""

from __future__ import annotations

import copy
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from eventfold.concurrency.calls import Call
from eventfold.concurrency.run import refuse_after_fork, run
from eventfold.concurrency.waiting import CHECK_AGAIN_S
from eventfold.core.envelope import Receipt, as_first_answer
from eventfold.core.mutex import Mutex
from eventfold.errors import EventfoldError
from eventfold.ports.messages import AppendRequest, Outcome

MAX_BATCH_REQUESTS = 512  # requests in one commit: with more, latency grows and no more fsyncs are saved
GATHER_S = 0.000_2  # how long a leader waits for the next of the callers that are expected; for all: two commits
MAX_PASSES = 64  # commits without such a wait after the last one that was in vain


class Appends(Protocol):
    """The part of an engine that group commit needs."""

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """See the port."""
        ...


class _Ticket:
    """A queued append: its request, the call that waits, its outcome, and a lock that is released to wake the call."""

    __slots__ = ("call", "gate", "outcome", "request", "tries")

    def __init__(self, request: AppendRequest, call: Call) -> None:
        self.request, self.call = request, call
        self.outcome: Outcome | Exception | None = None
        self.tries = 0  # how many commits of it were begun
        self.gate = threading.Lock()
        self.gate.acquire()

    def is_waiting(self) -> bool:
        """Whether it still needs an outcome. If an exception ended its call, the append must not be written."""
        return self.outcome is None and not self.call.has_ended()

    def wake(self) -> None:
        try:
            self.gate.release()
        except RuntimeError:  # it is awake already
            return


class ThreadGroupCommit:
    """Group commit for threads: a thread that finds no leader commits the appends of all waiting threads.

    A single caller leads at once, at almost no cost. While one batch is committed, the next one is queued. A ticket
    stays in the queue until it has an outcome: if an exception ends a leader, at any instruction, the next leader
    commits the ticket. A waiting thread checks again after a short time, in case no thread is left to wake it.

    `gathers`: the next leader waits for the callers of the last commit, as long as they come back one after the other,
    and the last of them leads. Otherwise the callers would form two groups: while one is committed, the other takes the
    interpreter from its leader at each statement, and each commit has half of the appends.
    """

    def __init__(self, engine: Appends, *, gathers: bool = False) -> None:
        self.engine = engine
        self._waiting: deque[_Ticket] = deque()
        self._leading = Mutex()
        self._gathers = gathers
        self._expected = 0  # requests for which the next leader waits; 0 while one leads
        self._gathered, self._until = 0, 0.0  # how many were queued at the last look; when the wait ends
        self._passes = self._next_passes = 0  # commits to be made without such a wait; after the next wait in vain
        self._process = os.getpid()

    def append_alone(self, request: AppendRequest) -> Outcome | None:
        """Commit a request as the leader if no other is queued or being committed; None: it must be queued.

        It needs no ticket: no other thread ever commits it, and an exception that ends this call ends the append.
        """
        refuse_after_fork(self._process)
        if self._waiting or self._expected:
            return None
        led = True  # until `attempt` returns, as in `outcome`
        try:
            outcomes = self._leading.attempt(commit_batch, self.engine, [request])
            led = outcomes is not None
        finally:
            if led and self._waiting:
                self._wake(())
        if outcomes is None:
            return None
        return outcome if isinstance(outcome := outcomes[0], Receipt) else _outcome_of(outcome)

    def enqueue(self, request: AppendRequest, call: Call) -> _Ticket:
        """Add a request to the queue, without waiting. It is not written if `call` ends while it is queued."""
        refuse_after_fork(self._process)
        ticket = _Ticket(request, call)
        self._waiting.append(ticket)
        return ticket

    async def outcome(self, ticket: _Ticket) -> Outcome:
        """Lead, or wait for a leader, until the ticket has an outcome.

        It never suspends; it blocks the calling thread. An interrupt (Ctrl-C) is raised in the thread that received it,
        and no other thread stays waiting.
        """
        while ticket.outcome is None:
            if len(self._waiting) < self._expected and (pause := self._pause_of(ticket)):
                if not ticket.gate.acquire(timeout=pause) and pause == CHECK_AGAIN_S:
                    self._expected = 0  # the caller that was to look again may have been ended by an exception
                continue
            batch: list[_Ticket] = []
            led = True  # assumed until `attempt` returns, since it may be ended by an exception while leading
            try:
                led = self._leading.attempt(self._lead, ticket, batch) is not None
            finally:
                # Only the leader wakes. A thread that waits would wake the first in the queue, which may be itself,
                # and the two would take the interpreter from the leader for as long as it commits.
                if led and (self._waiting or len(batch) > 1):
                    self._wake(batch)
            if not led:
                ticket.gate.acquire(timeout=CHECK_AGAIN_S)
        return ticket.outcome if isinstance(ticket.outcome, Receipt) else _outcome_of(ticket.outcome)

    def _pause_of(self, ticket: _Ticket) -> float:
        """How long a caller waits while others are expected. 0: it leads now, since no other one came for GATHER_S."""
        waiting = self._waiting
        gathered = len(waiting)
        if gathered and waiting[0] is not ticket:
            return CHECK_AGAIN_S  # the first in the queue looks again, and the last that is expected leads
        if gathered > self._gathered and time.monotonic() < self._until:
            self._gathered = gathered
            return GATHER_S
        self._passes = self._next_passes = min(2 * self._next_passes + 1, MAX_PASSES)
        self._expected = 0
        return 0.0

    def _lead(self, own: _Ticket, batch: list[_Ticket]) -> list[_Ticket]:
        """Commit the next batch: the own ticket and those that are queued with it. Returns `batch`, with it added."""
        waiting = self._waiting
        while waiting and waiting[0] is not own and not waiting[0].is_waiting():
            waiting.popleft()  # only the leader removes tickets, so this is the ticket that was checked
        if own.outcome is not None:  # another leader committed it before this thread became the leader
            return batch
        if self._expected:  # all have come
            self._expected, self._next_passes = 0, max(self._next_passes - 1, 0)
        if len(waiting) == 1:
            batch.append(own)
        else:
            batch += [ticket for ticket in tuple(waiting)[:MAX_BATCH_REQUESTS] if ticket.is_waiting()]
        began = time.monotonic()
        try:
            self._commit(batch)
        except BaseException:  # an interrupt concerns the leader only: the others' appends are committed first
            if len(batch) > 1:
                self._commit(batch)
            raise
        while waiting and waiting[0].outcome is not None:
            waiting.popleft()
        if self._passes:
            self._passes -= 1
        elif self._gathers and len(batch) + len(waiting) > 1:
            now = time.monotonic()
            self._gathered, self._until = 0, now + 2 * (now - began) + GATHER_S
            self._expected = min(len(batch) + len(waiting), MAX_BATCH_REQUESTS)
        return batch

    def _commit(self, batch: Sequence[_Ticket]) -> None:
        requests: list[AppendRequest] = []
        for each in batch:
            each.tries += 1
            requests.append(each.request)
        for each, outcome in zip(batch, commit_batch(self.engine, requests), strict=True):
            if each.tries > 1 and isinstance(outcome, Receipt):
                outcome = as_first_answer(outcome, each.request.events)
            each.outcome = outcome

    def _wake(self, batch: Sequence[_Ticket]) -> None:
        """Wake the callers whose appends have an outcome, and the caller that is to lead next."""
        for each in batch:
            each.wake()
        for each in tuple(self._waiting):
            if each.is_waiting():
                each.wake()
                return


def _outcome_of(found: Outcome | Exception) -> Outcome:
    """Return the outcome of a request. Raises an error that is none: a bug of an engine."""
    if isinstance(found, Exception) and not isinstance(found, EventfoldError):
        raise found
    return found


def commit_batch(engine: Appends, requests: list[AppendRequest]) -> Sequence[Outcome | Exception]:
    """Commit one batch with an engine that never suspends. Any error becomes the outcome of every request.

    Raises only an interrupt (Ctrl-C). Repeating the batch is safe, because the event ids stay the same.
    """
    try:
        outcomes = run(engine.append_many(requests))
        return outcomes if len(outcomes) == len(requests) else check_count(outcomes, requests)
    except EventfoldError as error:
        return [copy.copy(error) for _ in requests]  # each caller raises its own copy, with its own traceback
    except Exception as error:  # a bug in an engine must not leave callers waiting
        return [error] * len(requests)


def check_count(outcomes: list[Outcome], requests: Sequence[AppendRequest]) -> list[Outcome]:
    """Return the outcomes. Raises RuntimeError, for a bug of the engine, if there is not one for each request."""
    if len(outcomes) != len(requests):
        raise RuntimeError(f"an engine returned {len(outcomes)} outcomes for {len(requests)} requests")
    return outcomes
