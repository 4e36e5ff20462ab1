"""Several writers: appends are forwarded to one process while the writers of a store would refuse each other.

A writer begins without any agreement: its batches have the expected last sequence, so that of two at once one is
refused. That costs little while writers seldom meet. A writer that was refused REFUSALS times within WINDOW_S looks up
the writers' lease: it acquires it, or forwards its appends to the holder. The lease decides only who writes fast: a
holder that has lost it, or two of them, are two writers, of which the expected sequence lets one through.

A holder that does not answer costs HOLDER_TIMEOUT_S once: the sender takes its lease, and writes its requests itself.
Whether the holder has written them, or will yet, does not matter: both judge them by ids and conditions against the
stream, so that they are written once.
Knows: when to forward, and to whom. Does not know: how appends are written.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from uuid import uuid4

import msgspec

from eventfold.engines.jetstream.accepting import Acceptor, Answer, Forwarded, Write, decode_answer, encode
from eventfold.engines.jetstream.buckets import Bucket
from eventfold.engines.jetstream.client import RawClient, RequestFailed, publish_command
from eventfold.engines.jetstream.connection import ClusterConnection
from eventfold.engines.jetstream.failures import unconfirmed
from eventfold.engines.jetstream.leases import Lease, Leases
from eventfold.engines.jetstream.stream import Identity
from eventfold.errors import EventfoldError, StoreReadOnly, StoreUnavailable
from eventfold.ports.engine_messages import OutcomeMessage, errors_by_code
from eventfold.ports.messages import AppendRequest, Outcome

KEY = "writer"  # of the lease, in the bucket of locks
LEASE_TTL_S = 3
ATTEMPTS = 5  # to replace a holder
REFUSALS, WINDOW_S = 3, 2.0
PING_AFTER_S = 0.5  # without an answer, the holder is asked whether it is there
HOLDER_TIMEOUT_S = 1.5  # without any answer, another process takes its lease
IDLE_S = 5.0  # without two processes that write, the lease is released, and nothing is forwarded
AGAIN_S = 30.0  # after the lease could not be used, or two holders in a row did not answer
MARGIN_S = 0.2  # by which a holder gives up earlier than the sender does
ENVELOPE_BYTES = 4_096  # of a message, beside the requests
BYTES_PER_EVENT = 256  # more than a forwarded event has beside data, metadata, tags and type
_ERRORS = errors_by_code()


class Result(msgspec.Struct, frozen=True):
    """The outcomes of forwarded requests. None: the caller writes them; the holder may write them too, and later."""

    outcomes: list[Outcome] | None = None
    may_be_written: bool = False


class _Gone(Exception):
    """The holder gave no answer."""

    def __init__(self, *, may_be_written: bool, is_lost: bool) -> None:
        self.may_be_written, self.is_lost = may_be_written, is_lost


class Forwarding:
    """Whether this process forwards its appends, and to whom; or whether it writes those of others."""

    def __init__(self, connection: ClusterConnection, identity: Callable[[], Identity], write: Write) -> None:
        self._connection, self._identity = connection, identity
        bucket = Bucket(connection, connection.address.names.bucket("locks"), LEASE_TTL_S / 2)
        self._leases = Leases(bucket, LEASE_TTL_S, lost=self._on_lost)
        self.acceptor = Acceptor(connection, identity, write, self.is_holder)
        self._lease: Lease | None = None
        self._holder: str | None = None  # another process
        self._forwarded_at = self._written_at = 0.0  # in the time of the loop
        self._refusals: deque[float] = deque(maxlen=REFUSALS)
        self._lost_at = self._not_before = float("-inf")
        self._watching: asyncio.Task[None] | None = None
        self._sender = uuid4().hex
        self._closed = False
        self.forwarded = self.taken_over = 0  # requests, for operators

    def is_holder(self) -> bool:
        """Whether this process writes for others."""
        return self._lease is not None and self._lease.is_held() and not self._closed

    def forwards(self) -> bool:
        """Whether the next appends are to be forwarded."""
        if self._holder is not None and asyncio.get_running_loop().time() - self._forwarded_at > IDLE_S:
            self._holder = None  # the others may have ended
        return self._holder is not None

    @property
    def max_bytes(self) -> int:
        """How many bytes requests may have together, in one message."""
        return self._connection.max_payload - ENVELOPE_BYTES

    # Who holds the lease

    def on_write(self) -> None:
        """Note that this process has written appends of its own callers."""
        self._written_at = asyncio.get_running_loop().time()

    async def on_refusal(self) -> None:
        """Note that another writer was faster. After several refusals, look for the holder of the lease."""
        now = asyncio.get_running_loop().time()
        self._refusals.append(now)
        if self.is_holder() or self._holder is not None or self._closed or now < self._not_before:
            return
        if len(self._refusals) == REFUSALS and now - self._refusals[0] < WINDOW_S:
            self._refusals.clear()
            await self._seek(None)

    async def _seek(self, instead_of: str | None) -> None:
        """Acquire the lease, if it is free or `instead_of` has it; otherwise note its holder."""
        self._holder = holder = None
        now = asyncio.get_running_loop().time()
        try:
            for _ in range(ATTEMPTS):  # a holder that is replaced may renew its lease meanwhile
                holder = await self._acquire_or_find(instead_of)
                if holder is None or holder != instead_of:
                    break
        except EventfoldError:  # without the lease the writers compete
            self._not_before = now + AGAIN_S
            return
        if holder not in (None, instead_of, self.acceptor.holder):
            self._holder, self._forwarded_at = holder, now

    async def _acquire_or_find(self, instead_of: str | None) -> str | None:
        """Acquire the lease, if it is free or `instead_of` has it, and return None; otherwise return its holder."""
        found = await self._leases.holder(KEY)
        if found is not None and found[0] not in (instead_of, self.acceptor.holder):
            return found[0]
        await self.acceptor.start()  # first: who reads the lease may send at once
        revision = None if found is None else found[1].revision
        lease = await self._leases.acquire(KEY, self.acceptor.holder, instead_of=revision)
        if not isinstance(lease, Lease):
            return lease.note
        self._hold(lease)
        return None

    def _hold(self, lease: Lease) -> None:
        self._lease = lease
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._release_when_idle())

    async def _release_when_idle(self) -> None:
        """Release the lease when fewer than two processes write."""
        loop = asyncio.get_running_loop()
        while (lease := self._lease) is not None:
            await asyncio.sleep(IDLE_S)
            writers = self.acceptor.count_senders(IDLE_S) + (loop.time() - self._written_at < IDLE_S)
            if writers < 2 and self._lease is lease:
                self._lease = None
                await self._leases.release(lease)

    def _on_lost(self, lease: Lease) -> None:
        if self._lease is lease:
            self._lease = None

    # Forwarding

    async def forward(self, requests: Sequence[AppendRequest], deadline: float) -> Result:
        """Let the holder write requests. Returns their outcomes, or that the caller has to write them itself."""
        holder = self._holder
        if holder is None or sum(map(message_size, requests)) > self.max_bytes:
            return Result()
        self._forwarded_at = asyncio.get_running_loop().time()
        try:
            answer = await self._ask(holder, requests, deadline)
        except _Gone as gone:
            self.taken_over += len(requests)
            if gone.is_lost:
                await self._replace(holder)
            return Result(may_be_written=gone.may_be_written)
        if not answer.is_holder and self._holder == holder:
            self._holder = None
        if len(answer.outcomes) != len(requests):
            return Result(may_be_written=answer.was_begun)
        self.forwarded += len(requests)
        return Result([_outcome(each, self._connection.where) for each in answer.outcomes])

    async def _replace(self, holder: str) -> None:
        """Take the lease of a holder that did not answer. After two of them in a row, compete for a while."""
        if self._holder != holder:
            return  # another batch found it out
        now = asyncio.get_running_loop().time()
        if now - self._lost_at < AGAIN_S / 3:
            self._holder, self._not_before = None, now + AGAIN_S
            return
        self._lost_at = now
        await self._seek(holder)

    async def _ask(self, holder: str, requests: Sequence[AppendRequest], deadline: float) -> Answer:
        """Send requests to the holder and wait for its answer. Raises _Gone if none comes.

        Meanwhile the holder is asked whether it is there: it may itself have to wait for the cluster.
        """
        loop = asyncio.get_running_loop()
        try:
            client = await self._connection.ready(deadline)
        except StoreUnavailable as error:
            raise _Gone(may_be_written=False, is_lost=False) from error
        wait_s = deadline - loop.time() - MARGIN_S
        answer = loop.create_task(self._request(client, holder, requests, wait_s, deadline - loop.time()))
        ping: asyncio.Task[Answer] | None = None
        try:
            while True:
                await asyncio.wait((answer,), timeout=PING_AFTER_S)
                if answer.done():
                    return answer.result()
                ping = loop.create_task(self._request(client, holder, (), 0.0, HOLDER_TIMEOUT_S - PING_AFTER_S))
                await asyncio.wait((answer, ping), return_when=asyncio.FIRST_COMPLETED)
                if answer.done():
                    return answer.result()
                ping.result()
        except RequestFailed as failed:
            self._compete_if_not_permitted(holder)
            # What was not sent, and a lost connection of this process, say nothing of the holder. A failed question
            # whether it is there says nothing of the requests: it may have written them before.
            is_lost = failed.is_unheard or (failed.was_sent and client.is_connected)
            is_of_requests = answer.done() and answer.exception() is failed
            may_be_written = not is_of_requests or (failed.was_sent and not failed.is_unheard)
            raise _Gone(may_be_written=may_be_written, is_lost=is_lost) from failed
        finally:
            answer.cancel()
            if ping is not None:
                ping.cancel()

    async def _request(
        self, client: RawClient, holder: str, requests: Sequence[AppendRequest], wait_s: float, timeout: float
    ) -> Answer:
        """Send one message to the holder and return its answer. Raises RequestFailed."""
        identity = self._identity()
        reply, future = client.new_reply()
        message = encode(Forwarded(reply, self._sender, identity.store_id, identity.epoch, wait_s, list(requests)))
        if len(message) > client.max_payload:  # conditions of thousands of items
            future.cancel()
            raise RequestFailed("the message would be too large", was_sent=False)
        await client.send(publish_command(self.acceptor.subject(holder), reply, message), timeout)
        answer, _ = await client.answer(future, timeout)
        try:
            return decode_answer(answer)
        except msgspec.DecodeError:
            return Answer(is_holder=False, was_begun=True)

    def _compete_if_not_permitted(self, holder: str) -> None:
        try:
            self._connection.refuse_if_not_permitted(self.acceptor.subject(holder).decode())
        except StoreReadOnly:
            self._holder, self._not_before = None, asyncio.get_running_loop().time() + AGAIN_S

    async def close(self) -> None:
        """Accept nothing more, answer what was accepted, and release the lease."""
        self._closed = True
        self._holder = self._lease = None
        await self.acceptor.settle(HOLDER_TIMEOUT_S)
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait((self._watching,))
        await self._leases.close()


def message_size(request: AppendRequest) -> int:
    """Return an upper bound of the bytes that a request has in a message, beside its condition."""
    return sum(
        len(event.data)
        + len(event.metadata or b"")
        + 4 * (len(event.type) + sum(map(len, event.tags)))
        + BYTES_PER_EVENT
        for event in request.events
    )


def _outcome(message: OutcomeMessage, where: str) -> Outcome:
    if message.receipt is not None:
        return message.receipt
    if message.error is not None:
        kind = _ERRORS.get(message.error.code, StoreUnavailable)
        return kind(message.error.what, message.error.remedy, **message.error.fields)
    return unconfirmed(where, "its outcome is missing in the answer of the process that wrote it")
