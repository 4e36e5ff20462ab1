"""Snapshots in the bucket `snapshots`: a record for each key, in parts where a message would be too large.

The first part has the number of parts, and a digest over the key and all that is stored under it. A snapshot whose
parts are of two writers, incomplete or damaged is none: the state is folded from the log. Parts are written from the
last to the first, so that a first part never waits for others.
Knows: buckets, the limits of messages. Does not know: what a state is.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from eventfold.core.snapshot import Snapshot
from eventfold.engines.jetstream.buckets import Bucket, Entry
from eventfold.engines.jetstream.connection import ClusterConnection
from eventfold.errors import StoreUnavailable

T = TypeVar("T")
MAX_PART_BYTES = 512 * 1024  # half of what a server accepts by default: the answer to a read has a third more
RESERVED_BYTES = 8_192  # of a message, for its headers and the first part's description
MAX_PARTS = 128
AT_ONCE = 32  # requests of one call
WHOLE_KEY_BYTES, CUT_KEY_BYTES = 240, 180  # of longer keys, the name of the record has the beginning only


class _First(msgspec.Struct, array_like=True):
    """The first part of a snapshot."""

    key: str
    fingerprint: str
    position: int
    event_id: bytes
    parts: int
    digest: bytes
    state: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_First).decode


class ClusterSnapshots:
    """See services.Snapshots. Its coroutines run on the event loop of the connection."""

    def __init__(self, connection: ClusterConnection) -> None:
        self._connection = connection
        self._bucket = Bucket(connection, connection.address.names.bucket("snapshots"))

    async def get(self, key: str) -> Snapshot | None:
        """See services.Snapshots."""
        name = record_name(key)
        first = _read(await self._bucket.get(f"{name}.0"))
        if first is None or first.key != key:
            return None
        numbers = range(1, first.parts)
        rest = await _all([lambda number=number: self._bucket.get(f"{name}.{number}") for number in numbers])
        state = b"".join([first.state, *(each.value or b"" for each in rest)])
        snapshot = Snapshot(first.fingerprint, first.position, first.event_id, state)
        return snapshot if _digest(key, snapshot) == first.digest else None

    async def put(self, key: str, snapshot: Snapshot) -> None:
        """See services.Snapshots."""
        size = min(MAX_PART_BYTES, self._connection.max_payload // 2) - RESERVED_BYTES
        state = snapshot.state
        parts = [state[start : start + size] for start in range(0, len(state), size)] or [b""]
        if len(parts) > MAX_PARTS or len(key.encode()) > size // 2 or size < RESERVED_BYTES:
            raise StoreUnavailable(
                f"A snapshot of {len(state):,} bytes is larger than a store in a NATS cluster keeps.",
                "The state is folded from its events.",
                size=len(state),
            )
        name = record_name(key)
        first = _First(
            *(key, snapshot.fingerprint, snapshot.position, snapshot.event_id),
            *(len(parts), _digest(key, snapshot), parts[0]),
        )
        await _all(
            [
                lambda number=number: self._bucket.put(f"{name}.{number}", parts[number])
                for number in range(1, len(parts))
            ]
        )
        await self._bucket.put(f"{name}.0", _encode(first))

    async def delete_prefix(self, prefix: str = "") -> int:
        """See services.Snapshots."""
        names = sorted(await self._bucket.keys(lambda name: may_begin_with(name, prefix)))
        firsts = [name for name in names if name.endswith(".0")]
        deleted = await _all([lambda name=name: self._delete(name, prefix) for name in firsts])
        gone = {name[:-2] for name, is_deleted in zip(firsts, deleted, strict=True) if is_deleted}
        present = {name[:-2] for name in firsts}
        rest = [name for name in names if not name.endswith(".0")]
        await _all(
            [
                lambda name=name: self._bucket.delete(name)
                for name in rest
                if (owner := name.rpartition(".")[0]) in gone or owner not in present
            ]
        )
        return len(gone)

    async def _delete(self, name: str, prefix: str) -> bool:
        """Delete a snapshot by the name of its first part, if its key has the prefix. Returns whether it was there."""
        entry = await self._bucket.get(name)
        first = _read(entry)
        if first is None or not first.key.startswith(prefix):
            return False
        return await self._bucket.delete(name, replaces=entry.revision)


def _read(entry: Entry) -> _First | None:
    """Return a first part; None if there is none that can be read."""
    if entry.value is None:
        return None
    try:
        return _decode(entry.value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _digest(key: str, snapshot: Snapshot) -> bytes:
    """Return the SHA-256 over everything that is stored under a key."""
    whole = (key, snapshot.fingerprint, snapshot.position, snapshot.event_id, snapshot.state)
    return hashlib.sha256(_encode(whole)).digest()


async def _all(works: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """Do these, AT_ONCE at a time. Returns their results, in order."""
    results: list[T] = []
    for start in range(0, len(works), AT_ONCE):
        results += await asyncio.gather(*(work() for work in works[start : start + AT_ONCE]))
    return results


def record_name(key: str) -> str:
    """Return the name of a key's record, without a part's number: `k` and the key, or `h`, its beginning and its hash.

    The key is encoded, since names have no spaces, brackets or other characters that keys have.
    """
    raw = key.encode()
    if len(raw) <= WHOLE_KEY_BYTES:
        return f"k{_encoded(raw)}"
    return f"h{_encoded(raw[:CUT_KEY_BYTES])}{hashlib.sha256(raw).hexdigest()[:40]}"


def may_begin_with(name: str, prefix: str) -> bool:
    """Whether the key of a record may begin with a prefix, as far as the record's name tells."""
    raw = prefix.encode()
    token = name.partition(".")[0]
    known = _decoded(token[1:] if token.startswith("k") else token[1 : 1 + CUT_KEY_BYTES * 4 // 3])
    return known.startswith(raw) if token.startswith("k") else known.startswith(raw[: len(known)])


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _decoded(token: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except ValueError:
        return b""
