"""Room: colour. The only place that knows threads, loops and locks: how a coroutine is run for a sync caller,
offloaded for an async one, and how concurrent appends are combined into one commit.

Knows: the port's promise that a non-suspending engine never waits. Does not know: any engine, any SQL.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from eventfold.engine import AppendRequest, Outcome
from eventfold.errors import AppendCancelled, AppendUnconfirmed, EventfoldError, StoreClosed

T = TypeVar("T")
MOST_AT_ONCE = 512  # requests in one commit: beyond it, waiting grows and fsyncs saved do not


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, in the caller's thread: one `send(None)`, about 1 µs."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise RuntimeError("an engine that declared suspends=False suspended; use it from AsyncStore")


async def sleep_here(seconds: float) -> None:
    """Pause the calling thread. Negative: that long on average, by chance, so that rivals spread out."""
    time.sleep(_spread(seconds))


async def sleep_on_loop(seconds: float) -> None:
    """Pause the calling task."""
    await asyncio.sleep(_spread(seconds))


def _spread(seconds: float) -> float:
    return seconds if seconds >= 0 else random.uniform(0.0, -2 * seconds)  # noqa: S311 (not a secret)


class Appends(Protocol):
    """The part of an engine that combining needs."""

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """See the port."""
        ...


def commit_batch(engine: Appends, requests: list[AppendRequest]) -> list[Outcome]:
    """Commit one batch, so that whatever goes wrong becomes every request's outcome.

    An interrupt (Ctrl-C) that hits the leader belongs to the leader alone: the batch is asked again first,
    which is safe since ids are the same, and then the interrupt goes on.
    """
    try:
        return run(engine.append_many(requests))
    except EventfoldError as error:
        return [error] * len(requests)


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

    async def submit(self, request: AppendRequest) -> Outcome:
        """Hand in a request; returns its outcome. Never suspends: it waits in the calling thread."""
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


class _Job:
    """Something to be done off the loop, and the future that waits for it."""

    __slots__ = ("claim", "error", "future", "loop", "result", "work")

    def __init__(self, work: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.claim = [True]  # popping it is atomic: whoever succeeds, worker or canceller, has the job
        self.result: Any = None
        self.error: BaseException | None = None

    def claimed(self) -> bool:
        try:
            return self.claim.pop()
        except IndexError:
            return False

    def settle(self) -> None:
        if not self.future.done():
            if self.error is not None:
                self.future.set_exception(self.error)
            else:
                self.future.set_result(self.result)


class Lane:
    """Threads that work for event loops: jobs asked for in one turn of a loop are done and answered together.

    One hop costs about 100 µs; a hundred jobs in one turn share it.
    """

    def __init__(self, name: str, work: Callable[[list[_Job]], None], threads: int = 1) -> None:
        self._name, self._work, self._most = name, work, threads
        self._jobs: deque[_Job] = deque()
        self._something = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._flushing = False
        self._closed = False

    def enqueue(self, work: Any) -> _Job:
        """Ask for work; the returned job's future is settled on the calling loop."""
        if self._closed:
            raise StoreClosed("This store was closed.", "Open it again.")
        loop = asyncio.get_running_loop()
        job = _Job(work, loop)
        self._jobs.append(job)
        if not self._flushing:
            self._flushing = True
            loop.call_soon(self._flush)
        return job

    def _flush(self) -> None:
        self._flushing = False
        if self._idle == 0 and len(self._threads) < self._most:
            thread = threading.Thread(target=self._serve, name=f"eventfold-{self._name}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._something.release()

    def _serve(self) -> None:
        while True:
            self._idle += 1
            self._something.acquire()
            self._idle -= 1
            if self._closed:
                return
            while batch := self._take():
                self._work(batch)
                self._answer(batch)

    def _take(self) -> list[_Job]:
        batch: list[_Job] = []
        while len(batch) < MOST_AT_ONCE:
            try:
                job = self._jobs.popleft()
            except IndexError:
                break
            if job.claimed():
                batch.append(job)
        return batch

    @staticmethod
    def _answer(batch: list[_Job]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
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
            self._something.release()
        for thread in self._threads:
            thread.join(timeout=10)
        while self._jobs:
            job = self._jobs.popleft()
            job.error = StoreClosed(
                "This store was closed before its turn came; nothing was written.", "Open it again."
            )
            self._answer([job])


def _settle_all(jobs: list[_Job]) -> None:
    for job in jobs:
        job.settle()


class TaskCombiner:
    """Combines the appends of tasks on one writer thread, so that no event loop ever waits for a disk."""

    def __init__(self, engine: Appends) -> None:
        self._engine = engine
        self._lane = Lane("writer", self._commit)

    async def submit(self, request: AppendRequest) -> Outcome:
        """Hand in a request. A caller cancelled before its turn has written nothing; after it, `AppendCancelled`."""
        job = self._lane.enqueue(request)
        try:
            return await job.future
        except asyncio.CancelledError:
            if job.claimed():
                raise
            raise AppendCancelled(
                "The caller was cancelled while its append was being committed.",
                "It may have been written: repeat the identical append, or read, before giving up on it.",
            ) from None

    def _commit(self, batch: list[_Job]) -> None:
        try:
            outcomes = commit_batch(self._engine, [job.work for job in batch])
        except BaseException as error:  # handed to every waiting task; a thread has nobody else to tell
            for job in batch:
                job.error = error
            return
        for job, outcome in zip(batch, outcomes, strict=True):
            job.result = outcome

    def close(self) -> None:
        """See Lane.close."""
        self._lane.close()


class LoopCombiner:
    """Combines the appends of tasks for an engine that suspends: one batch at a time, the rest gathers."""

    def __init__(self, engine: Appends) -> None:
        self._engine = engine
        self._waiting: deque[tuple[AppendRequest, asyncio.Future[Outcome]]] = deque()
        self._leader: asyncio.Task[None] | None = None

    async def submit(self, request: AppendRequest) -> Outcome:
        """Hand in a request; the batch it joins is shielded from this caller's cancellation."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        entry = (request, future)
        self._waiting.append(entry)
        if self._leader is None or self._leader.done():
            self._leader = loop.create_task(self._lead())
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
                raise
            raise AppendCancelled(
                "The caller was cancelled while its append was being committed.",
                "It may have been written: repeat the identical append, or read, before giving up on it.",
            ) from None

    async def _lead(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
            try:
                outcomes = await self._engine.append_many([request for request, _ in batch])
            except EventfoldError as error:
                outcomes = [error] * len(batch)
            except BaseException as error:
                lost = AppendUnconfirmed("The writer ended while committing.", "Repeat the identical append.")
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error if isinstance(error, Exception) else lost)
                if not isinstance(error, Exception):
                    raise
                continue
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if not future.done():
                    future.set_result(outcome)

    def close(self) -> None:
        """Nothing is held between batches."""


class Offload:
    """An engine that blocks, as an async caller sees it: every method runs on the lane's threads."""

    def __init__(self, engine: Any, threads: int = 4) -> None:
        self._engine = engine
        self._lane = Lane("reader", _run_each, threads)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._engine, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def offloaded(*args: Any, **kwargs: Any) -> Any:
            return await self._lane.enqueue(found(*args, **kwargs)).future

        self.__dict__[name] = offloaded
        return offloaded

    async def close(self) -> None:
        """Let the threads end, then close the engine."""
        self._lane.close()
        run(self._engine.close())


def _run_each(batch: list[_Job]) -> None:
    for job in batch:
        try:
            job.result = run(job.work)
        except BaseException as error:  # handed to the task that asked; a thread has nobody else to tell
            job.error = error


class Bell:
    """Wakes one waiting follower, in either colour, whenever something may have been committed."""

    def __init__(self, watch: Callable[[Callable[[], None]], Callable[[], None]]) -> None:
        self._rung = threading.Event()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None
        self.closed = False
        self._stop = watch(self.ring)

    def ring(self) -> None:
        """From any thread."""
        self._rung.set()
        waiter = self._waiter
        if waiter is not None:
            try:
                waiter[0].call_soon_threadsafe(_wake, waiter[1])
            except RuntimeError:  # that loop has ended
                return

    def clear(self) -> None:
        """To be called before looking, so that what happens after the look rings again."""
        self._rung.clear()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it rings; False on timeout (seconds)."""
        return self._rung.wait(timeout)

    async def wait_async(self, timeout: float | None = None) -> bool:
        """The same for a task."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiter = (loop, future)
        try:
            if not self._rung.is_set():
                async with asyncio.timeout(timeout):
                    await future
        except TimeoutError:
            return False
        finally:
            self._waiter = None
        return True

    def close(self) -> None:
        """Stop watching and let a waiter go."""
        self.closed = True
        self._stop()
        self.ring()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


Pause = Callable[[float], Awaitable[None]]
