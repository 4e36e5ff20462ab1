"""The connection of a process to the cluster: connecting, checking after each connect, requests to JetStream.

nats-py reconnects by itself. After each connect the store is checked again before any call goes on: another node, or
the same one after a restart, may have other settings, and the stream may be another one.
Knows: when a request may be repeated. Does not know: what is stored.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
from nats import errors as driver
from nats.aio.client import Client

from eventfold.engines.jetstream.client import RawClient, RequestFailed
from eventfold.engines.jetstream.failures import (
    ApiError,
    ApiFailure,
    connect_error,
    is_refused_login,
    no_answer,
    not_permitted,
)
from eventfold.engines.jetstream.options import ClusterAddress, JetStreamOptions
from eventfold.errors import InvalidUrl, StoreUnavailable
from eventfold.ports.refusals import closed_error

T = TypeVar("T")
Check = Callable[[], Awaitable[None]]
PING_INTERVAL_S = 2  # a node that is gone without closing is noticed after three of them
CONNECT_TIMEOUT_S = 2
RECONNECT_WAIT_S = 0.1
CLOSE_TIMEOUT_S = 2.0
FIRST_ATTEMPTS = 1  # at each server, after the first one; a connection that was there is made again without limit
AGAIN_S = 0.05  # between attempts at a request without an answer
FIRST_ANSWER_S = 2.0  # for one attempt at a request that only reads
# This node may be cut from the majority of the nodes, so another one is asked:
LEAVE_AFTER_S = 1.0  # of answers that there is no leader, or that the leader has no majority
LEAVE_SILENT_S = 5.0  # without an answer: an election takes 4 to 9 s everywhere
_log = logging.getLogger("eventfold")


class _Answer(msgspec.Struct):
    """What every answer of JetStream may have."""

    error: ApiFailure | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode


class ClusterConnection:
    """A connection that belongs to one event loop. `check` is awaited after each connect, before other calls."""

    def __init__(
        self, address: ClusterAddress, options: JetStreamOptions, check: Callable[[], Awaitable[None]]
    ) -> None:
        self.address, self.options = address, options
        self.where = address.where
        self._check = check
        self._client: RawClient | None = None
        self._is_checked = False
        self._checking, self._connecting = asyncio.Lock(), asyncio.Lock()
        self._changed = asyncio.Event()  # set when the state of the connection has changed
        self._last_error: BaseException | None = None
        self._refused: dict[str, str] = {}  # by subject: what the account may not do
        self._subscriptions: list[tuple[str, Callable[[bytes, bytes, bytes], None]]] = []
        self._was_connected = self._closed = False
        self._limit: asyncio.Timeout | None = None  # of the call that checks
        self.connects = 0

    @property
    def client(self) -> RawClient:
        """The client of nats-py. Only after `ready`."""
        assert self._client is not None
        return self._client

    @property
    def is_ready(self) -> bool:
        """Whether the connection is there and checked."""
        return self._is_checked and self._client is not None and self._client.is_connected

    @property
    def node(self) -> str:
        """The name of the server that this process is connected to."""
        found = self._client._server_info if self._client else {}  # pyright: ignore[reportPrivateUsage]
        return str(found.get("server_name", "?"))

    @property
    def max_payload(self) -> int:
        """How many bytes a message may have, headers included."""
        return self.client.max_payload

    async def ready(self, deadline: float) -> RawClient:
        """Return the client when it is connected and checked. `deadline`: in the time of the event loop.

        Raises StoreUnavailable errors: no connection, or what the check found.
        """
        if self.is_ready:
            return self.client
        try:
            async with asyncio.timeout_at(deadline) as limit, self._checking:
                self._limit = limit
                while not self.is_ready:
                    if self._closed:
                        raise closed_error()
                    await self._connected(limit)
                    await self._check_now()
        except TimeoutError:
            if self._last_error is not None or self._client is None or not self._client.is_connected:
                raise connect_error(self._last_error, self.where) from None
            raise no_answer(self.where, "the store could not be checked in time") from None
        return self.client

    def wait_for_restore(self) -> None:
        """Let the call that checks take as long as it needs: a copy of the index is being restored."""
        if self._limit is not None:
            self._limit.reschedule(None)

    async def _check_now(self) -> None:
        before = self.connects
        await self._check()
        self._is_checked = before == self.connects

    async def _connected(self, limit: asyncio.Timeout) -> None:
        """Wait until the client is connected; make a new one if it is closed for good, as by expired credentials.

        `limit`: the time limit around this call, which is looked at too: nats-py suppresses a cancellation that comes
        while it closes a connection, and this would go on forever.
        """
        while self._client is None or not self._client.is_connected:
            if self._closed:
                raise closed_error()
            if limit.expired():
                raise TimeoutError
            if self._client is None or self._client.is_closed:
                await self._try_to_connect()
                continue
            self._changed.clear()
            await self._changed.wait()

    async def _try_to_connect(self) -> None:
        """Make a client, once for all calls, or pause. Raises StoreUnavailable if there has never been a connection."""
        try:
            async with self._connecting:  # of two clients, one would stay open forever
                if self._client is None or self._client.is_closed:
                    await self._connect()
        except StoreUnavailable:
            if not self._was_connected:
                raise
            await asyncio.sleep(RECONNECT_WAIT_S)

    async def _connect(self) -> None:
        """Make a client. Raises StoreUnavailable if no server accepts it."""
        client, self._client, self._last_error = RawClient(), None, None
        try:
            await client.connect(
                servers=self.address.servers,
                name="eventfold",
                user=self.address.user,
                password=self.address.password,
                user_credentials=self.options.credentials,
                tls=self.trusted(),
                max_reconnect_attempts=FIRST_ATTEMPTS,
                reconnect_time_wait=RECONNECT_WAIT_S,  # pyright: ignore[reportArgumentType] (it may be a fraction)
                connect_timeout=CONNECT_TIMEOUT_S,
                ping_interval=PING_INTERVAL_S,
                max_outstanding_pings=2,
                pending_size=-1,
                no_echo=True,  # what this process announces it knows
                error_cb=self._on_error,
                disconnected_cb=self._on_disconnect,
                reconnected_cb=self._on_reconnect,
                closed_cb=self._on_close,
            )
            client.options["max_reconnect_attempts"] = -1
            await client.open_inbox()
            for subject, received in self._subscriptions:
                await client.subscribe_raw(subject, received)
        except driver.Error as error:
            await _end(client)
            raise connect_error(self._last_error or error, self.where) from None
        except BaseException:
            await _end(client)
            raise
        self._client, self._was_connected = client, True
        self.connects += 1
        self._last_error = None

    async def connect_system(self) -> Client:
        """Return a connection of the system account, by the option `system`. The caller closes it."""
        given = self.options.system or ""
        user, colon, password = given.partition(":")
        client = Client()
        try:
            await client.connect(
                servers=self.address.servers,
                name="eventfold: durability",
                user=user if colon else None,
                password=password if colon else None,
                user_credentials=None if colon else given,
                tls=self.trusted(),
                allow_reconnect=False,
                connect_timeout=CONNECT_TIMEOUT_S,
                error_cb=self._on_error,
            )
        except BaseException:
            await client.close()  # a connection that was refused stays open otherwise
            raise
        return client

    def trusted(self) -> ssl.SSLContext | None:
        """The certificates with which servers are trusted; None without encryption. Raises InvalidUrl."""
        options = self.options
        if not (self.address.tls or options.tls_ca or options.tls_cert):
            return None
        try:
            context = ssl.create_default_context(cafile=options.tls_ca)
            if options.tls_cert:
                context.load_cert_chain(options.tls_cert, options.tls_key)
        except OSError as error:  # ssl.SSLError is one
            raise InvalidUrl(
                f"The files of tls_ca, tls_cert and tls_key cannot be used: {error.strerror or error}.",
                "Give files with certificates and a key in the PEM format.",
            ) from error
        return context

    async def _on_error(self, error: Exception) -> None:
        """Keep what nats-py reports, for the error of the call that waits."""
        text = str(error).lower()
        if "permissions violation" in text:
            self._refused[text.rpartition("to ")[2].strip("\"' ")] = str(error).removeprefix("nats: ")
            return
        if not is_refused_login(self._last_error):  # of several servers: this one tells most
            self._last_error = error
        self._changed.set()
        _log.debug("The connection to %s: %s", self.where, error)

    async def _on_disconnect(self) -> None:
        self._is_checked = False
        self.connects += 1
        self._refused.clear()  # the next connection may have other credentials
        if self._client is not None:
            self._client.fail_waiting("the connection was lost")
        self._changed.set()

    async def _on_reconnect(self) -> None:
        self._last_error = None
        self._changed.set()

    async def _on_close(self) -> None:
        self._is_checked = False
        if self._client is not None:
            self._client.fail_waiting("the connection was closed")
        self._changed.set()

    async def subscribe(self, subject: str, received: Callable[[bytes, bytes, bytes], None]) -> None:
        """Call a function for each message on a subject, also after a new connection."""
        self._subscriptions.append((subject, received))
        if self._client is not None and not self._client.is_closed:
            await self._client.subscribe_raw(subject, received)

    async def ask(
        self,
        subject: str,
        message: Any,
        kind: type[T],
        *,
        deadline: float | None = None,
        client: RawClient | None = None,
    ) -> T:
        """Send a request that only reads to JetStream until it is answered. Returns the answer.

        `client`: ask this client, which is not checked yet: for the check itself. Raises ApiError for an error in the
        answer that will not pass, StoreUnavailable errors.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self.options.timeout if deadline is None else deadline
        payload = b"" if message is None else msgspec.json.encode(message)
        name = f"$JS.API.{subject}".encode()
        why = "no answer within the timeout"
        began = loop.time()
        while (left := end - loop.time()) > 0:
            asked = client or await self.ready(end)
            try:
                raw, _ = await asked.ask(name, payload, min(FIRST_ANSWER_S, left))
            except RequestFailed as failed:
                why, patience = failed.why, LEAVE_SILENT_S
                self.refuse_if_not_permitted(name.decode())
                if client is not None and not client.is_connected:
                    raise no_answer(self.where, why) from None
            else:
                failure = _decode_answer(raw).error
                if failure is None:
                    return msgspec.json.decode(raw, type=kind)
                if not failure.may_pass:
                    raise ApiError(failure)
                why, patience = failure.description, LEAVE_AFTER_S
            if loop.time() - began > patience:
                await self.leave_node(end)
                began = loop.time()
            await asyncio.sleep(min(AGAIN_S, max(0.0, end - loop.time())))
        raise no_answer(self.where, why)

    async def leave_node(self, deadline: float) -> None:
        """Connect again, to another node if there is one: this one may be cut from the majority of the nodes."""
        client = self._client
        if client is None or not client.is_connected:
            return
        _log.warning("The node %s finds no leader for %s: another node is asked.", self.node, self.where)
        await client.force_reconnect()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline) as limit:
                await self._connected(limit)

    def invalidate(self) -> None:
        """Let the next call check the store again."""
        self._is_checked = False

    def refuse_if_not_permitted(self, subject: str) -> None:
        """Raise StoreReadOnly if a server has said that the account may not send to this subject."""
        what = self._refused.get(subject.lower())
        if what is not None:
            raise not_permitted(self.where, what)

    async def close(self) -> None:
        """Close the connection. Calls that wait raise StoreClosed or StoreUnavailable."""
        self._closed = True
        self._changed.set()
        client, self._client = self._client, None
        if client is not None:
            client.fail_waiting("the store was closed")
            await _end(client)


async def _end(client: RawClient) -> None:
    """Close a connection, within a limit: what a peer that is gone has not taken is waited for otherwise."""
    with suppress(Exception):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await client.close()
    client.abort()
