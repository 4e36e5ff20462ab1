"""Room: combining the appends of threads: whoever finds no one leading commits for everyone who waits.

Knows: locks. Does not know: loops, engines.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from types import CoroutineType
from typing import Any
from weakref import ref

from eventfold.bridge.batch import MOST_AT_ONCE, Appends, Door, at_once, certain, commit_batch
from eventfold.bridge.run import refuse_after_fork
from eventfold.calls import Call, has_ended
from eventfold.engine import AppendRequest, Outcome
from eventfold.errors import EventfoldError
from eventfold.mutex import Mutex
from eventfold.record import Receipt, as_first
from eventfold.waiting import LOOK_AGAIN_S


class _Ticket:
    """One waiting append: its request, the call that waits, its outcome, and a lock that opens when it is to look."""

    __slots__ = ("call", "gate", "outcome", "request", "tries")

    def __init__(self, request: AppendRequest) -> None:
        self.request = request
        self.outcome: Outcome | BaseException | None = None
        self.call: Call
        self.tries = 0  # commits that were begun with it
        self.gate = threading.Lock()
        self.gate.acquire()

    def is_waiting(self) -> bool:
        """Whether it needs an outcome: a call that was ended by an exception waits no more, and is to write nothing."""
        return self.outcome is None and not has_ended(self.call)

    def wake(self) -> None:
        try:
            self.gate.release()
        except RuntimeError:  # awake already
            return


class ThreadCombiner:
    """Combines the appends of threads: whoever finds no one leading commits for everyone who waits.

    A lone caller leads at once and pays next to nothing. While a batch commits, the next one gathers. A ticket stays
    in the queue until it has an outcome, so that a leader that is ended by an exception, at any point, leaves it to
    the next one; and who waits looks again by itself after a moment, should nobody be left to wake it.
    """

    def __init__(self, engine: Appends) -> None:
        self._engine = engine
        self._waiting: deque[_Ticket] = deque()
        self._leading = Mutex()
        self._last = 1
        self._process = os.getpid()

    async def submit(self, request: AppendRequest) -> Outcome:
        """Hand in a request; returns its outcome."""
        return certain(await self.offer(request, at_once))

    def offer(self, request: AppendRequest, door: Door) -> CoroutineType[Any, Any, Outcome | None]:
        """The same, unless the door stays shut: then None. To be awaited.

        Never suspends: it waits in the calling thread. An interrupt (Ctrl-C) passes on in the thread it hit, and
        leaves nobody else waiting for ever.
        """
        ticket = _Ticket(request)
        call = self._offer(ticket, door)
        ticket.call = ref(call)
        return call

    async def _offer(self, ticket: _Ticket, door: Door) -> Outcome | None:
        refuse_after_fork(self._process)
        if not door(lambda: self._waiting.append(ticket)):
            return None
        while ticket.outcome is None:
            batch: list[_Ticket] = []
            led = True  # until it is known: an exception ends a leader
            try:
                led = self._leading.attempt(self._serve, ticket, batch)
            finally:
                # The leader wakes. A thread that waits would wake the first in the queue, which may be itself, and
                # the two would take the interpreter from the leader for as long as it commits.
                if led and (self._waiting or len(batch) > 1):
                    self._wake(batch)
            if not led:
                ticket.gate.acquire(timeout=LOOK_AGAIN_S)
        if isinstance(ticket.outcome, EventfoldError):
            return ticket.outcome
        if isinstance(ticket.outcome, BaseException):
            raise ticket.outcome
        return ticket.outcome

    def _serve(self, own: _Ticket, batch: list[_Ticket]) -> None:
        waiting = self._waiting
        while waiting and waiting[0] is not own and not waiting[0].is_waiting():
            waiting.popleft()  # by whoever leads only: it is the one that was looked at
        if own.outcome is not None:  # someone led for us between our look and our turn
            return
        if self._last > 2 * len(waiting):
            # Those served last are on their way back; a moment's grace halves the number of fsyncs.
            time.sleep(0)
        if len(waiting) == 1:
            batch.append(own)
        else:
            batch += [ticket for ticket in tuple(waiting)[:MOST_AT_ONCE] if ticket.is_waiting()]
        self._last = len(batch)
        try:
            self._commit(batch)
        except BaseException:  # an interrupt: it is the leader's own, so the others are served first
            if len(batch) > 1:
                self._commit(batch)
            raise
        while waiting and waiting[0].outcome is not None:
            waiting.popleft()

    def _commit(self, batch: list[_Ticket]) -> None:
        outcomes: Sequence[Outcome | BaseException]
        for each in batch:
            each.tries += 1
        try:
            outcomes = commit_batch(self._engine, [each.request for each in batch])
        except Exception as error:  # a bug in an engine must not leave threads waiting for ever
            outcomes = [error] * len(batch)
        for each, outcome in zip(batch, outcomes, strict=True):
            if each.tries > 1 and isinstance(outcome, Receipt):
                outcome = as_first(outcome, each.request.events)
            each.outcome = outcome

    def _wake(self, batch: Sequence[_Ticket]) -> None:
        """Those that were served, and the one that is to lead next."""
        for each in batch:
            each.wake()
        for each in tuple(self._waiting):
            if each.is_waiting():
                each.wake()
                return
