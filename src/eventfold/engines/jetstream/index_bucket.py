"""Published copies of the index in the cluster itself: objects of the bucket `index`, in the form of NATS's own.

A chunk is a message, on a subject that all chunks of the object share; the description is in the object's metadata,
written last. Chunks are read from any replica without a consumer, which an application's account may not make.
Knows: messages of object buckets. Does not know: what is in a copy.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from eventfold.engines.jetstream.client import RawClient, RequestFailed
from eventfold.engines.jetstream.connection import ClusterConnection
from eventfold.engines.jetstream.failures import NOT_FOUND_STREAM, ApiError, ApiFailure, error_of_api, no_answer
from eventfold.engines.jetstream.names import StoreNames
from eventfold.engines.jetstream.published_index import CHUNK_BYTES, Chunk, DamagedCopy, Description
from eventfold.engines.jetstream.stream import stream_info

IN_FLIGHT = 8  # chunks that are sent and not confirmed
ANSWER_S = 10.0
READ_BYTES = 8 * 2**20  # in one answer
ATTEMPTS = 5  # at each part of a copy: a replica may be behind
AGAIN_S = 0.3
DIGEST_HEADER, NUMBER_HEADER = b"Eventfold-Digest: ", b"Eventfold-Chunk: "
METADATA = "eventfold-index"


class _State(msgspec.Struct):
    subjects: dict[str, int] | None = None


class _Info(msgspec.Struct):
    state: _State = msgspec.field(default_factory=_State)


class _Message(msgspec.Struct):
    data: str = ""


class _Found(msgspec.Struct):
    message: _Message


class _Object(msgspec.Struct):
    """The metadata of an object of NATS's object buckets."""

    name: str
    bucket: str
    nuid: str
    size: int
    chunks: int
    digest: str
    mtime: str
    deleted: bool = False
    metadata: dict[str, str] = {}
    options: dict[str, int] = {}


class _Published(msgspec.Struct):
    error: ApiFailure | None = None


class IndexBucket:
    """The bucket of a store. `client`: see ClusterConnection.ask."""

    def __init__(self, connection: ClusterConnection, names: StoreNames, client: RawClient | None = None) -> None:
        self._connection, self._client, self._names = connection, client, names
        self._bucket = names.bucket("index")
        self._stream = f"OBJ_{self._bucket}"
        self.where = f"the bucket {self._bucket} of {connection.where}"

    async def _ask(self, call: str, what: Any, kind: Any) -> Any:
        try:
            return await self._connection.ask(f"{call}.{self._stream}", what, kind, client=self._client)
        except ApiError as error:
            raise error_of_api(error.failure, self._connection.where) from None

    async def create(self) -> None:
        """Create the bucket if there is none, on as many nodes as the log. Needs an operator's account."""
        try:
            await self._connection.ask(f"STREAM.INFO.{self._stream}", None, _Info, client=self._client)
        except ApiError as error:
            if error.failure.err_code != NOT_FOUND_STREAM:
                raise error_of_api(error.failure, self._connection.where) from None
        else:
            return
        of_log = await stream_info(self._connection, self._names, client=self._client)
        await self._ask("STREAM.CREATE", bucket_config(self._bucket, of_log.replicas), _Info)

    async def _objects(self) -> list[_Object]:
        prefix = f"$O.{self._bucket}.M."
        try:
            info = await self._connection.ask(
                f"STREAM.INFO.{self._stream}", {"subjects_filter": f"{prefix}>"}, _Info, client=self._client
            )
        except ApiError as error:
            if error.failure.err_code == NOT_FOUND_STREAM:
                return []
            raise error_of_api(error.failure, self._connection.where) from None
        found: list[_Object] = []
        for subject in info.state.subjects or {}:
            answer = await self._ask("STREAM.MSG.GET", {"last_by_subj": subject}, _Found)
            try:
                each = msgspec.json.decode(base64.b64decode(answer.message.data), type=_Object)
            except (msgspec.MsgspecError, ValueError):  # another program's object
                continue
            if not each.deleted:
                found.append(each)
        return found

    async def _described(self) -> list[tuple[Description, _Object]]:
        found: list[tuple[Description, _Object]] = []
        for each in await self._objects():
            try:
                found.append((msgspec.json.decode(each.metadata.get(METADATA, ""), type=Description), each))
            except msgspec.MsgspecError:  # another program's object
                continue
        return found

    async def listed(self) -> list[Description]:
        """See Place."""
        return [of for of, _ in await self._described()]

    async def _object_of(self, of: Description) -> _Object:
        for found, each in await self._described():
            if found == of:
                return each
        raise DamagedCopy("it is not there any more")

    async def chunks(self, of: Description) -> AsyncIterator[Sequence[Chunk]]:
        """See Place. The next part is asked for while the caller works on one."""
        subject = f"$O.{self._bucket}.C.{(await self._object_of(of)).nuid}"
        after, number = 0, 0
        asking = asyncio.create_task(self._part(subject, after, number))
        try:
            while number < of.chunks:
                part = await asking
                after, number = part.last, number + len(part.chunks)
                if number < of.chunks:
                    asking = asyncio.create_task(self._part(subject, after, number))
                yield part.chunks
        finally:
            asking.cancel()

    async def _part(self, subject: str, after: int, number: int) -> _Part:
        why = "it is incomplete"
        for _ in range(ATTEMPTS):
            client = self._client or await self._connection.ready(asyncio.get_running_loop().time() + ANSWER_S)
            part = _Part(number)
            request = {"seq": after + 1, "next_by_subj": subject, "batch": 1_000, "max_bytes": READ_BYTES}
            try:
                token = await client.ask_many(
                    f"$JS.API.DIRECT.GET.{self._stream}".encode(),
                    msgspec.json.encode(request),
                    part.on_message,
                    part.end,
                )
            except RequestFailed as failed:
                why = failed.why
            else:
                try:
                    await asyncio.wait((part.done,), timeout=ANSWER_S)
                finally:
                    client.forget(token)
                if part.chunks:
                    return part
            await asyncio.sleep(AGAIN_S)
        raise DamagedCopy(f"chunk {number} cannot be read: {why}")

    async def publish(self, chunks: AsyncIterator[Sequence[Chunk]], describe: Callable[[], Description]) -> None:
        """See Place. A failure leaves chunks without a description, which are removed."""
        nuid = secrets.token_hex(11)
        subject, number = f"$O.{self._bucket}.C.{nuid}", 0
        sending = set[asyncio.Task[None]]()
        try:
            async for some in chunks:
                for chunk in some:
                    headers = b"%b%d\r\n%b%b\r\n" % (
                        NUMBER_HEADER, number, DIGEST_HEADER, chunk.digest.hex().encode(),
                    )  # fmt: skip
                    sending.add(asyncio.create_task(self._send(subject, chunk.packed, headers)))
                    number += 1
                    if len(sending) >= IN_FLIGHT:  # messages of one connection are stored in the order they are sent
                        ended, sending = await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
                        for task in ended:
                            task.result()
            for task in sending:
                await task
            of = describe()
            meta = _Object(
                name=of.name, bucket=self._bucket, nuid=nuid, size=of.packed, chunks=of.chunks,
                digest=f"SHA-256={base64.urlsafe_b64encode(bytes.fromhex(of.digest)).decode()}",
                mtime=datetime.now(UTC).isoformat(), options={"max_chunk_size": CHUNK_BYTES},
                metadata={METADATA: msgspec.json.encode(of).decode()},
            )  # fmt: skip
            await self._send(self._meta(of.name), msgspec.json.encode(meta), b"Nats-Rollup: sub\r\n")
        except BaseException:
            await asyncio.gather(*sending, return_exceptions=True)
            await self._purge(subject)
            raise

    async def remove(self, of: Description) -> None:
        """See Place."""
        found = await self._object_of(of)
        await self._purge(self._meta(of.name))
        await self._purge(f"$O.{self._bucket}.C.{found.nuid}")

    def _meta(self, name: str) -> str:
        return f"$O.{self._bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"

    async def _purge(self, subject: str) -> None:
        await self._ask("STREAM.PURGE", {"filter": subject}, dict[str, Any])

    async def _send(self, subject: str, data: bytes, headers: bytes) -> None:
        client = self._client or await self._connection.ready(asyncio.get_running_loop().time() + ANSWER_S)
        try:
            answer, _ = await client.ask(subject.encode(), data, ANSWER_S, headers)
        except RequestFailed as failed:
            self._connection.refuse_if_not_permitted(subject)
            raise no_answer(self._connection.where, failed.why) from None
        error = msgspec.json.decode(answer, type=_Published).error
        if error is not None:
            raise error_of_api(error, self._connection.where)


class _Part:
    """The chunks of one answer, as they come."""

    def __init__(self, number: int) -> None:
        self.chunks: list[Chunk] = []
        self.last = 0  # the sequence of the last chunk
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._number = number

    def on_message(self, _: bytes, data: bytes, headers: bytes) -> None:
        """Take a message. The last one has a status; chunks after one that is missing are left for the next request."""
        if headers.startswith(b"NATS/1.0 "):
            self.end()
        elif not self.done.done():
            if _header(headers, NUMBER_HEADER) != b"%d" % (self._number + len(self.chunks)):
                self.end()
                return
            try:
                digest = bytes.fromhex(_header(headers, DIGEST_HEADER).decode("ascii", "replace"))
            except ValueError:
                digest = b""
            self.chunks.append(Chunk(digest, data))
            self.last = int(_header(headers, b"Nats-Sequence: "))

    def end(self) -> None:
        """Wake the reader."""
        if not self.done.done():
            self.done.set_result(None)


def _header(headers: bytes, name: bytes) -> bytes:
    return headers.partition(b"\r\n" + name)[2].partition(b"\r\n")[0]


def bucket_config(bucket: str, replicas: int) -> dict[str, Any]:
    """Return the configuration of the stream of an object bucket, for the request that creates it."""
    return {
        "name": f"OBJ_{bucket}",
        "subjects": [f"$O.{bucket}.C.>", f"$O.{bucket}.M.>"],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_msgs": -1,
        "max_bytes": -1,
        "num_replicas": replicas,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
    }
