"""Room: combining the appends of threads: whoever finds no one leading commits for everyone who waits.

Knows: locks. Does not know: loops, engines.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Sequence

from eventfold.bridge.batch import MOST_AT_ONCE, Appends, commit_batch
from eventfold.bridge.run import refuse_after_fork
from eventfold.engine import AppendRequest, Outcome
from eventfold.errors import EventfoldError


class _Ticket:
    """One waiting append: its request, its outcome, and a lock that opens when there is something to do."""

    __slots__ = ("gate", "outcome", "request")

    def __init__(self, request: AppendRequest) -> None:
        self.request = request
        self.outcome: Outcome | BaseException | None = None
        self.gate = threading.Lock()
        self.gate.acquire()

    def wake(self) -> None:
        try:
            self.gate.release()
        except RuntimeError:  # awake already
            return


class ThreadCombiner:
    """Combines the appends of threads: whoever finds no one leading commits for everyone who waits.

    A lone caller leads at once and pays one uncontended lock. While a batch commits, the next one gathers.
    """

    def __init__(self, engine: Appends) -> None:
        self._engine = engine
        self._waiting: deque[_Ticket] = deque()
        self._lead = threading.Lock()
        self._last = 1
        self._process = os.getpid()

    async def submit(self, request: AppendRequest) -> Outcome:
        """Hand in a request; returns its outcome. Never suspends: it waits in the calling thread."""
        refuse_after_fork(self._process)
        ticket = _Ticket(request)
        self._waiting.append(ticket)
        while ticket.outcome is None:
            if self._lead.acquire(blocking=False):
                try:
                    batch = self._serve(ticket)
                finally:
                    self._lead.release()
                    self._hand_over()
                for each in batch:
                    if each is not ticket:
                        each.wake()
            else:
                ticket.gate.acquire()
        if isinstance(ticket.outcome, EventfoldError):
            return ticket.outcome
        if isinstance(ticket.outcome, BaseException):
            raise ticket.outcome
        return ticket.outcome

    def _serve(self, own: _Ticket) -> list[_Ticket]:
        if own.outcome is not None:  # someone led for us between our look and our turn
            return []
        if self._last > 2 * len(self._waiting):
            # Those served last are on their way back; a moment's grace halves the number of fsyncs.
            time.sleep(0)
        batch: list[_Ticket] = []
        while self._waiting and len(batch) < MOST_AT_ONCE:
            batch.append(self._waiting.popleft())
        self._last = len(batch)
        try:
            outcomes: Sequence[Outcome | BaseException] = commit_batch(self._engine, [t.request for t in batch])
        except Exception as error:  # a bug in an engine must not leave threads waiting for ever
            outcomes = [error] * len(batch)
        except BaseException:  # an interrupt: it is the leader's own, so the others are served first
            outcomes = commit_batch(self._engine, [t.request for t in batch])
            self._settle(batch, outcomes)
            for each in batch:
                each.wake()
            raise
        self._settle(batch, outcomes)
        return batch

    @staticmethod
    def _settle(batch: list[_Ticket], outcomes: Sequence[Outcome | BaseException]) -> None:
        for each, outcome in zip(batch, outcomes, strict=True):
            each.outcome = outcome

    def _hand_over(self) -> None:
        try:
            self._waiting[0].wake()
        except IndexError:
            return
