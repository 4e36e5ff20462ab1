"""One call to the server: sending it, repeating it where that is safe, the epoch of each answer.

A call that only reads is repeated while the server is away, for the time of `patience`. A call that writes is repeated
only if no connection could be made, so that the server has received nothing; once any byte may have been sent,
a lost answer is AppendUnconfirmed, and the log repeats the append with the same event ids.
Knows: HTTP, when repeating is safe. Does not know: what the calls mean.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any, BinaryIO, TypeVar

import aiohttp
import msgspec

from eventfold.core.backoff import Backoff, with_jitter
from eventfold.engines.remote.failures import (
    Busy,
    Lost,
    NotSent,
    error_of,
    failure_of,
    unconfirmed,
    unreachable,
)
from eventfold.engines.remote.options import RemoteAddress, RemoteOptions
from eventfold.errors import InvalidInput, InvalidUrl, NotAStore, StoreUnavailable
from eventfold.ports.engine_messages import MEDIA_TYPE, STORE_HEADER, encode
from eventfold.ports.refusals import closed_error, wrong_store

T = TypeVar("T")
CONNECT_TIMEOUT_S = 10.0
KEPT_IDLE_S = 10.0  # less than servers keep a connection (30 s here): so that a call does not meet its end
AGAIN = Backoff(0.02, 1.0)
CHUNK_BYTES = 1 << 20
LARGE_BYTES = 1 << 20  # a larger body is sent in pieces
NO_HEADERS: Mapping[str, str] = {}


class FileFailure(Exception):
    """A file here could not be written, which says nothing about the server. Its cause is the OSError."""


class KnownStore:
    """What the answers of a server have said of the store: its id, and the greatest epoch so far."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.store_id, self.epoch = "", 0
        self.was_reached = False

    def note(self, header: str | None, *, may_change: bool) -> bool:
        """Take over the store and epoch of an answer. Returns whether the answer is not of an earlier epoch.

        Raises NotAStore without such a header, StoreNotFound if it is another store and must not be.
        """
        found, _, number = (header or "").partition(".")
        if not found or not number.isdecimal():
            raise NotAStore(
                f"The answer of {self.where} is not that of an eventfold server.",
                "Check the address.",
                where=self.where,
            )
        epoch = int(number)
        if may_change or not self.store_id:
            self.store_id, self.epoch = found, epoch
        elif found != self.store_id:
            raise wrong_store(self.where, self.store_id, found)
        elif epoch > self.epoch:
            self.epoch = epoch
        self.was_reached = True
        return epoch >= self.epoch


class Connection:
    """The connections to a server that belong to one event loop."""

    def __init__(self, address: RemoteAddress, options: RemoteOptions, store: KnownStore) -> None:
        self._address, self._options, self.store = address, options, store
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def ask(
        self,
        call: str,
        message: Any,
        kind: type[T],
        *,
        writes: bool = False,
        may_change: bool = False,
        wait_s: float = 0,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> T:
        """Send a message and return the answer. `wait_s`: for how long the server may wait before it answers.

        `headers`: further ones, those of a trace.

        Raises the error of the server; AppendUnconfirmed if `writes` and the answer was lost; StoreUnavailable errors.
        """
        body = _encoded(message)
        loop = asyncio.get_running_loop()
        end, attempt = loop.time() + (self._options.patience if self.store.was_reached else 0.0), 0
        while True:
            if self._closed:
                raise closed_error()
            attempt += 1
            pause = AGAIN.pause(attempt)
            try:
                return await self._try(call, body, kind, writes, may_change, wait_s, headers)
            except NotSent as failure:
                last: StoreUnavailable = failure.error
            except Busy as busy:
                last, pause = busy.error, busy.after_s
            except Lost as failure:
                if writes:
                    raise unconfirmed(failure.why, self.store.where) from failure.__cause__
                last = unreachable(failure.why, self.store.where)
            if loop.time() + pause > end and not self._closed:
                raise last
            await asyncio.sleep(0 if self._closed else with_jitter(pause))

    async def _try(
        self,
        call: str,
        body: bytes,
        kind: type[T],
        writes: bool,
        may_change: bool,
        wait_s: float,
        more: Mapping[str, str],
    ) -> T:
        headers = {} if may_change or not self.store.store_id else {STORE_HEADER: self.store.store_id}
        headers |= more
        async with self._sent("POST", f"engine/{call}", body, headers, self._options.timeout + wait_s) as answer:
            raw = await answer.read()
        status, media_type = answer.status, answer.content_type
        if status != 200 or media_type != MEDIA_TYPE:
            raise self._refusal(status, media_type, raw, answer.headers)
        try:
            is_current = self.store.note(answer.headers.get(STORE_HEADER), may_change=may_change)
        except StoreUnavailable as error:
            if writes:
                raise Lost("the answer does not name the store") from error
            raise
        if not is_current and not writes:
            raise Lost("it has not noticed yet that the store is in another epoch")
        try:
            return msgspec.msgpack.decode(raw, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Lost(f"the answer is not as expected ({error})") from error

    def _refusal(self, status: int, media_type: str, raw: bytes, headers: Mapping[str, str]) -> Exception:
        if status == 200:
            return Lost(f"a proxy answered with {media_type}")
        return error_of(status, media_type, raw, self.store.where, headers.get("Retry-After"))

    async def download(self, path: str, to: BinaryIO) -> None:
        """Write the body of a GET of the store's route `path` to an open file.

        Raises FileFailure, StoreUnavailable errors.
        """
        try:
            async with self._sent("GET", path, None, {}, None) as answer:
                if answer.status != 200:
                    raw = await answer.read()
                    raise self._refusal(answer.status, answer.content_type, raw, answer.headers)
                async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                    _write(to, chunk)
        except NotSent as failure:
            raise failure.error from failure.__cause__
        except Busy as busy:
            raise busy.error from None
        except Lost as failure:
            raise unreachable(failure.why, self.store.where) from failure.__cause__

    @asynccontextmanager
    async def _sent(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], timeout_s: float | None
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """The answer of a request, while its body is read. Raises NotSent, Lost."""
        connect_s = min(CONNECT_TIMEOUT_S, self._options.timeout)
        timeout = aiohttp.ClientTimeout(
            total=timeout_s, connect=connect_s, sock_read=None if timeout_s else self._options.timeout
        )
        session = self._session_here()
        data = BytesIO(body) if body is not None and len(body) > LARGE_BYTES else body  # sent in pieces
        try:
            async with session.request(
                method, self._address.base + path, data=data, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer:
                yield answer
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise failure_of(error, self.store.where) from error
        except RuntimeError as error:
            if not self._closed:
                raise
            raise Lost("the store was closed") from error  # aiohttp: "Session is closed"

    def _session_here(self) -> aiohttp.ClientSession:
        """The session of the running loop. A session of a loop that has ended is given up with its connections."""
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            if self._session is not None:
                self._session.detach()
            headers = {"Content-Type": MEDIA_TYPE, "User-Agent": "eventfold"}
            if not self._options.compression:
                headers["Accept-Encoding"] = "identity"
            if self._address.key is not None:
                headers["Authorization"] = f"Bearer {self._address.key}"
            connector = aiohttp.TCPConnector(
                limit=self._options.connections, keepalive_timeout=KEPT_IDLE_S, ssl=self._trusted()
            )
            self._session = aiohttp.ClientSession(
                connector=connector, headers=headers, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
            )
            self._loop = loop
        return self._session

    def _trusted(self) -> ssl.SSLContext | bool:
        if self._options.ca_file is None:
            return True
        try:
            return ssl.create_default_context(cafile=self._options.ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise InvalidUrl(
                f"The file of certificates {self._options.ca_file!r} cannot be used: {error.strerror or error}.",
                "Name a file with certificates in the PEM format.",
            ) from error

    async def close(self) -> None:
        """Close the connections. Calls in progress end, as if the connection was lost; then StoreClosed is raised."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None and self._loop is asyncio.get_running_loop():
            await session.close()


def _encoded(message: Any) -> bytes:
    try:
        return encode(message)
    except (UnicodeEncodeError, OverflowError) as error:
        raise InvalidInput(
            f"A text or a number of this call cannot be sent: {error}.", "No event has such a text or number."
        ) from error


def _write(to: BinaryIO, chunk: bytes) -> None:
    try:
        to.write(chunk)
    except OSError as error:
        raise FileFailure(str(error)) from error
