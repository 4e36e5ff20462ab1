"""Appending: requests are judged against the replica and written as one atomic batch with the expected last sequence.

The expected sequence is that of the whole stream, so that it can be used once only. If an answer is lost or refuses the
batch, the event at the next position says whether it was written; if nothing is there, it is sent again, unchanged.
Knows: batches, judging. Does not know: how the replica decides.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from eventfold.concurrency.run import run
from eventfold.core.envelope import Receipt, StoredEvent, make_receipt, now_micros
from eventfold.engines.jetstream.client import RequestFailed, publish_command
from eventfold.engines.jetstream.connection import ClusterConnection
from eventfold.engines.jetstream.failures import (
    STORE_FAILED,
    WRONG_LAST_SEQUENCE,
    ApiFailure,
    contended,
    error_of_api,
    no_answer,
    too_large,
    unconfirmed,
)
from eventfold.engines.jetstream.following import CurrentLog, Following
from eventfold.engines.jetstream.messages import (
    COMMIT_HEADER,
    MAX_HEADER_BYTES,
    OVERHEAD_BYTES,
    Message,
    encode_event,
)
from eventfold.engines.jetstream.names import StoreNames
from eventfold.engines.jetstream.reader import StreamReader
from eventfold.engines.jetstream.request_keys import RequestKeys
from eventfold.engines.jetstream.stream import Identity
from eventfold.errors import AppendConflict, EventfoldError, PositionBeyondHead, StoreUnavailable
from eventfold.ports.messages import AppendRequest, Outcome
from eventfold.ports.refusals import import_gap
from eventfold.ports.services import Judged

MAX_BATCH_MESSAGES = 1_000  # of one atomic batch, in every server
MAX_BATCH_BYTES = 8 * 2**20  # of events that are appended together; one append may have more
FIRST_ANSWER_S = 1.0  # then the stream is asked whether the batch is there
BYTES_PER_S = 4 * 2**20  # the answer may take longer for a large batch
ANNOUNCE_S = 0.001  # between announcements: commits that follow within this time are announced together
PROBE_S = 0.1  # between questions while there is no leader
LARGE_TEXT_BYTES = 16_384  # of the type, tags and keys of an event, encoded: the limit of a header is far


IsOutpaced = Callable[[], Awaitable[bool]]


class Refused(Exception):
    """Another event is at the position that the batch was to have: nothing of it was written."""


class Outpaced(Exception):
    """Other writers were faster several times, and another process is to write the requests. Nothing was written."""


class Written(NamedTuple):
    """Events of one commit, to be imported, and the request keys of their appends."""

    following: Following
    events: Sequence[StoredEvent]
    keys: list[tuple[str, int]]


class _Ack(msgspec.Struct):
    """The answer to a publish."""

    seq: int = 0
    error: ApiFailure | None = None


_decode_ack = msgspec.json.Decoder(_Ack).decode


class Writer:
    """Writes the appends of a process, one batch after the other."""

    def __init__(
        self,
        connection: ClusterConnection,
        names: StoreNames,
        reader: StreamReader,
        log: CurrentLog,
        keys: RequestKeys,
    ) -> None:
        self._connection, self._names, self._reader = connection, names, reader
        self._log, self._keys = log, keys
        self._announced, self._announced_at = 0, 0.0
        self._announcing: asyncio.TimerHandle | None = None

    @property
    def head(self) -> int:
        """A position that this process knows: its replica has it, or a receipt named it."""
        following = self._log.following
        return max(following.head, following.expected)

    def expect(self, outcomes: Sequence[Outcome]) -> None:
        """Let reads of this process wait for what another process has written for it."""
        last = max((each.last for each in outcomes if isinstance(each, Receipt)), default=0)
        self._log.following.expect(last)

    async def write(
        self, requests: list[AppendRequest], deadline: float, is_outpaced: IsOutpaced | None = None
    ) -> tuple[Written | None, list[Outcome]]:
        """Write requests that fit into one batch, under the conditions of each. What was written is to be imported.

        `is_outpaced` is called after each time that another writer was faster; if it is true, Outpaced is raised.
        """
        if not self._connection.is_ready:
            await self._connection.ready(deadline)
        refusals = self._refuse_large(requests)
        if not refusals:
            return await self._write_fitting(requests, deadline, is_outpaced)
        fitting = [request for number, request in enumerate(requests) if number not in refusals]
        written, verdicts = await self._write_fitting(fitting, deadline, is_outpaced) if fitting else (None, [])
        rest = iter(verdicts)
        return written, [refusals[number] if number in refusals else next(rest) for number in range(len(requests))]

    async def _write_fitting(
        self, requests: list[AppendRequest], deadline: float, is_outpaced: IsOutpaced | None
    ) -> tuple[Written | None, list[Outcome]]:
        loop = asyncio.get_running_loop()
        began, is_current = loop.time(), False
        while loop.time() < deadline:
            following, identity = self._log.following, self._log.identity
            await following.written()
            known = await self._keys.receipts([each.key for each in requests if each.key is not None], deadline)
            to_judge = [each for each in requests if each.key not in known] if known else requests
            judged = following.judge(to_judge, now_micros())
            if not is_current and any(map(_may_pass, judged.verdicts)):
                await self._catch_up(deadline)
                is_current = True
                continue
            events, keys = _accepted(to_judge, judged)
            if events:
                try:
                    await self._commit(events, keys, judged.head.position, deadline)
                except Refused:
                    if is_outpaced is not None and await is_outpaced():
                        raise Outpaced from None
                    await self._catch_up(deadline)
                    is_current = True
                    continue
            written = Written(following, events, list(keys.items())) if events else None
            others = await self._assign(judged.keys, events, deadline) if judged.keys else {}
            verdicts = _outcomes(to_judge, judged, events, identity)
            return written, _by_key(requests, verdicts, known, others) if known or others else verdicts
        raise contended(self._connection.where, loop.time() - began)

    async def _assign(
        self, keys: Sequence[tuple[str, int]], events: Sequence[StoredEvent], deadline: float
    ) -> dict[str | None, Outcome]:
        """Assign keys to appends that are in the log. Returns the outcomes of keys that another append has by now."""
        outcomes: dict[str | None, Outcome] = {}
        ids = {event.position: event.id for event in events}
        for key, first in keys:
            try:
                id = ids.get(first) or run(self._log.following.replica.event_id(first)) or b""
                other = await self._keys.assign(key, first, id, deadline)
                if other is not None:
                    outcomes[key] = replace(other, repeated=True)
            except EventfoldError as error:
                outcomes[key] = unconfirmed(self._connection.where, error.what.rstrip("."))
        return outcomes

    async def _catch_up(self, deadline: float) -> None:
        """Bring the replica up to the leader's last event."""
        last = await self._log.last_sequence(deadline)
        await self._log.following.reach(last, deadline)

    async def import_written(self, written: Written) -> None:
        """Import what was written, and tell other processes."""
        written.following.add_own(written.events, written.keys)
        self._announced = written.events[-1].position
        if self._announcing is None:
            loop = asyncio.get_running_loop()
            if loop.time() >= self._announced_at + ANNOUNCE_S:
                self._announce()
            else:
                self._announcing = loop.call_later(ANNOUNCE_S, self._announce)

    async def write_at(self, events: Sequence[StoredEvent], keys: dict[str, int], deadline: float) -> dict[str, int]:
        """Write events of another log at their positions, directly after the head, in whole appends.

        Returns the keys that are not in messages: a second one of an append, or one of an earlier append. Raises
        AppendConflict if anything else is written there.
        """
        at = 0
        by_first = {first: key for key, first in keys.items()}
        firsts = {event.position for event in events}
        written = {key: first for first, key in by_first.items() if first in firsts}
        while at < len(events):
            part = _first_batch(events[at:])
            chosen = {key: first for key, first in written.items() if part[0].position <= first <= part[-1].position}
            try:
                await self._commit(part, chosen, part[0].position - 1, deadline)
            except Refused:
                raise import_gap(await self._log.last_sequence(deadline), part[0].position) from None
            await self.import_written(Written(self._log.following, part, list(chosen.items())))
            at += len(part)
        return {key: first for key, first in keys.items() if key not in written}

    def _refuse_large(self, requests: Sequence[AppendRequest]) -> dict[int, EventfoldError]:
        """The errors of requests that have an event which fits into no message, by their number."""
        limit = self._connection.max_payload
        refused: dict[int, EventfoldError] = {}
        for number, request in enumerate(requests):
            for event in request.events:
                text = len(event.type) + sum(map(len, event.tags)) + len(request.key or "")
                if len(event.data) + len(event.metadata or b"") + text * 6 + LARGE_TEXT_BYTES < limit and (
                    text * 6 < LARGE_TEXT_BYTES
                ):
                    continue
                message = encode_event(event.at(2**53, 2**53, 0, 1_000), request.key)
                header = len(message.header) + OVERHEAD_BYTES
                if message.size > limit or header > MAX_HEADER_BYTES:
                    most = limit if message.size > limit else MAX_HEADER_BYTES
                    refused[number] = too_large(event.type, message.size, most)
                    break
        return refused

    async def _commit(
        self, events: Sequence[StoredEvent], keys: dict[str, int], expected: int, deadline: float
    ) -> None:
        """Write events directly after the sequence `expected`, all or none. Raises Refused: then none was written.

        Raises AppendUnconfirmed if that could not be found out in time, StoreUnavailable errors: nothing was written.
        """
        by_first = {first: key for key, first in keys.items()}
        messages = [encode_event(event, by_first.get(event.position)) for event in events]
        commit = secrets.token_hex(8).encode()
        messages[0].header += b"%b%b\r\n" % (COMMIT_HEADER, commit)
        loop = asyncio.get_running_loop()
        patience = FIRST_ANSWER_S + sum(each.size for each in messages) / BYTES_PER_S
        sent, why = False, "no answer within the timeout"
        while loop.time() < deadline:
            try:
                acked = await self._publish(events, messages, expected, min(patience, deadline - loop.time()))
            except RequestFailed as failed:
                if not sent:  # an earlier attempt may have been written
                    self._connection.refuse_if_not_permitted(self._names.subject(events[0].type).decode())
                sent, why = sent or failed.was_sent, failed.why
            else:
                if acked is None:
                    return
                # Until a leader that was cut off learns of its successor, both receive the batch; it may refuse what
                # the other one writes. So the stream is asked after a refusal too.
                is_doubted = acked.err_code in WRONG_LAST_SEQUENCE or acked.err_code == STORE_FAILED
                if not sent and not is_doubted and not acked.may_pass:
                    raise error_of_api(acked, self._connection.where)
                sent, why = sent or is_doubted, acked.description
            if not sent:
                await asyncio.sleep(PROBE_S)
                continue
            if await self._is_written(commit, expected, deadline, why):
                return
        raise unconfirmed(self._connection.where, why) if sent else no_answer(self._connection.where, why)

    async def _is_written(self, commit: bytes, expected: int, deadline: float, why: str) -> bool:
        """Whether a batch that was sent is in the stream; False: not yet. Raises Refused if it never will be.

        Raises AppendUnconfirmed if the leader does not say in time.
        """
        try:
            found = await self._reader.commit_at(expected + 1, deadline)
            if found is None:
                await self._reader.info(deadline)  # which leaves a node that is cut from the majority
        except StoreUnavailable as error:
            raise unconfirmed(self._connection.where, f"{why}; {error.what.rstrip('.')}") from error
        if found is None:
            return False
        if found == commit:
            return True
        raise Refused

    async def _publish(
        self, events: Sequence[StoredEvent], messages: Sequence[Message], expected: int, timeout: float
    ) -> ApiFailure | None:
        """Send one batch. Returns the error in its answer, or None. Raises RequestFailed."""
        end = asyncio.get_running_loop().time() + timeout
        try:
            client = await self._connection.ready(end)
        except StoreUnavailable as error:
            raise RequestFailed(error.what.rstrip("."), was_sent=False) from error
        reply, future = client.new_reply()
        subject = self._names.subject
        if len(messages) == 1:
            header = b"%bNats-Expected-Last-Sequence: %d\r\n" % (messages[0].header, expected)
            commands = publish_command(subject(events[0].type), reply, messages[0].payload, header)
        else:
            batch = secrets.token_hex(8).encode()
            parts: list[bytes] = []
            last = len(messages)
            for number, (event, message) in enumerate(zip(events, messages, strict=True), 1):
                header = b"%bNats-Batch-Id: %b\r\nNats-Batch-Sequence: %d\r\n" % (message.header, batch, number)
                if number == 1:
                    header += b"Nats-Expected-Last-Sequence: %d\r\n" % expected
                if number == last:
                    header += b"Nats-Batch-Commit: 1\r\n"
                answer = reply if number == last else b""  # the server answers each message that asks for it
                parts.append(publish_command(subject(event.type), answer, message.payload, header))
            commands = b"".join(parts)
        loop = asyncio.get_running_loop()
        await client.send(commands, max(0.05, end - loop.time()))
        self._log.following.import_soon()
        raw, _ = await client.answer(future, max(0.05, end - loop.time()))
        return _decode_ack(raw).error

    def _announce(self) -> None:
        """Tell other processes of the last commit. It is not stored, and costs no answer."""
        self._announcing = None
        self._announced_at = asyncio.get_running_loop().time()
        if self._connection.is_ready:
            self._connection.client.send_soon(publish_command(self._names.heads.encode(), b"", b"%d" % self._announced))

    def close(self) -> None:
        """Announce the last commit at once."""
        if self._announcing is not None:
            self._announcing.cancel()
            self._announce()


def _by_key(
    requests: Sequence[AppendRequest],
    verdicts: Sequence[Outcome],
    known: dict[str, Receipt],
    others: dict[str | None, Outcome],
) -> list[Outcome]:
    """The outcomes of all requests: the verdicts are those of the requests whose key is not among the known ones."""
    rest = iter(verdicts)
    outcomes: list[Outcome] = []
    for each in requests:
        if each.key is not None and each.key in known:
            outcomes.append(replace(known[each.key], repeated=True))
            continue
        verdict = next(rest)
        outcomes.append(others.get(each.key, verdict) if isinstance(verdict, Receipt) else verdict)
    return outcomes


def _may_pass(verdict: Outcome | None) -> bool:
    """Whether a refusal may be due to a replica that is behind: of a position or an event that it has not got."""
    if isinstance(verdict, PositionBeyondHead):
        return True
    return isinstance(verdict, AppendConflict) and verdict.fields.get("found") == verdict.fields.get("after")


def _first_batch(events: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
    """The first of these events, in whole appends, that one batch can have."""
    count = size = end = 0
    for event in events:
        count, size = count + 1, size + len(event.data)
        if end and (count > MAX_BATCH_MESSAGES or size > MAX_BATCH_BYTES):
            break
        if event.offset == event.size - 1:
            end = count
    return events[: end or len(events)]


def _accepted(requests: Sequence[AppendRequest], judged: Judged) -> tuple[list[StoredEvent], dict[str, int]]:
    """The events of the accepted requests at their positions, and the request keys with the first position of each."""
    events: list[StoredEvent] = []
    keys: dict[str, int] = {}
    position = judged.head.position
    for request, verdict in zip(requests, judged.verdicts, strict=True):
        if verdict is None:
            if request.key is not None:
                keys[request.key] = position + 1
            size = len(request.events)
            for offset, event in enumerate(request.events):
                position += 1
                events.append(event.at(position, judged.time, offset, size))
    return events, keys


def _outcomes(
    requests: Sequence[AppendRequest], judged: Judged, events: Sequence[StoredEvent], identity: Identity
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    at = 0
    for request, verdict in zip(requests, judged.verdicts, strict=True):
        if verdict is None:
            written = events[at : at + len(request.events)]
            at += len(request.events)
            verdict = make_receipt(identity.store_id, identity.epoch, written)
        outcomes.append(verdict)
    return outcomes
