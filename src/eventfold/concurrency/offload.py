"""Threads that work for event loops: appends combined on one of them, reads offloaded to a few.

Knows: loops and threads. Does not know: engines, what is read or written.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from eventfold.concurrency.calls import Call
from eventfold.concurrency.group_commit import MAX_BATCH_REQUESTS, Appends, commit_batch
from eventfold.concurrency.run import refuse_after_fork, run
from eventfold.errors import EventfoldError, StoreClosed
from eventfold.ports.messages import AppendRequest, Outcome

LOOK_AGAIN_S = 1.0
LASTING = {
    "try_lock",
    "unlock",
}  # methods with an effect that outlives them, and that is undone in order; they are short


class _QueuedCall:
    """Something to be done off the loop, and the future that waits for it."""

    __slots__ = ("_unclaimed", "error", "future", "loop", "result", "work")

    def __init__(self, work: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self._unclaimed = [True]  # popping it is atomic: whoever succeeds, worker or canceller, has the job
        self.result: Any = None
        self.error: BaseException | None = None

    def claim(self) -> bool:
        try:
            return self._unclaimed.pop()
        except IndexError:
            return False

    def settle(self) -> None:
        if not self.future.done():
            if self.error is not None:
                self.future.set_exception(self.error)
            else:
                self.future.set_result(self.result)


class WorkerThreads:
    """Threads that work for event loops: jobs asked for in one turn of a loop are done and answered together.

    One hop costs about 100 µs; a hundred jobs in one turn share it.
    """

    def __init__(self, name: str, work: Callable[[list[_QueuedCall]], None], threads: int = 1) -> None:
        self._name, self._work, self._most = name, work, threads
        self._jobs: deque[_QueuedCall] = deque()
        self._something: SimpleQueue[None] = SimpleQueue()  # in C: an exception leaves no lock of it taken
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._flushing: asyncio.AbstractEventLoop | None = None  # the loop that last promised to start the work
        self._closed = False
        self._process = os.getpid()

    def enqueue(self, work: Any) -> _QueuedCall:
        """Ask for work; the returned job's future is settled on the calling loop."""
        refuse_after_fork(self._process)
        if self._closed:
            raise StoreClosed("This store was closed.", "Open it again.")
        loop = asyncio.get_running_loop()
        job = _QueuedCall(work, loop)
        self._jobs.append(job)
        if self._flushing is not loop:  # each loop starts its own: another may have ended before it came to it
            loop.call_soon(self._flush)
            self._flushing = loop  # only now: an exception in between starts the work once too often, not never
        return job

    def _flush(self) -> None:
        self._flushing = None
        if self._idle == 0 and len(self._threads) < self._most:
            thread = threading.Thread(target=self._serve, name=f"eventfold-{self._name}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._something.put(None)

    def _serve(self) -> None:
        while True:
            self._idle += 1
            with suppress(Empty):  # and then looks all the same: an exception may have kept the loop from telling
                self._something.get(timeout=LOOK_AGAIN_S)
            self._idle -= 1
            if self._closed:
                return
            while batch := self._take():
                self._work(batch)
                self._answer(batch)

    def _take(self) -> list[_QueuedCall]:
        batch: list[_QueuedCall] = []
        while len(batch) < MAX_BATCH_REQUESTS:
            try:
                job = self._jobs.popleft()
            except IndexError:
                break
            if job.claim():
                batch.append(job)
        return batch

    @staticmethod
    def _answer(batch: list[_QueuedCall]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[_QueuedCall]] = {}
        for job in batch:
            by_loop.setdefault(job.loop, []).append(job)
        for loop, jobs in by_loop.items():
            try:
                loop.call_soon_threadsafe(_settle_all, jobs)
            except RuntimeError:  # that loop has ended; nobody waits any more
                continue

    def close(self) -> None:
        """Let the threads end after the work in hand; jobs still queued are refused."""
        self._closed = True
        for _ in self._threads:
            self._something.put(None)
        for thread in self._threads:
            thread.join(timeout=10)
        while self._jobs:
            job = self._jobs.popleft()
            job.error = StoreClosed(
                "This store was closed before its turn came; nothing was written.", "Open it again."
            )
            self._answer([job])


def _settle_all(jobs: list[_QueuedCall]) -> None:
    for job in jobs:
        job.settle()


class OffloadedGroupCommit:
    """Combines the appends of tasks on one writer thread, so that no event loop ever waits for a disk."""

    def __init__(self, engine: Appends) -> None:
        self._engine = engine
        self._writer = WorkerThreads("writer", self._commit)

    def enqueue(self, request: AppendRequest, call: Call) -> _QueuedCall:
        """Add a request to the writer thread's queue, without waiting."""
        return self._writer.enqueue(request)

    async def outcome(self, ticket: _QueuedCall) -> Outcome:
        """Wait for the outcome.

        Cancelling the caller withdraws a request that is still queued; one that has left the queue may be written.
        """
        try:
            return await ticket.future
        except asyncio.CancelledError:
            ticket.claim()  # if it is still queued, the writer finds it claimed and leaves it out
            raise  # a plain CancelledError: asyncio.timeout does not know subclasses of it (decision 30)

    def _commit(self, batch: list[_QueuedCall]) -> None:
        try:
            outcomes = commit_batch(self._engine, [each.work for each in batch])
        except BaseException as error:  # given to every waiting task: no caller is on this thread's stack
            for each in batch:
                each.error = error
            return
        for each, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Exception) and not isinstance(outcome, EventfoldError):
                each.error = outcome
            else:
                each.result = outcome

    def close(self) -> None:
        """See WorkerThreads.close."""
        self._writer.close()


class Offload:
    """An engine that blocks, as an async caller sees it: every method runs on the lane's threads."""

    def __init__(self, engine: Any, threads: int = 4) -> None:
        self._engine = engine
        self._threads = WorkerThreads("reader", _run_each, threads)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._engine, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def offloaded(*args: Any, **kwargs: Any) -> Any:
            # The call, not its coroutine: a job that is refused or cancelled must leave none behind unawaited.
            job = self._threads.enqueue(partial(found, *args, **kwargs))
            return await (_to_its_end(job) if name in LASTING else job.future)

        self.__dict__[name] = offloaded
        return offloaded

    async def close(self) -> None:
        """Let the threads end, then close the engine."""
        self._threads.close()
        run(self._engine.close())


async def _to_its_end(job: _QueuedCall) -> Any:
    """The result of a job, and not before: also a caller that is cancelled waits until it is done.

    A lock that is taken a moment later, when its caller has given up and unlocked it, would be held by no one.
    """
    cancelled: asyncio.CancelledError | None = None
    while not job.future.done():
        try:
            await asyncio.wait([job.future])  # which, unlike the future, a caller may be cancelled in
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        job.future.exception()  # asked for, so that it is not logged as never heard of
        raise cancelled
    return job.future.result()


def _run_each(batch: list[_QueuedCall]) -> None:
    for job in batch:
        try:
            job.result = run(job.work())
        except BaseException as error:  # handed to the task that asked; a thread has nobody else to tell
            job.error = error
