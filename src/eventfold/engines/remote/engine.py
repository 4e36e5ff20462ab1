"""The remote engine: every method of the engine port, as a message to a server.

Knows: which message each call is. Does not know: HTTP (connection.py), threads (background.py).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from eventfold.concurrency import in_thread
from eventfold.core.envelope import Receipt
from eventfold.core.query import Query
from eventfold.core.trace_context import trace_in
from eventfold.engines.remote.background import Background
from eventfold.engines.remote.connection import Connection, FileFailure, KnownStore
from eventfold.engines.remote.failures import error_of_message, unconfirmed
from eventfold.engines.remote.locks import RemoteLocks
from eventfold.engines.remote.options import parse_address
from eventfold.engines.remote.services import RemoteLookups, RemoteReplication, RemoteSnapshots, all_names
from eventfold.engines.remote.watching import Watching
from eventfold.errors import EventfoldError, InvalidInput
from eventfold.log.context import CONTEXT
from eventfold.ports import engine_messages as messages
from eventfold.ports.engine_messages import Nothing
from eventfold.ports.messages import (
    PAGE_BYTES,
    AppendRequest,
    Capabilities,
    Head,
    Outcome,
    Page,
    Span,
    TagCount,
    TypeCount,
)
from eventfold.ports.refusals import closed_error
from eventfold.ports.services import Services

T = TypeVar("T")
Mode = Literal["sync", "async"]
MAX_CALL_REQUESTS = 512  # append requests in one message
OFFERED = frozenset({"lookups", "snapshots", "locks", "replication", "backup"})


class RemoteEngine:
    """A store of a server, `eventfold serve`, by its address; any number of clients may use it at once.

    `mode`: whether calls block ("sync"; an event loop in a thread of its own makes them) or run on the caller's event
    loop ("async"). For the other options see `RemoteOptions`. A store is created by its server, not by its clients.
    """

    name = "remote"
    default_target = None

    def __init__(
        self, url: str, *, mode: Literal["sync", "async"] = "sync", create: bool = True, **options: Any
    ) -> None:
        self._address, self.options = parse_address(url, options)
        self._url, self._given = url, options
        self._known = KnownStore(self._address.where)
        self._is_sync = mode == "sync"
        self.capabilities = Capabilities(suspends=mode == "async", blocks=mode == "sync", releases_interpreter=True)
        self._closed = False
        self._background = Background(self._connect)
        self._connection = self._connect()  # of the caller's event loop; not used in sync mode
        self._watching = Watching(self._background)
        self._locks = RemoteLocks(self._ask, self._background)
        self.services = Services(blocking=None if self._is_sync else self)

    def _connect(self) -> Connection:
        return Connection(self._address, self.options, self._known)

    def __repr__(self) -> str:
        return f"RemoteEngine({self._address.where!r})"

    @property
    def store_id(self) -> str:
        """See the port."""
        return self._known.store_id

    @property
    def epoch(self) -> int:
        """See the port: the greatest epoch that an answer was of."""
        return self._known.epoch

    # Opening and closing

    async def open(self) -> None:
        """See the port. Raises StoreNotFound, NotAStore, StoreUnavailable, ServerRefused."""
        found = await self._ask("identity", Nothing(), messages.Identity)
        self.capabilities = msgspec.structs.replace(
            self.capabilities,
            durable=found.durable,
            immutable=found.immutable,
            query_conditions=found.query_conditions,
            request_keys=found.request_keys,
        )
        there = OFFERED.intersection(found.services)
        self.services = Services(
            lookups=RemoteLookups(self._ask) if "lookups" in there else None,
            snapshots=RemoteSnapshots(self._ask) if "snapshots" in there else None,
            locks=self._locks if "locks" in there else None,
            replication=RemoteReplication(self._ask) if "replication" in there else None,
            backup=self._backup if "backup" in there else None,
            blocking=None if self._is_sync else self,
        )

    async def close(self) -> None:
        """See the port."""
        if self._closed:
            return
        await self._locks.close()
        self._closed = True
        self._watching.close()
        if self._is_sync:
            self._background.close()
        else:
            await self._connection.close()
            await in_thread(self._background.close)

    async def share(self) -> None:
        """See BlockingEngines: each engine has connections of its own."""

    def blocking_engine(self) -> RemoteEngine:
        """See BlockingEngines."""
        return RemoteEngine(self._url, mode="sync", **self._given)

    async def _ask(
        self, call: str, message: Any, kind: type[T], *, writes: bool = False, may_change: bool = False
    ) -> T:
        if self._closed:
            raise closed_error()
        context = CONTEXT.get()
        trace = trace_in(context.metadata) if context is not None else {}
        if self._is_sync:
            return self._background.run(
                lambda connection: connection.ask(
                    call, message, kind, writes=writes, may_change=may_change, headers=trace
                )
            )
        return await self._connection.ask(call, message, kind, writes=writes, may_change=may_change, headers=trace)

    # Appending

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """See the port. Requests of more than 8 MiB are sent in several messages, one after the other.

        If one of these messages fails, its error is the outcome of its requests and of those after them.
        """
        outcomes: list[Outcome] = []
        for part in _parts(requests):
            try:
                answer = await self._ask("append", messages.Append(part), messages.Outcomes, writes=True)
                if len(answer.outcomes) != len(part):
                    raise unconfirmed("the answer has not one outcome for each request", self._address.where)
            except EventfoldError as error:
                if not outcomes:
                    raise
                rest = len(requests) - len(outcomes)
                return outcomes + [copy.copy(error) for _ in range(rest)]
            outcomes += map(self._outcome, answer.outcomes)
        return outcomes

    def _outcome(self, message: messages.OutcomeMessage) -> Outcome:
        if message.receipt is not None:
            return message.receipt
        if message.error is not None:
            return error_of_message(message.error)
        return unconfirmed("its outcome is missing in the answer", self._address.where)

    async def receipt_of(self, key: str) -> Receipt | None:
        """See the port."""
        return (await self._ask("receipt", messages.Key(key), messages.ReceiptMessage)).value

    # Reading

    async def read(self, query: Query, span: Span) -> Page:
        """See the port."""
        return messages.page_of(await self._ask("read", messages.Read(query, span), messages.PageMessage))

    async def head(self) -> Head:
        """See the port."""
        return await self._ask("head", Nothing(), Head)

    async def count(self, query: Query, after: int = 0, until: int | None = None) -> int:
        """See the port."""
        return (await self._ask("count", messages.Count(query, after, until), messages.Number)).value or 0

    async def position_at(self, time: int) -> int:
        """See the port."""
        return (await self._ask("position-at", messages.Number(time), messages.Number)).value or 0

    async def event_id(self, position: int) -> bytes | None:
        """See the port."""
        return (await self._ask("event-id", messages.Number(position), messages.EventId)).value

    async def boundary(self, position: int) -> int:
        """See the port."""
        return (await self._ask("boundary", messages.Number(position), messages.Number)).value or position

    async def types(self) -> list[TypeCount]:
        """See the port."""
        return (await self._ask("types", Nothing(), messages.Types)).value

    async def tags(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[TagCount]:
        """See the port."""
        message = messages.Names(prefix, limit, after)
        return await all_names(self._ask, "tags", message, messages.Tags, lambda each: each.tag)

    async def stats(self) -> dict[str, Any]:
        """See the port: those of the server's engine, whose name is `behind`."""
        found = (await self._ask("stats", Nothing(), messages.Stats)).value
        return {**found, "engine": self.name, "server": self._address.where, "behind": found.get("engine")}

    def watch(self, notify: Callable[[], None]) -> Callable[[], None]:
        """See the port."""
        if self._closed:
            raise closed_error()
        return self._watching.watch(notify)

    def _backup(self, path: str) -> None:
        """See Services.backup: the server's backup, as a file here. Raises InvalidInput if it cannot be written."""
        try:
            file = open(path, "xb")  # noqa: SIM115 (closed below)
        except OSError as error:
            raise InvalidInput(
                f"The backup cannot be written to {path}: {error.strerror}.", "Give a path where nothing is.", path=path
            ) from error
        try:
            with file:
                self._background.run(lambda connection: connection.download("backup", file))
        except BaseException as error:
            os.unlink(path)
            if isinstance(error, FileFailure):
                what = f"The backup cannot be written to {path}: {error}."
                raise InvalidInput(what, "Free space, or give another path.", path=path) from error
            raise


def _parts(requests: Sequence[AppendRequest]) -> Iterator[list[AppendRequest]]:
    """The requests in order, in parts that one message can have."""
    part: list[AppendRequest] = []
    size = 0
    for request in requests:
        bytes_of_request = sum(len(event.data) + len(event.metadata or b"") for event in request.events)
        if part and (size + bytes_of_request > PAGE_BYTES or len(part) == MAX_CALL_REQUESTS):
            yield part
            part, size = [], 0
        part.append(request)
        size += bytes_of_request
    if part:
        yield part
