"""A writer and a reader on nats-py alone, without eventfold's engine: right, or wrong on purpose.

The checker of histories is tried on it. Conditions are the stream's last sequence (right), or a wildcard over the
subjects of a group, which the server judges before it has applied what is being written (wrong). Knows: nats-py, the
workload's events. Does not know: the checker.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Sequence
from typing import Any, Literal
from uuid import uuid4

import nats.errors
from nats.js import api

from eventfold.core.envelope import NewEvent, Receipt, StoredEvent, now_micros
from eventfold.core.query import ConditionClause, Query
from eventfold.errors import AppendConflict, AppendUnconfirmed

Conditions = Literal["stream", "wildcard", "none"]
TIMEOUT_S = 3.0
CONFLICTS = (10071, 10164)  # wrong last sequence, with and without its number
BATCH = 500  # messages that are requested at a time


async def create(client: Any, stream: str, *, replicas: int = 3, duplicate_window: float = 120.0) -> None:
    """Create the stream, with what protects it against deletion left out. Its first election may take a second try."""
    config = api.StreamConfig(
        name=stream, subjects=[f"{stream}.>"], num_replicas=replicas, storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.NEW, allow_direct=True, allow_atomic=True, duplicate_window=duplicate_window,
    )  # fmt: skip
    for _ in range(3):
        with contextlib.suppress(TimeoutError, nats.errors.TimeoutError):
            await client.jetstream(timeout=10).add_stream(config)
            return
    raise TimeoutError(f"{stream} was not created")


class RawLog:
    """A stream as a log: `Appending` of the workload. Events of one append are an atomic batch."""

    def __init__(self, client: Any, stream: str, conditions: Conditions = "stream", filter: str = "*") -> None:
        self._client, self._stream, self._conditions, self._filter = client, stream, conditions, filter
        self._known: list[StoredEvent] = []  # of the whole log, from its beginning

    async def head(self) -> int:
        """Return the last sequence, as the leader says."""
        return (await self._ask(f"$JS.API.STREAM.INFO.{self._stream}", b""))["state"]["last_seq"]

    async def _ask(self, subject: str, body: bytes, headers: dict[str, str] | None = None) -> Any:
        try:
            answer = await self._client.request(subject, body, timeout=TIMEOUT_S, headers=headers)
        except (nats.errors.Error, TimeoutError, OSError) as problem:
            raise AppendUnconfirmed(f"No answer: {type(problem).__name__}.", "Repeat it.") from None
        return json.loads(answer.data)

    async def append(self, events: Sequence[NewEvent], unless: Sequence[ConditionClause], key: str | None) -> Receipt:
        """Append a batch; with a condition, judge it in the chosen way. A repeat is found by its ids in the log."""
        del key
        expected: dict[str, str] = {"Nats-Expected-Stream": self._stream}
        if self._conditions == "stream":
            head = await self.head()
            log = await self.until(head)
            known = [event for event in log if event.id in {each.id for each in events}]
            if known:
                return _receipt([event.id for event in known], known[0].position, repeated=True)
            for clause in unless:
                if any(e.position > clause.after and clause.query.matches(e.type, e.tag_set) for e in log):
                    raise AppendConflict("Something matches.", "Read again.")
            expected["Nats-Expected-Last-Sequence"] = str(head)
        elif self._conditions == "none":
            expected["Nats-Msg-Id"] = events[0].id.hex()  # the server's way to recognise a repeat
        elif unless:
            group = unless[0].query.items[0].tags[0].replace(":", "-")
            last = max((m.position for m in await self.log(group)), default=0)
            if last > unless[0].after:
                raise AppendConflict("Something matches.", "Read again.")
            expected["Nats-Expected-Last-Subject-Sequence"] = str(last)
            expected["Nats-Expected-Last-Subject-Sequence-Subject"] = f"{self._stream}.{group}.{self._filter}"
        answer = await self._publish(events, expected)
        if "error" in answer:
            if answer["error"]["err_code"] in CONFLICTS:
                if self._conditions == "stream":
                    return await self.append(events, unless, None)
                raise AppendConflict(answer["error"]["description"], "Read again.")
            raise AppendUnconfirmed(answer["error"]["description"], "Repeat it.")
        repeated = bool(answer.get("duplicate"))
        return _receipt([event.id for event in events], answer["seq"] - len(events) + 1, repeated=repeated)

    async def _publish(self, events: Sequence[NewEvent], expected: dict[str, str]) -> Any:
        batch, size = uuid4().hex, len(events)
        for index, event in enumerate(events):
            headers = _headers(event, index, size) | (expected if index == 0 else {})
            subject = f"{self._stream}.{event.tags[0].replace(':', '-')}.{event.tags[1].replace(':', '-')}"
            if size > 1:
                headers |= {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(index + 1)}
            if index == size - 1:
                if size > 1:
                    headers["Nats-Batch-Commit"] = "1"
                return await self._ask(subject, event.data, headers)
            await self._client.publish(subject, event.data, headers=headers)
        raise ValueError("an append has at least one event")

    async def read(self, query: Query, after: int, until: int) -> list[str]:
        """Return the ids of matching events in (after, until]."""
        span = [event for event in await self.until(until) if after < event.position <= until]
        return [event.id.hex() for event in span if query.matches(event.type, event.tag_set)]

    async def until(self, head: int) -> list[StoredEvent]:
        """Return the whole log up to a position, which a replica may not have applied yet."""
        while (at := self._known[-1].position if self._known else 0) < head:
            page, _ = await self._page(f"{self._stream}.>", at + 1)
            self._known += page
        return self._known

    async def log(self, group: str = "") -> list[StoredEvent]:
        """Return all messages, or those of a group, as a replica has them: by the direct read, without any check."""
        subject = f"{self._stream}.{group}.*" if group else f"{self._stream}.>"
        found: list[StoredEvent] = []
        while True:
            page, more = await self._page(subject, found[-1].position + 1 if found else 1)
            found += page
            if not page or not more:
                return found

    async def by_leader(self) -> list[StoredEvent]:
        """Return all messages, as the leader has them; what it does not find is left out, as careless readers do."""
        found: list[StoredEvent] = []
        for sequence in range(1, await self.head() + 1):
            body = json.dumps({"seq": sequence}).encode()
            answer = await self._ask(f"$JS.API.STREAM.MSG.GET.{self._stream}", body)
            if message := answer.get("message"):
                lines = base64.b64decode(message["hdrs"]).decode().split("\r\n")
                headers = dict(line.split(": ", 1) for line in lines if ": " in line)
                found.append(stored(headers | {"Nats-Sequence": sequence}, base64.b64decode(message.get("data", ""))))
        return found

    async def _page(self, subject: str, start: int) -> tuple[list[StoredEvent], bool]:
        inbox = self._client.new_inbox()
        answers = await self._client.subscribe(inbox, pending_msgs_limit=-1, pending_bytes_limit=-1)
        body = json.dumps({"seq": start, "batch": BATCH, "next_by_subj": subject}).encode()
        found: list[StoredEvent] = []
        try:
            await self._client.publish(f"$JS.API.DIRECT.GET.{self._stream}", body, reply=inbox)
            while True:
                message = await answers.next_msg(timeout=TIMEOUT_S)
                status = (message.headers or {}).get("Status", "")
                if status:
                    return found, status == "204" and message.headers.get("Nats-Num-Pending", "0") != "0"
                found.append(stored(message.headers, message.data))
        except (nats.errors.Error, TimeoutError, OSError) as problem:
            raise AppendUnconfirmed(f"No page: {type(problem).__name__}.", "Repeat it.") from None
        finally:
            with contextlib.suppress(nats.errors.Error):
                await answers.unsubscribe()


def _headers(event: NewEvent, offset: int, size: int) -> dict[str, str]:
    envelope = {"id": event.id.hex(), "type": event.type, "tags": event.tags, "time": now_micros()}
    return {"E": json.dumps(envelope | {"offset": offset, "size": size})}


def stored(headers: Any, data: bytes) -> StoredEvent:
    """Return a message as an event of the log. The time is left out: it is the writer's, and writers' clocks differ."""
    envelope = json.loads(headers["E"])
    return StoredEvent(
        int(headers["Nats-Sequence"]), bytes.fromhex(envelope["id"]), envelope["type"], 1, data,
        "\n".join(envelope["tags"]), 0, offset=envelope["offset"], size=envelope["size"],
    )  # fmt: skip


def _receipt(ids: Sequence[bytes], first: int, *, repeated: bool = False) -> Receipt:
    return Receipt(
        store="raw", epoch=1, first=first, last=first + len(ids) - 1, time=0, ids=tuple(ids), digest="",
        repeated=repeated,
    )  # fmt: skip
