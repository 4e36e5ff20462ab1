"""Reading the stream: ranges of events from any replica, one event or the last sequence from the leader.

Every sequence must come, each with its checksum. A replica that leaves one out, or has it damaged, does not say so;
then the leader is asked, then the others again, and if none has the event, that is an error: never a skip.
Knows: JetStream's requests for messages. Does not know: what the events are for.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Sequence

import msgspec

from eventfold.core.envelope import StoredEvent
from eventfold.engines.jetstream.client import RawClient, RequestFailed
from eventfold.engines.jetstream.connection import ClusterConnection
from eventfold.engines.jetstream.failures import (
    NOT_FOUND_MESSAGE,
    ApiError,
    error_of_api,
    missing_message,
    no_answer,
)
from eventfold.engines.jetstream.messages import COMMIT_HEADER, decode_event
from eventfold.engines.jetstream.names import StoreNames
from eventfold.engines.jetstream.stream import StreamInfo, stream_info
from eventfold.errors import CorruptEvent

BATCH_MESSAGES = 2_000
BATCH_BYTES = 8 * 2**20
ANSWER_S = 5.0  # for the next message of a range; another replica is asked then
AGAIN_S = 0.02
FEW = 4  # events that are asked of the leader, one by one: those of the last commits
BEHIND_S = 0.2  # a replica that lags gets so much time, then the leader is asked
BEHIND = "the replica is behind"
REPLICA_QUESTIONS = 24  # for one event that the leader does not return: each is answered by any of the replicas
_log = logging.getLogger("eventfold")
Keyed = tuple[StoredEvent, str | None]


class _Message(msgspec.Struct):
    """A message in an answer of the leader."""

    seq: int
    subject: str = ""
    hdrs: str = ""
    data: str = ""


class _Found(msgspec.Struct):
    """The answer of the leader to a request for one message."""

    message: _Message


class _Range:
    """The messages of one answer, as they come."""

    def __init__(self, after: int) -> None:
        self.events: list[Keyed] = []
        self.next = after + 1
        self.gap: str | None = None  # why `next` is not there, although a later one is
        self.status = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.received = 0

    def on_message(self, _: bytes, data: bytes, headers: bytes) -> None:
        """Take a message. The last one has a status and no event."""
        self.received += 1
        if headers.startswith(b"NATS/1.0 "):
            self.status = headers[9:12]
            self.end()
            return
        if self.gap is not None or self.done.done():
            return
        at = headers.rfind(b"\r\nNats-Sequence: ")
        sequence = int(headers[at + 17 : headers.index(b"\r\n", at + 17)])
        if sequence > self.next:
            self.gap = f"it returned {sequence} in its place"
            return
        if sequence < self.next:  # a message of an earlier answer
            return
        try:
            self.events.append(decode_event(sequence, headers, data))
        except CorruptEvent as error:
            self.gap = error.what
            return
        self.next = sequence + 1

    def end(self) -> None:
        """Wake the reader."""
        if not self.done.done():
            self.done.set_result(None)


class StreamReader:
    """Reads events of one stream."""

    def __init__(self, connection: ClusterConnection, names: StoreNames) -> None:
        self._connection, self._names = connection, names
        self._direct = f"$JS.API.DIRECT.GET.{names.stream}".encode()
        self.healed = 0  # events that a replica did not return, and another one did

    async def info(self, deadline: float | None = None) -> StreamInfo:
        """Ask the leader for the stream's configuration and state."""
        return await stream_info(self._connection, self._names, deadline=deadline)

    async def ranges(self, after: int, until: int, deadline: float) -> AsyncIterator[Sequence[Keyed]]:
        """Yield the events in (after, until] in order, in pieces. `until` must not be beyond the leader's last one.

        While the caller works on one piece, the next one is fetched. `deadline` concerns each piece without progress.
        """
        loop = asyncio.get_running_loop()
        patience = deadline - loop.time()
        fetching = loop.create_task(self._piece(after, until, deadline))
        try:
            while after < until:
                found = await fetching
                after = found[-1][0].position
                if after < until:
                    fetching = loop.create_task(self._piece(after, until, loop.time() + patience))
                yield found
        finally:
            fetching.cancel()

    async def _piece(self, after: int, until: int, deadline: float) -> Sequence[Keyed]:
        """Return events from `after` on, at least one."""
        loop = asyncio.get_running_loop()
        if until - after <= FEW and (few := await self._few(after, until, deadline)):
            return few
        behind_since: float | None = None
        why = "no answer came"
        while loop.time() < deadline:
            try:
                found = await self._ask(after, until, deadline)
            except RequestFailed as failed:
                why = failed.why
                self._connection.refuse_if_not_permitted(self._direct.decode())
                await asyncio.sleep(AGAIN_S)
                continue
            if found.gap is not None and found.next <= until:
                return [*found.events, await self._heal(found.next, found.gap, deadline)]
            if found.events:
                return found.events
            behind_since = behind_since or loop.time()  # this replica has not applied it yet
            if loop.time() - behind_since > BEHIND_S:
                return [await self._heal(after + 1, BEHIND, deadline)]
            await asyncio.sleep(AGAIN_S / 10)
        raise no_answer(self._connection.where, why)

    async def _few(self, after: int, until: int, deadline: float) -> list[Keyed] | None:
        """Return a few events from the leader, asked for together: replicas may not have the newest ones yet.

        None if the leader does not return them all: replicas are asked then.
        """
        asked = [self.from_leader(sequence, deadline) for sequence in range(after + 1, until + 1)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        events = [each for each in found if isinstance(each, tuple)]
        return events if len(events) == len(found) else None

    async def _ask(self, after: int, until: int, deadline: float) -> _Range:
        loop = asyncio.get_running_loop()
        client = await self._connection.ready(deadline)
        found = _Range(after)
        count = min(BATCH_MESSAGES, until - after)
        request = b'{"seq":%d,"batch":%d,"max_bytes":%d}' % (after + 1, count, BATCH_BYTES)
        token = await client.ask_many(self._direct, request, found.on_message, found.end)
        try:
            received = -1
            while not found.done.done():
                if received == found.received:
                    raise RequestFailed("no answer came within the timeout")
                received = found.received
                await asyncio.wait((found.done,), timeout=min(ANSWER_S, max(0.0, deadline - loop.time())))
        finally:
            client.forget(token)
        if found.status == b"503":
            raise RequestFailed("no replica answers")
        del found.events[until - after :]
        return found

    async def _heal(self, sequence: int, why: str, deadline: float) -> Keyed:
        """Return an event that a replica did not, from the leader or else from another replica.

        Raises StoreDamaged if none of them returns it as it was written.
        """
        found = _decode(sequence, await self._get(sequence, deadline))
        if found is not None:
            if why != BEHIND:
                self._report(f"A replica that was asked through node {self._connection.node}", sequence, why)
            return found
        cluster = (await self.info(deadline)).cluster  # a leader that was cut from the others may have been asked
        leader = cluster.leader if cluster else self._connection.node
        found = _decode(sequence, await self._get(sequence, deadline)) or await self._from_replicas(sequence, deadline)
        if found is None:
            raise missing_message(self._connection.where, leader, self._names.stream, sequence, why.rstrip("."))
        self._report(f"The leader, node {leader},", sequence, why)
        return found

    async def _from_replicas(self, sequence: int, deadline: float) -> Keyed | None:
        """Ask for one event until a replica returns it; each question may reach another one."""
        for _ in range(REPLICA_QUESTIONS):
            try:
                found = await self._ask(sequence - 1, sequence, deadline)
            except RequestFailed:
                found = None
            if found is not None and found.events:
                return found.events[0]
            await asyncio.sleep(AGAIN_S)
        return None

    def _report(self, node: str, sequence: int, why: str) -> None:
        self.healed += 1
        _log.warning(
            "%s did not return sequence %s of the stream %s as it was written (%s); another node did. Find the node "
            "whose store is damaged, wipe it and let it resync.",
            node,
            sequence,
            self._names.stream,
            why.rstrip("."),
        )

    async def from_leader(
        self, sequence: int, deadline: float, why: str = "", *, client: RawClient | None = None
    ) -> Keyed | None:
        """Return one event from the leader; None if it has none there. Raises StoreDamaged if it is damaged there.

        `client`: see ClusterConnection.ask.
        """
        message = await self._get(sequence, deadline, client)
        found = _decode(sequence, message)
        if found is None and message is not None:
            why = why or "its checksum is wrong"
            raise missing_message(self._connection.where, self._connection.node, self._names.stream, sequence, why)
        return found

    async def commit_at(self, sequence: int, deadline: float) -> bytes | None:
        """Return the number of the batch that begins at a sequence, from the leader; None if nothing is there.

        b"" if no batch begins there.
        """
        message = await self._get(sequence, deadline)
        if message is None:
            return None
        _, _, rest = base64.b64decode(message.hdrs).partition(b"\r\n" + COMMIT_HEADER)
        return rest.partition(b"\r\n")[0]

    async def _get(self, sequence: int, deadline: float, client: RawClient | None = None) -> _Message | None:
        subject = f"STREAM.MSG.GET.{self._names.stream}"
        try:
            answer = await self._connection.ask(subject, {"seq": sequence}, _Found, deadline=deadline, client=client)
        except ApiError as error:
            if error.failure.err_code == NOT_FOUND_MESSAGE:
                return None
            raise error_of_api(error.failure, self._connection.where) from None
        return answer.message


def _decode(sequence: int, message: _Message | None) -> Keyed | None:
    """Return the event of a message; None without a message, or if it is damaged."""
    if message is None:
        return None
    try:
        return decode_event(sequence, base64.b64decode(message.hdrs), base64.b64decode(message.data))
    except CorruptEvent:
        return None
