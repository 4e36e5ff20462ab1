"""Buckets beside the stream: records by key, each replaced only under the revision that its writer has read.

A bucket is one of NATS's key-value buckets: a stream with one message for each key. Records are read from the leader,
so that a read has what was written before it anywhere. A deleted record is a marker, which the server removes after a
second: nothing is left of keys that are not used any more.
Knows: the messages of key-value buckets. Does not know: what a record means.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from eventfold.engines.jetstream.client import RawClient, RequestFailed
from eventfold.engines.jetstream.connection import ClusterConnection
from eventfold.engines.jetstream.failures import (
    NOT_FOUND_MESSAGE,
    NOT_FOUND_STREAM,
    WRONG_LAST_SEQUENCE,
    ApiError,
    ApiFailure,
    error_of_api,
    no_answer,
)
from eventfold.engines.jetstream.names import StoreNames
from eventfold.engines.jetstream.stream import StreamInfo
from eventfold.errors import EventfoldError, StoreUnavailable

T = TypeVar("T")
AGAIN_S = 0.1  # before a leader without a majority is asked again
MARKER_TTL_S = 1  # the shortest that a server accepts; TTLs are whole seconds
BUCKETS = ("locks", "snapshots", "keys")  # of every store
DELETED = b"KV-Operation: DEL\r\n"


class Entry(msgspec.Struct, frozen=True):
    """The record of a key: its number in the bucket, its value (None: it was deleted), its header block."""

    revision: int
    value: bytes | None
    headers: bytes = b""


NOTHING = Entry(0, None)


class _Message(msgspec.Struct):
    subject: str
    seq: int
    data: str = ""
    hdrs: str = ""


class _Found(msgspec.Struct):
    message: _Message | None = None


class _State(msgspec.Struct):
    subjects: dict[str, int] | None = None


class _Info(msgspec.Struct):
    total: int = 0
    state: _State = msgspec.field(default_factory=_State)


class _Published(msgspec.Struct):
    seq: int = 0
    error: ApiFailure | None = None


_decode_published = msgspec.json.Decoder(_Published).decode


class Bucket:
    """One bucket of a store. `timeout`: seconds for each call, below that of the store's options."""

    def __init__(self, connection: ClusterConnection, name: str, timeout: float | None = None) -> None:
        self.name, self.stream = name, f"KV_{name}"
        self.timeout = min(connection.options.timeout, timeout or connection.options.timeout)
        self._connection = connection
        self._prefix = f"$KV.{name}."

    async def get(self, key: str) -> Entry:
        """Return the record of a key, from the leader; NOTHING if there is none. A marker has a revision."""
        return (await self._read({"last_by_subj": self._prefix + key}))[1]

    async def last_revision(self, deadline: float) -> int:
        """Return the revision of the last write, from a leader that a majority follows."""
        while True:
            info = await self._ask("STREAM.INFO", {}, StreamInfo)
            if info.has_majority:
                return info.state.last_seq
            if asyncio.get_running_loop().time() >= deadline:
                raise no_answer(self._connection.where, f"the leader of the bucket {self.name} has no majority")
            await asyncio.sleep(AGAIN_S)

    async def at(self, revision: int) -> tuple[str, Entry]:
        """Return the key and the record with this revision, from the leader; "" and NOTHING if it was replaced."""
        return await self._read({"seq": revision})

    async def keys(self, is_asked: Callable[[str], bool]) -> list[str]:
        """Return the keys for which `is_asked`, in no order. Some may be deleted, and not yet removed."""
        found: list[str] = []
        offset = 0
        while True:
            page = await self._ask("STREAM.INFO", {"subjects_filter": f"{self._prefix}>", "offset": offset}, _Info)
            subjects = page.state.subjects or {}
            found += filter(is_asked, (subject[len(self._prefix) :] for subject in subjects))
            offset += len(subjects)
            if not subjects or offset >= page.total:
                return found

    async def _read(self, what: dict[str, Any]) -> tuple[str, Entry]:
        found = await self._ask("STREAM.MSG.GET", what, _Found)
        message = found.message
        if message is None:
            return "", NOTHING
        headers = base64.b64decode(message.hdrs)
        value = None if DELETED in headers else base64.b64decode(message.data)
        return message.subject[len(self._prefix) :], Entry(message.seq, value, headers)

    async def _ask(self, call: str, what: dict[str, Any], kind: type[T]) -> T:
        """Ask JetStream about the bucket; "not found" is an answer of this kind without a value."""
        deadline = asyncio.get_running_loop().time() + self.timeout
        try:
            return await self._connection.ask(f"{call}.{self.stream}", what, kind, deadline=deadline)
        except ApiError as error:
            if error.failure.err_code == NOT_FOUND_MESSAGE:
                return kind()
            raise self._refused(error.failure) from None

    async def put(
        self, key: str, value: bytes, *, replaces: int | None = None, ttl_s: int | None = None, headers: bytes = b""
    ) -> int | None:
        """Write a record and return its revision. None, and nothing is written, if `replaces` is not the last one.

        `replaces`: the revision of the record that was read; 0: there is none. None: whatever there is. `ttl_s`: after
        how many seconds the server removes the record, unless it is replaced. After a StoreUnavailable error the record
        may have been written.
        """
        lines = headers
        if replaces is not None:
            lines += b"Nats-Expected-Last-Subject-Sequence: %d\r\n" % replaces
        if ttl_s is not None:
            lines += b"Nats-TTL: %d\r\n" % ttl_s
        deadline = asyncio.get_running_loop().time() + self.timeout
        client = await self._connection.ready(deadline)
        subject = self._prefix + key
        try:
            answer, _ = await client.ask(subject.encode(), value, self.timeout, lines)
        except RequestFailed as failed:
            self._connection.refuse_if_not_permitted(subject)
            raise no_answer(self._connection.where, failed.why) from None
        done = _decode_published(answer)
        if done.error is None:
            return done.seq
        if done.error.err_code in WRONG_LAST_SEQUENCE:
            return None
        raise self._refused(done.error)

    async def delete(self, key: str, *, replaces: int | None = None) -> bool:
        """Delete a record. False, and nothing is deleted, if `replaces` is not its revision."""
        return await self.put(key, b"", replaces=replaces, ttl_s=MARKER_TTL_S, headers=DELETED) is not None

    def _refused(self, failure: ApiFailure) -> EventfoldError:
        where = self._connection.where
        if failure.err_code != NOT_FOUND_STREAM:
            return error_of_api(failure, where)
        return StoreUnavailable(
            f"The bucket {self.name} of the store {where} is missing.",
            "Create it again: eventfold init and the address creates what a store lacks.",
            where=where,
            bucket=self.name,
        )


def bucket_config(name: str, replicas: int) -> dict[str, Any]:
    """Return the configuration of the stream of a bucket, for the request that creates it."""
    return {
        "name": f"KV_{name}",
        "subjects": [f"$KV.{name}.>"],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_consumers": -1,
        "num_replicas": replicas,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "allow_msg_ttl": True,
        "deny_delete": True,
    }


async def create_buckets(
    connection: ClusterConnection, names: StoreNames, replicas: int, client: RawClient, deadline: float
) -> None:
    """Create those buckets of a store that are missing. Needs an operator's account."""
    for name in BUCKETS:
        config = bucket_config(names.bucket(name), replicas)
        stream = config["name"]
        try:
            try:
                await connection.ask(f"STREAM.INFO.{stream}", None, StreamInfo, client=client, deadline=deadline)
            except ApiError as error:
                if error.failure.err_code != NOT_FOUND_STREAM:
                    raise
                await connection.ask(f"STREAM.CREATE.{stream}", config, StreamInfo, client=client, deadline=deadline)
        except ApiError as error:
            raise error_of_api(error.failure, connection.where) from None
