"""The queue of a process's appends: gathered into batches, which are written here, or forwarded to another process.

Batches that are written here follow each other, since each is judged against the one before. Forwarded ones are on
their way together.
Knows: when a batch is full, what a forwarded batch without an answer means. Does not know: how batches are judged and
written, when to forward.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from eventfold.core.envelope import Receipt, as_first_answer
from eventfold.engines.jetstream.failures import unconfirmed
from eventfold.engines.jetstream.forwarding import Forwarding, message_size
from eventfold.engines.jetstream.writer import MAX_BATCH_BYTES, MAX_BATCH_MESSAGES, Outpaced, Writer
from eventfold.errors import AppendUnconfirmed, EventfoldError, PositionBeyondHead
from eventfold.ports.messages import AppendRequest, Outcome
from eventfold.ports.refusals import closed_error

MAX_SENT = 8  # forwarded batches without an answer
GATHER_S = 0.005  # at most, for processes that were answered just now and are about to send again
END_TIMEOUT_S = 1.0  # for what is on its way when the store is closed


class Appending:
    """Requests of one call, and what came of them. `wake` is called on the loop when they have outcomes or an error.

    `is_foreign`: another process has forwarded them.
    """

    __slots__ = ("deadline", "error", "is_done", "is_foreign", "outcomes", "requests", "wake")

    def __init__(
        self, requests: Sequence[AppendRequest], wake: Callable[[], object], *, is_foreign: bool = False
    ) -> None:
        self.requests, self.wake, self.is_foreign = requests, wake, is_foreign
        self.deadline = 0.0
        self.is_done = False
        self.outcomes: list[Outcome] = []
        self.error: Exception | None = None

    def withdraw(self) -> None:
        """Let nothing be written unless the requests are on their way: the caller does not wait any more."""
        self.is_done = True

    def end(self, outcomes: list[Outcome], error: Exception | None = None) -> None:
        """Set the outcomes, or the error, and wake the caller."""
        if not self.is_done:
            self.outcomes, self.error, self.is_done = outcomes, error, True
            self.wake()

    def result(self) -> list[Outcome]:
        """Return the outcomes or raise the error."""
        if self.error is not None:
            raise self.error
        return self.outcomes


class _Batch:
    """Calls that are handled together: their requests, and the outcomes of the first of them."""

    def __init__(self, calls: Sequence[Appending]) -> None:
        self.calls = calls
        self.requests = [request for each in calls for request in each.requests]
        self.deadline = max(each.deadline for each in calls)
        self.is_own = not any(each.is_foreign for each in calls)
        self.outcomes: list[Outcome] = []

    def rest(self) -> Sequence[AppendRequest]:
        """Return the requests without an outcome."""
        return self.requests[len(self.outcomes) :] if self.outcomes else self.requests

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Set the next outcomes. With the last of them, the callers are woken."""
        self.outcomes += outcomes
        if len(self.outcomes) == len(self.requests):
            at = 0
            for each in self.calls:
                each.end(self.outcomes[at : at + len(each.requests)])
                at += len(each.requests)

    def fail(self, error: Exception) -> None:
        """End with an error: that of the calls, or if some requests have outcomes, that of the other requests."""
        if self.outcomes and isinstance(error, EventfoldError):
            self.add([error] * (len(self.requests) - len(self.outcomes)))
            return
        for each in self.calls:
            each.end([], error)


class AppendQueue:
    """Writes or forwards the appends of a process. `where` names the store in messages."""

    def __init__(self, writer: Writer, where: str) -> None:
        self.forwarding: Forwarding | None = None
        self._writer, self._where = writer, where
        self._queue: deque[Appending] = deque()
        self._task: asyncio.Task[None] | None = None
        self._sent: set[asyncio.Task[None]] = set()
        self._on_their_way: set[_Batch] = set()
        self._writing = asyncio.Lock()
        self._arrived = asyncio.Event()
        self._answered = 0  # calls of other processes in the last batch
        self._took_s = 0.0  # by the last batch
        self._closed = False

    def submit(self, appending: Appending, deadline: float) -> None:
        """Queue requests."""
        appending.deadline = deadline
        if self._closed:
            appending.end([], closed_error())
            return
        self._queue.append(appending)
        self._arrived.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def write_for_others(self, requests: Sequence[AppendRequest], deadline: float) -> list[Outcome]:
        """Write requests that another process has forwarded. They are not forwarded again."""
        done = asyncio.Event()
        appending = Appending(requests, done.set, is_foreign=True)
        self.submit(appending, deadline)
        await done.wait()
        return appending.result()

    async def _run(self) -> None:
        while self._queue:
            if self.forwarding is None or not self.forwarding.forwards():
                await self._gather()
                await self._finish(self._take())
                continue
            while len(self._sent) >= MAX_SENT:
                await asyncio.wait(self._sent, return_when=asyncio.FIRST_COMPLETED)
            task = asyncio.get_running_loop().create_task(self._finish(self._take()))
            self._sent.add(task)
            task.add_done_callback(self._sent.discard)
            await asyncio.sleep(0)  # it is sent before others are taken

    async def _gather(self) -> None:
        """Wait a little for those processes whose appends were in the last batch: one batch takes less than two."""
        loop = asyncio.get_running_loop()
        end = loop.time() + min(GATHER_S, self._took_s / 2)
        while self._answered > sum(each.is_foreign for each in self._queue) and (left := end - loop.time()) > 0:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), left)
            except TimeoutError:
                return

    def _take(self) -> list[Appending]:
        """Remove from the queue what one batch may have: at least one call, unless all were withdrawn."""
        taken: list[Appending] = []
        events = size = 0
        while self._queue:
            each = self._queue[0]
            if each.is_done:
                self._queue.popleft()
                continue
            count = sum(len(request.events) for request in each.requests)
            weight = sum(map(_weight, each.requests))
            if taken and (events + count > MAX_BATCH_MESSAGES or size + weight > MAX_BATCH_BYTES):
                break
            taken.append(self._queue.popleft())
            events, size = events + count, size + weight
        return taken

    async def _finish(self, calls: Sequence[Appending]) -> None:
        """Write or forward a batch, and wake its callers."""
        if not calls:
            return
        batch = _Batch(calls)
        self._on_their_way.add(batch)
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            while rest := batch.rest():
                await self._route(batch, rest)
        except Exception as error:  # noqa: BLE001 (raised in the callers)
            batch.fail(error)
        finally:
            self._on_their_way.discard(batch)
            self._answered = sum(each.is_foreign for each in calls)
            self._took_s = loop.time() - began

    async def _route(self, batch: _Batch, requests: Sequence[AppendRequest]) -> None:
        """Add the outcomes of the first of these requests, at least of one."""
        forwarding = self.forwarding
        if forwarding is None or not batch.is_own:
            await self._write(batch, requests)
            return
        head, may_be_written = self._writer.head, False
        while True:
            if forwarding.forwards():
                part = _first_part(requests, message_size, forwarding.max_bytes)
                result = await forwarding.forward(part, batch.deadline)
                if result.outcomes is not None:
                    self._writer.expect(result.outcomes)
                    batch.add(result.outcomes if not may_be_written else self._decided(part, result.outcomes, head))
                    return
                may_be_written = may_be_written or result.may_be_written
            else:
                part = requests
            try:
                await self._write(batch, part, since=head if may_be_written else None)
            except Outpaced:
                continue
            return

    async def _write(self, batch: _Batch, requests: Sequence[AppendRequest], since: int | None = None) -> None:
        """Write the first of these requests here; wake the callers, then import it while they go on.

        `since`: another process may have written them after this position, or will yet: a repeat after it is the first
        answer, and "nothing was written" is not known. Raises Outpaced if another process is to write them.
        """
        part = _first_part(requests, _weight, MAX_BATCH_BYTES)
        async with self._writing:
            try:
                written, outcomes = await self._writer.write(
                    part, batch.deadline, self._is_outpaced if batch.is_own else None
                )
            except EventfoldError as error:
                if since is None or isinstance(error, AppendUnconfirmed):
                    raise
                raise unconfirmed(self._where, error.what.rstrip(".")) from error
            batch.add(outcomes if since is None else self._decided(part, outcomes, since))
            if self.forwarding is not None and batch.is_own:
                self.forwarding.on_write()
            if written is not None:
                await self._writer.import_written(written)

    async def _is_outpaced(self) -> bool:
        """Note a refusal of own requests. Returns whether they are to be forwarded now."""
        forwarding = self.forwarding
        if forwarding is None:
            return False
        await forwarding.on_refusal()
        return forwarding.forwards()

    def _decided(self, requests: Sequence[AppendRequest], outcomes: Sequence[Outcome], since: int) -> list[Outcome]:
        """Outcomes of requests that another process may have written, or may write later.

        A conflict stays one, as events do not change. A position beyond the head may be reached later. A receipt stays
        that of a repeat if it is another append's with the same key.
        """
        decided: list[Outcome] = []
        for request, each in zip(requests, outcomes, strict=True):
            if isinstance(each, Receipt) and each.first > since:
                decided.append(as_first_answer(each, request.events))
            elif isinstance(each, PositionBeyondHead):
                decided.append(unconfirmed(self._where, each.what.rstrip(".")))
            else:
                decided.append(each)
        return decided

    async def close(self) -> None:
        """Let what is on its way end; refuse what is queued."""
        self._closed = True
        while self._queue:
            self._queue.popleft().end([], closed_error())
        tasks = {*self._sent, *([self._task] if self._task is not None else [])}
        if tasks:
            await asyncio.wait(tasks, timeout=END_TIMEOUT_S)
        for batch in tuple(self._on_their_way):
            for each in batch.calls:
                each.end([], unconfirmed(self._where, "the store was closed"))


def _weight(request: AppendRequest) -> int:
    """Return the bytes of the payloads of a request."""
    return sum([len(event.data) for event in request.events])


def _first_part(
    requests: Sequence[AppendRequest], weight: Callable[[AppendRequest], int], most: int
) -> list[AppendRequest]:
    """Return the first of these requests, in order, that one batch can have: at least one."""
    part: list[AppendRequest] = []
    events = size = 0
    for request in requests:
        events, size = events + len(request.events), size + weight(request)
        if part and (events > MAX_BATCH_MESSAGES or size > most):
            break
        part.append(request)
    return part
