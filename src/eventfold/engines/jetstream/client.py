"""The client of nats-py, with a shorter way for messages: headers stay bytes, and no task or queue is in between.

nats-py parses headers into a dict, queues each message for a task, and makes several objects for each request; for
short messages that costs more than the network. This class keeps its connections, reconnects, TLS and credentials.
Knows: the protocol's commands. Does not know: JetStream, what is sent.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client

Received = Callable[[bytes, bytes, bytes], None]  # subject, payload, header block (b"" without headers)
LARGE_BYTES = 65_536  # wait until so much was given to the network
NO_RESPONDERS = b"NATS/1.0 503"


class RequestFailed(Exception):
    """A request has no answer. `why` is the end of a sentence; `was_sent`: whether a server may have received it.

    `is_unheard`: a server says that no process takes messages on this subject.
    """

    def __init__(self, why: str, *, was_sent: bool = True, is_unheard: bool = False) -> None:
        super().__init__(why)
        self.why, self.was_sent, self.is_unheard = why, was_sent, is_unheard


class RawClient(Client):
    """A connection to a cluster, with requests whose answers are futures and subscriptions whose messages are bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._received: dict[int, Received] = {}
        self._waiting: dict[bytes, asyncio.Future[tuple[bytes, bytes]]] = {}
        self._many: dict[bytes, tuple[Received, Callable[[], None]]] = {}
        self._inbox = b""
        self._asked = 0

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: Any) -> None:
        """Call the function of a raw subscription. Overrides the client's method, which the others keep."""
        received = self._received.get(sid)
        if received is None:
            await super()._process_msg(sid, subject, reply, data, headers)
        else:
            received(subject, data, headers or b"")

    async def subscribe_raw(self, subject: str, received: Received) -> int:
        """Call `received` for each message on a subject, also after a reconnect. Returns the subscription's number."""
        subscription = await self.subscribe(subject, cb=_ignore)  # pyright: ignore[reportUnknownMemberType]
        number = subscription._id  # pyright: ignore[reportPrivateUsage]
        self._received[number] = received
        return number

    async def open_inbox(self) -> None:
        """Subscribe to the answers of requests. Called once, after the connection is made."""
        inbox = self.new_inbox()
        self._inbox = f"{inbox}{secrets.token_hex(4)}.".encode()
        await self.subscribe_raw(self._inbox.decode() + "*", self._answered)

    def _answered(self, subject: bytes, data: bytes, headers: bytes) -> None:
        token = subject[len(self._inbox) :]
        many = self._many.get(token)
        if many is not None:
            many[0](subject, data, headers)
            return
        future = self._waiting.pop(token, None)
        if future is not None and not future.done():
            if headers.startswith(NO_RESPONDERS):
                future.set_exception(
                    RequestFailed("no server answers for it (no quorum, or no such stream)", is_unheard=True)
                )
            else:
                future.set_result((data, headers))

    def new_reply(self) -> tuple[bytes, asyncio.Future[tuple[bytes, bytes]]]:
        """Return the subject of an answer, and the future of its payload and header block."""
        self._asked += 1
        token = b"%x" % self._asked
        future = asyncio.get_running_loop().create_future()
        self._waiting[token] = future
        return self._inbox + token, future

    async def answer(self, future: asyncio.Future[tuple[bytes, bytes]], timeout: float) -> tuple[bytes, bytes]:
        """Wait for an answer. Raises RequestFailed."""
        handle = asyncio.get_running_loop().call_later(timeout, _expire, future)
        try:
            return await future
        finally:
            handle.cancel()
            if future.cancelled():
                self._forget(future)

    def _forget(self, future: asyncio.Future[tuple[bytes, bytes]]) -> None:
        for token, each in self._waiting.items():
            if each is future:
                del self._waiting[token]
                return

    async def ask(self, subject: bytes, payload: bytes, timeout: float, headers: bytes = b"") -> tuple[bytes, bytes]:
        """Send a request and return the payload and the header block of its answer. Raises RequestFailed."""
        reply, future = self.new_reply()
        await self.send(publish_command(subject, reply, payload, headers), timeout)
        return await self.answer(future, timeout)

    async def ask_many(self, subject: bytes, payload: bytes, received: Received, failed: Callable[[], None]) -> bytes:
        """Send a request with several answers; `received` is called with each, `failed` after a lost connection.

        Returns the token for `forget`. Raises RequestFailed.
        """
        self._asked += 1
        token = b"%x" % self._asked
        self._many[token] = (received, failed)
        try:
            await self.send(publish_command(subject, self._inbox + token, payload))
        except BaseException:
            self.forget(token)
            raise
        return token

    def forget(self, token: bytes) -> None:
        """End a request with several answers: later ones are ignored."""
        self._many.pop(token, None)

    async def send(self, commands: bytes, timeout: float | None = None) -> None:
        """Send complete commands of the protocol. Raises RequestFailed while there is no connection.

        `timeout`: for many bytes, which a server that is stopped or cut off does not take.
        """
        if not self.is_connected or self._is_lost():
            raise RequestFailed("there is no connection to the cluster", was_sent=False)
        if self._pending or self._transport is None:
            await self._send_command(commands)
            await self._flush_pending()
            return
        try:
            self._transport.write(commands)  # at once: the client's own task for it would run later
            if len(commands) > LARGE_BYTES:
                async with asyncio.timeout(timeout):
                    await self._transport.drain()
        except TimeoutError:  # an OSError as well
            raise RequestFailed("it was not taken within the timeout") from None
        except OSError as error:
            raise RequestFailed(f"the connection was lost ({error})") from error

    def send_soon(self, commands: bytes) -> None:
        """Send commands without an answer, if there is a connection; short ones."""
        if self.is_connected and not self._pending and self._transport is not None and not self._is_lost():
            self._transport.write(commands)

    def _is_lost(self) -> bool:
        """Whether the connection has ended and the client does not know it yet: uvloop refuses each write then."""
        writer = getattr(self._transport, "_io_writer", None)
        return writer is not None and writer.transport.is_closing()

    async def _attempt_reconnect(self) -> None:
        """Give up what the last server has not taken: the client's method waits for that before it connects again."""
        self.abort()
        await super()._attempt_reconnect()

    def abort(self) -> None:
        """Close the connection at once, also if the server takes nothing any more."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    def fail_waiting(self, why: str) -> None:
        """End the requests that wait: their answers cannot come any more."""
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(RequestFailed(why))
        for _, failed in tuple(self._many.values()):
            failed()


async def _ignore(message: Any) -> None:
    """Never called: the messages of raw subscriptions do not reach the client's queue."""


def _expire(future: asyncio.Future[tuple[bytes, bytes]]) -> None:
    if not future.done():
        future.set_exception(RequestFailed("no answer came within the timeout"))


def publish_command(subject: bytes, reply: bytes, payload: bytes, headers: bytes = b"") -> bytes:
    """Return the command that publishes a message. `headers`: lines, each with its line break."""
    if not headers:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload)
    size = len(headers) + 12
    return b"HPUB %b %b %d %d\r\nNATS/1.0\r\n%b\r\n%b\r\n" % (
        subject, reply, size, size + len(payload), headers, payload,
    )  # fmt: skip
