"""Worker threads for event loops: one commits appends in groups, others run the other calls of a blocking engine.

Knows: event loops, threads. Does not know: engines, what is read or written.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

from eventfold.concurrency.calls import Call
from eventfold.concurrency.group_commit import MAX_BATCH_REQUESTS, Appends, commit_batch
from eventfold.concurrency.run import refuse_after_fork, run
from eventfold.errors import EventfoldError, StoreClosed
from eventfold.ports.engine import Engine
from eventfold.ports.messages import AppendRequest, Outcome
from eventfold.ports.refusals import closed_error
from eventfold.ports.services import Services
from eventfold.ports.wrapping import Wrapping, wrap_services

CHECK_AGAIN_S = 1.0  # between checks of the queue by an idle thread: an exception may have prevented a wake-up
P = ParamSpec("P")
T = TypeVar("T")


class _QueuedCall:
    """A call that waits for a worker thread, and the future of its result."""

    __slots__ = ("_unclaimed", "error", "future", "loop", "result", "work")

    def __init__(self, work: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self._unclaimed = [True]  # popping is atomic: either the worker or the cancelled caller gets the element
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
    """Threads that run calls for event loops. Calls queued in one iteration of a loop run, and return, together.

    Switching to another thread costs about 100 µs, which all calls of one iteration share.
    """

    def __init__(self, name: str, work: Callable[[list[_QueuedCall]], None], threads: int = 1) -> None:
        self._name, self._work, self._most = name, work, threads
        self._jobs: deque[_QueuedCall] = deque()
        self._something: SimpleQueue[None] = SimpleQueue()  # in C, so an exception leaves none of its locks locked
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._flushing: asyncio.AbstractEventLoop | None = None  # the loop that will call _flush
        self._closed = False
        self._process = os.getpid()

    def enqueue(self, work: Any) -> _QueuedCall:
        """Queue work. The future of the returned call gets the result, on the calling loop."""
        refuse_after_fork(self._process)
        if self._closed:
            raise closed_error()
        loop = asyncio.get_running_loop()
        job = _QueuedCall(work, loop)
        self._jobs.append(job)
        if self._flushing is not loop:  # each loop flushes its own calls: another loop may have ended before its flush
            loop.call_soon(self._flush)
            self._flushing = loop  # last: an exception before it causes one flush too many, not one too few
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
            with suppress(Empty):  # the queue is also checked after a timeout: an exception may have prevented a flush
                self._something.get(timeout=CHECK_AGAIN_S)
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
            except RuntimeError:  # the loop has ended, and with it every task that waited
                continue

    def close(self) -> None:
        """End the threads after their current calls. Calls that are still queued raise StoreClosed."""
        self._closed = True
        for _ in self._threads:
            self._something.put(None)
        for thread in self._threads:
            thread.join(timeout=10)
        while self._jobs:
            job = self._jobs.popleft()
            job.error = StoreClosed(
                "This store was closed before it ran this call; nothing was written.", "Open it again."
            )
            self._answer([job])


def _settle_all(jobs: list[_QueuedCall]) -> None:
    for job in jobs:
        job.settle()


class OffloadedGroupCommit:
    """Group commit of tasks on one writer thread, so that no event loop waits for a disk."""

    def __init__(self, engine: Appends) -> None:
        self.engine = engine
        self._writer = WorkerThreads("writer", self._commit)

    def append_alone(self, request: AppendRequest) -> None:
        """Nothing: every request is queued for the writer thread."""

    def enqueue(self, request: AppendRequest, call: Call) -> _QueuedCall:
        """Add a request to the queue of the writer thread, without waiting."""
        return self._writer.enqueue(request)

    async def outcome(self, ticket: _QueuedCall) -> Outcome:
        """Wait for the outcome.

        Cancelling the caller withdraws a request that is still queued; one that has left the queue may be written.
        """
        try:
            return await ticket.future
        except asyncio.CancelledError:
            ticket.claim()  # if it is still queued, the writer finds it claimed and skips it
            raise  # a plain CancelledError: asyncio.timeout does not know subclasses of it (decision 30)

    def _commit(self, batch: list[_QueuedCall]) -> None:
        try:
            outcomes = commit_batch(self.engine, [each.work for each in batch])
        except BaseException as error:  # raised in every waiting task: this thread has no caller to raise it to
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


class Offload(Wrapping):
    """A blocking engine for async callers: every coroutine of it runs on one of `threads` threads."""

    def __init__(self, engine: Engine, threads: int = 4) -> None:
        super().__init__(engine)
        self._threads = WorkerThreads("reader", _run_each, threads)

    @property
    def services(self) -> Services:
        """The services of the engine, whose coroutines run on the threads too."""
        return wrap_services(self.inner.services, self.call, self._call_to_end)

    async def call(self, method: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **named: P.kwargs) -> T:
        """Call a method on a thread."""
        # The coroutine is created on the thread: a call that is refused or cancelled must not leave one unawaited.
        return await self._threads.enqueue(partial(method, *args, **named)).future

    async def _call_to_end(self, method: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **named: P.kwargs) -> T:
        """Call a method of locks, whose effect outlives the call. A cancelled caller waits until it is done."""
        return await _to_its_end(self._threads.enqueue(partial(method, *args, **named)))

    async def close(self) -> None:
        """End the threads, then close the engine."""
        self._threads.close()
        run(self.inner.close())


async def _to_its_end(job: _QueuedCall) -> Any:
    """Return the result of a call. A cancelled caller waits for its end, too.

    Otherwise the lock could be acquired after the cancelled caller had released it, and would stay locked.
    """
    cancelled: asyncio.CancelledError | None = None
    while not job.future.done():
        try:
            await asyncio.wait([job.future])  # unlike `await job.future`: cancelling this does not cancel the future
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        job.future.exception()  # retrieved, so that asyncio does not log it as never retrieved
        raise cancelled
    return job.future.result()


def _run_each(batch: list[_QueuedCall]) -> None:
    for job in batch:
        try:
            job.result = run(job.work())
        except BaseException as error:  # raised in the task that waits for it
            job.error = error
