"""Leases in a bucket: a key has one holder at a time, which the server forgets unless it is renewed.

The time is the server's alone, as a TTL of the record: no two clocks are compared. A holder counts from before it asked
for a renewal, so it considers its lease lost before the server does. It may still be about to do something then, while
another caller holds the lease: nothing that must be true may depend on a lease alone.
Knows: records with a TTL. Does not know: what is leased.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from uuid import uuid4

import msgspec

from eventfold.engines.jetstream.buckets import Bucket, Entry
from eventfold.errors import EventfoldError, StoreUnavailable

ATTEMPTS = 3  # to delete the record, which ends by itself
PAUSE_S = 0.1  # before a request that failed is repeated


class Record(msgspec.Struct, frozen=True):
    """What is stored of a lease: a text that no other attempt has, and what its holder says of itself."""

    token: str
    note: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


class Lease:
    """A lease that was acquired. `note`: what others read of its holder."""

    def __init__(self, key: str, note: str, ttl_s: int) -> None:
        self.key, self.ttl_s = key, ttl_s
        self.record = Record(uuid4().hex, note)
        self.packed = _encode(self.record)
        self.revision = 0
        self.ends = 0.0  # by time.monotonic()
        self.renewed = 0  # how many times
        self.busy: asyncio.Task[bool] | None = None

    def is_held(self) -> bool:
        """Whether the server still has the lease, by the clock of this process alone."""
        return time.monotonic() < self.ends

    def confirm(self, revision: int, asked: float) -> None:
        """Note that the server has stored it. `asked`: when the request was sent, by time.monotonic()."""
        self.revision, self.ends = revision, asked + self.ttl_s
        self.renewed += 1


class Leases:
    """The leases of one engine. Those that are held are renewed in the background, four times in their TTL.

    `lost`: called with each lease that another caller has, or that cannot be renewed in time. `reacquires`: whether a
    lease that the server forgot is acquired again if it is free.
    """

    def __init__(self, bucket: Bucket, ttl_s: int, *, lost: Callable[[Lease], None], reacquires: bool = False) -> None:
        self.ttl_s = ttl_s
        self._bucket, self._lost, self._reacquires = bucket, lost, reacquires
        self._held: dict[str, Lease] = {}
        self._renewal: asyncio.Task[None] | None = None

    async def holder(self, key: str) -> tuple[str, Entry] | None:
        """Return what the holder of a lease says of itself, and its record; None if there is no holder."""
        entry = await self._bucket.get(key)
        record = read_record(entry)
        return None if record is None else (record.note, entry)

    async def acquire(self, key: str, note: str, *, instead_of: int | None = None) -> Lease | Record:
        """Return a new lease, or the record of its holder. `instead_of`: the revision of a record that is replaced."""
        lease = Lease(key, note, self.ttl_s)
        try:
            found = await self._acquire(lease, instead_of)
        except BaseException:  # the server may have stored it
            self.forget(lease)
            raise
        if found is not None:
            return found
        self._held[key] = lease
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew_all())
        return lease

    async def _acquire(self, lease: Lease, instead_of: int | None) -> Record | None:
        """Store the record unless another one is there, which is returned. Repeats what failed, within the timeout."""
        until = time.monotonic() + self._bucket.timeout
        while True:
            asked = time.monotonic()
            try:
                entry = await self._bucket.get(lease.key)
                found = read_record(entry)
                # Its own record is there if an answer was lost: it is stored again, for its whole TTL from now on.
                if found is not None and found.token != lease.record.token and entry.revision != instead_of:
                    return found
                done = await self._bucket.put(lease.key, lease.packed, replaces=entry.revision, ttl_s=self.ttl_s)
            except StoreUnavailable as error:
                if type(error) is not StoreUnavailable or time.monotonic() >= until:
                    raise  # closed, or not permitted: it does not pass
                done = None
                await asyncio.sleep(PAUSE_S)
            if done is not None:
                lease.confirm(done, asked)
                return None
            if time.monotonic() >= until:
                return Record("", "someone")

    async def release(self, lease: Lease) -> None:
        """Give a lease up. Has no effect on another holder's. If the server cannot be asked, it ends by itself."""
        if self._held.get(lease.key) is lease:
            del self._held[lease.key]
        lease.ends = 0.0
        if lease.busy is not None:
            await asyncio.wait([lease.busy])
        try:
            await self._remove(lease)
        except EventfoldError:
            return  # its TTL ends

    async def _remove(self, lease: Lease) -> None:
        for _ in range(ATTEMPTS):
            if lease.revision and await self._bucket.delete(lease.key, replaces=lease.revision):
                return
            entry = await self._bucket.get(lease.key)
            record = read_record(entry)
            if record is None or record.token != lease.record.token:
                return
            lease.revision = entry.revision

    def forget(self, lease: Lease) -> None:
        """Release a lease in the background, after a call that was ended half way."""
        task = asyncio.create_task(self.release(lease))
        _RUNNING.add(task)
        task.add_done_callback(_RUNNING.discard)

    async def close(self) -> None:
        """Release all leases."""
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            renewal.cancel()
            await asyncio.wait([renewal])
        await asyncio.gather(*(self.release(lease) for lease in tuple(self._held.values())))

    async def _renew_all(self) -> None:
        """Renew each lease four times in its TTL, until none is held. A request that is slow delays no other one."""
        while self._held:
            await asyncio.sleep(self.ttl_s / 4)
            for lease in tuple(self._held.values()):
                if lease.busy is None or lease.busy.done():
                    lease.busy = asyncio.create_task(self._renew(lease))
                if not lease.is_held() and not self._reacquires:
                    self._drop(lease)

    async def _renew(self, lease: Lease) -> bool:
        """Renew a lease. Returns whether the server answered."""
        asked = time.monotonic()
        try:
            done = await self._bucket.put(lease.key, lease.packed, replaces=lease.revision, ttl_s=self.ttl_s)
            if done is None and self._held.get(lease.key) is lease and await self._acquire(lease, None) is not None:
                self._drop(lease)
        except EventfoldError:
            return False  # the next renewal tries again, until its time is over
        if done is not None:
            lease.confirm(done, asked)
        return True

    def _drop(self, lease: Lease) -> None:
        if self._held.get(lease.key) is lease:
            del self._held[lease.key]
            lease.ends = 0.0
            self._lost(lease)


_RUNNING: set[asyncio.Task[None]] = set()  # asyncio keeps only weak references to tasks


def read_record(entry: Entry) -> Record | None:
    """Return the record of a lease; None if there is no holder."""
    if entry.value is None:
        return None
    try:
        return _decode(entry.value)
    except msgspec.DecodeError:
        return Record("", "someone")
