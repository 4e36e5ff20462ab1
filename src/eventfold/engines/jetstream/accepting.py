"""Accepting appends of other processes: the holder of the writers' lease writes them together with its own.

A request is one message to the holder and one answer. An empty message asks whether the holder is there.
Knows: the messages. Does not know: who holds the lease, how appends are written.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from uuid import uuid4

import msgspec

from eventfold.engines.jetstream.client import RequestFailed, publish_command
from eventfold.engines.jetstream.connection import ClusterConnection
from eventfold.engines.jetstream.stream import Identity
from eventfold.errors import EventfoldError
from eventfold.ports.engine_messages import OutcomeMessage, outcome_message
from eventfold.ports.messages import AppendRequest, Outcome

Write = Callable[[Sequence[AppendRequest], float], Awaitable[list[Outcome]]]


class Forwarded(msgspec.Struct, omit_defaults=True):
    """Append requests of another process, or with `requests` empty the question whether the holder is there.

    `reply` is the subject of the answer, `sender` the process, `store` and `epoch` what the requests are meant for.
    `wait_s`: for how long the sender waits.
    """

    reply: bytes
    sender: str
    store: str
    epoch: int
    wait_s: float
    requests: list[AppendRequest] = []


class Answer(msgspec.Struct, omit_defaults=True):
    """One outcome for each request, or none: then the sender finds out by itself what was written.

    `is_holder`: whether this process writes for others, also from now on. `was_begun`: whether it may have written any
    of the requests, or may do so later.
    """

    is_holder: bool
    outcomes: list[OutcomeMessage] = []
    was_begun: bool = False


encode = msgspec.msgpack.Encoder().encode
decode_forwarded = msgspec.msgpack.Decoder(Forwarded).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode


class Acceptor:
    """The side of the holder. `holder` is its name in subjects; `is_holder` tells whether it holds the lease."""

    def __init__(
        self,
        connection: ClusterConnection,
        identity: Callable[[], Identity],
        write: Write,
        is_holder: Callable[[], bool],
    ) -> None:
        self.holder = f"{os.getpid()}-{uuid4().hex}"
        self.senders: dict[str, float] = {}  # when each process sent something last, in the time of the loop
        self._connection, self._identity, self._write, self._is_holder = connection, identity, write, is_holder
        self._running: set[asyncio.Task[None]] = set()
        self._is_subscribed = False

    def subject(self, holder: str) -> bytes:
        """Return where a holder takes messages."""
        return f"{self._connection.address.names.appends}.{holder}".encode()

    async def start(self) -> None:
        """Take messages from now on, until the connection is closed."""
        if not self._is_subscribed:
            self._is_subscribed = True
            await self._connection.subscribe(self.subject(self.holder).decode(), self._on_message)

    def _on_message(self, _: bytes, data: bytes, __: bytes) -> None:
        try:
            message = decode_forwarded(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # not of a process that knows the format; it gets no answer, and writes by itself
        task = asyncio.get_running_loop().create_task(self._take(message))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _take(self, message: Forwarded) -> None:
        answer = await self._answer(message)
        try:
            await self._connection.client.send(publish_command(message.reply, b"", encode(answer)))
        except RequestFailed:
            return  # the sender gets no answer, and finds out by itself

    async def _answer(self, message: Forwarded) -> Answer:
        identity = self._identity()
        if not self._is_holder() or (message.store, message.epoch) != (identity.store_id, identity.epoch):
            return Answer(is_holder=False)
        if not message.requests:
            return Answer(is_holder=True)
        loop = asyncio.get_running_loop()
        self.senders[message.sender] = loop.time()
        try:
            outcomes = await self._write(message.requests, loop.time() + message.wait_s)
        except EventfoldError:  # of all requests: the sender learns the reason, or the outcomes, by writing them itself
            return Answer(is_holder=self._is_holder(), was_begun=True)
        return Answer(
            is_holder=self._is_holder(), outcomes=[outcome_message(each) for each in outcomes], was_begun=True
        )

    def count_senders(self, seconds: float) -> int:
        """Return how many processes have sent something within this time; forget the others."""
        since = asyncio.get_running_loop().time() - seconds
        self.senders = {sender: at for sender, at in self.senders.items() if at >= since}
        return len(self.senders)

    async def settle(self, timeout: float) -> None:
        """Wait until what was accepted is answered."""
        if self._running:
            await asyncio.wait(tuple(self._running), timeout=timeout)
