"""Room: combining the appends of threads: whoever finds no one leading commits for everyone who waits.

Knows: locks. Does not know: loops, engines.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Sequence

from eventfold.bridge.batch import MOST_AT_ONCE, Appends, Door, at_once, certain, commit_batch
from eventfold.bridge.run import refuse_after_fork
from eventfold.engine import AppendRequest, Outcome
from eventfold.errors import AppendUnconfirmed, EventfoldError

mutex = threading.Lock


class _Ticket:
    """One waiting append: its request, its outcome, and a lock that opens when there is something to do."""

    __slots__ = ("gate", "given_up", "outcome", "request")

    def __init__(self, request: AppendRequest) -> None:
        self.request = request
        self.outcome: Outcome | BaseException | None = None
        self.given_up = False  # its thread was interrupted and waits no more
        self.gate = threading.Lock()
        self.gate.acquire()

    def wake(self) -> None:
        try:
            self.gate.release()
        except RuntimeError:  # awake already
            return


class ThreadCombiner:
    """Combines the appends of threads: whoever finds no one leading commits for everyone who waits.

    A lone caller leads at once and pays next to nothing. While a batch commits, the next one gathers.
    """

    def __init__(self, engine: Appends) -> None:
        self._engine = engine
        self._waiting: deque[_Ticket] = deque()
        # Who leads, if anyone. Taking the lead is one atomic `setdefault`, and no lock, because it says who has it:
        # a thread interrupted at any point can see whether it leads, and let go.
        self._leader: dict[str, _Ticket] = {}
        self._last = 1
        self._process = os.getpid()

    async def submit(self, request: AppendRequest) -> Outcome:
        """Hand in a request; returns its outcome."""
        return certain(await self.offer(request, at_once))

    async def offer(self, request: AppendRequest, door: Door) -> Outcome | None:
        """The same, unless the door stays shut: then None. Never suspends: it waits in the calling thread.

        An interrupt (Ctrl-C) passes on in the thread it hit, and leaves nobody else waiting for ever.
        """
        refuse_after_fork(self._process)
        ticket = _Ticket(request)
        batch: list[_Ticket] = []
        try:
            if not door(lambda: self._waiting.append(ticket)):
                return None
            while ticket.outcome is None:
                if self._leader.setdefault("", ticket) is ticket:
                    try:
                        batch = []
                        self._serve(ticket, batch)
                    finally:
                        self._leader.clear()
                        self._hand_over()
                    for each in batch:
                        if each is not ticket:
                            each.wake()
                else:
                    ticket.gate.acquire()
        except BaseException:
            try:
                self._give_up(ticket, batch)
            except BaseException:  # interrupted in this, too
                self._give_up(ticket, batch)
            raise
        if isinstance(ticket.outcome, EventfoldError):
            return ticket.outcome
        if isinstance(ticket.outcome, BaseException):
            raise ticket.outcome
        return ticket.outcome

    def _serve(self, own: _Ticket, batch: list[_Ticket]) -> None:
        if own.outcome is not None:  # someone led for us between our look and our turn
            return
        if self._last > 2 * len(self._waiting):
            # Those served last are on their way back; a moment's grace halves the number of fsyncs.
            time.sleep(0)
        while self._waiting and len(batch) < MOST_AT_ONCE:
            ticket = self._waiting[0]
            if not ticket.given_up:
                batch.append(ticket)
            self._waiting.popleft()  # in the batch before it leaves the queue: an interrupt loses no one
        self._last = len(batch)
        try:
            self._commit(batch)
        except BaseException:  # an interrupt: it is the leader's own, so the others are served first
            self._commit(batch)
            raise

    def _commit(self, batch: list[_Ticket]) -> None:
        outcomes: Sequence[Outcome | BaseException]
        try:
            outcomes = commit_batch(self._engine, [each.request for each in batch])
        except Exception as error:  # a bug in an engine must not leave threads waiting for ever
            outcomes = [error] * len(batch)
        for each, outcome in zip(batch, outcomes, strict=True):
            each.outcome = outcome

    def _hand_over(self) -> None:
        for each in tuple(self._waiting):
            if not each.given_up:
                each.wake()
                return

    def _give_up(self, ticket: _Ticket, batch: Sequence[_Ticket]) -> None:
        """This thread was interrupted: what it led has an outcome, and whoever it was to wake is awake."""
        ticket.given_up = True
        if self._leader.get("") is ticket:
            self._leader.clear()
        for each in batch:
            if each.outcome is None:
                each.outcome = AppendUnconfirmed(
                    "The thread that was committing this append was interrupted.", "Repeat the identical append."
                )
        for each in (*batch, *tuple(self._waiting)):
            each.wake()
