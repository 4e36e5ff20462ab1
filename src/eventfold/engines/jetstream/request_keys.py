"""Request keys that were assigned to appends which are in the log already, in the bucket `keys`; the first one wins.

An append has its request key in its own message. Where the events of an append are repeated with a new key, the stream
cannot be changed any more: the key is a record in the bucket, with the first position and the first event's id. If an
append with the same key was written meanwhile, the log is right. Records are never replaced, unless the log has lost
that event, so that the numbers of their revisions have no gaps.
Knows: records, the replica. Does not know: how appends are judged.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Sequence

import msgspec

from eventfold.concurrency.run import run
from eventfold.core.envelope import Receipt, make_receipt
from eventfold.core.query import Query
from eventfold.engines.jetstream.buckets import Bucket, Entry
from eventfold.engines.jetstream.connection import ClusterConnection
from eventfold.engines.jetstream.following import CurrentLog
from eventfold.errors import StoreUnavailable
from eventfold.ports.messages import Span

MAX_LOADED = 20_000  # records that are read at once; with more of them, each key is looked up
AT_ONCE = 128
PAUSE_S = 0.1  # before a request that failed is repeated


class Assigned(msgspec.Struct, frozen=True, array_like=True):
    """A key, and the append that it is assigned to: its first position and the id of its first event."""

    key: str
    first: int
    id: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Assigned).decode


class RequestKeys:
    """The keys of one store that are not in its log."""

    def __init__(self, connection: ClusterConnection, log: CurrentLog) -> None:
        self._bucket = Bucket(connection, connection.address.names.bucket("keys"))
        self._log = log
        self._known: dict[str, Assigned] = {}
        self._revision = 0  # up to which all records are in `_known`

    async def receipts(self, keys: Iterable[str], deadline: float) -> dict[str, Receipt]:
        """Return the receipts of appends to which any process assigned one of these keys before this call."""
        found: dict[str, Receipt] = {}
        asked = tuple(keys)
        for record in await self._look_up(asked, deadline) if asked else ():
            if await self._is_in_log(record, deadline) and await self._receipt_in_log(record.key) is None:
                found[record.key] = await self._receipt_at(record.first)
        return found

    async def all(self, deadline: float) -> list[tuple[str, int]]:
        """Return every key that was assigned with the first position of its append, ordered by key."""
        await self._load(await self._bucket.last_revision(deadline))
        return [(key, each.first) for key, each in sorted(self._known.items()) if await self._is_in_log(each, deadline)]

    async def assign(self, key: str, first: int, id: bytes, deadline: float) -> Receipt | None:
        """Assign a key to an append. Returns None, or the receipt of another append that has the key."""
        record = await self._create(Assigned(key, first, id), deadline)
        last = await self._log.last_sequence(deadline)
        await self._log.following.reach(last, deadline)
        if (other := await self._receipt_in_log(key)) is not None:
            return other
        return None if record.first == first else await self._receipt_at(record.first)

    async def _create(self, wanted: Assigned, deadline: float) -> Assigned:
        """Store a record, unless there is one for its key. Returns the one that is there then."""
        name = _name(wanted.key)
        loop = asyncio.get_running_loop()
        while True:
            try:
                entry = await self._bucket.get(name)
                record = _read(entry)
                if record is not None and record.key == wanted.key and await self._is_in_log(record, deadline):
                    return record
                if await self._bucket.put(name, _encode(wanted), replaces=entry.revision) is not None:
                    return wanted
            except StoreUnavailable as error:
                if type(error) is not StoreUnavailable or loop.time() >= deadline:
                    raise  # closed, or not permitted: it does not pass
                await asyncio.sleep(PAUSE_S)

    # The records

    async def _look_up(self, keys: Sequence[str], deadline: float) -> list[Assigned]:
        """Return the records of those of these keys that have one, as of now."""
        last = await self._bucket.last_revision(deadline)
        if last - self._revision <= MAX_LOADED:
            await self._load(last)
            return [self._known[key] for key in keys if key in self._known]
        records: list[Assigned] = []
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            entries = await asyncio.gather(*(self._bucket.get(_name(key)) for key in some))
            records += [
                each for key, entry in zip(some, entries, strict=True) if (each := _read(entry)) and each.key == key
            ]
        return records

    async def _load(self, revision: int) -> None:
        """Read the records up to a revision."""
        while self._revision < revision:
            until = min(revision, self._revision + AT_ONCE)
            found = await asyncio.gather(*(self._bucket.at(each) for each in range(self._revision + 1, until + 1)))
            self._known |= {record.key: record for _, entry in found if (record := _read(entry)) is not None}
            self._revision = max(self._revision, until)

    # The log

    async def _is_in_log(self, record: Assigned, deadline: float) -> bool:
        """Whether the append of a record is still there: the stream may have been restored from an earlier state."""
        following = self._log.following
        if record.first > following.read_head():
            last = await self._log.last_sequence(deadline)
            if record.first > last:
                return False
            await following.reach(last, deadline)
        return run(following.replica.event_id(record.first)) == record.id

    async def _receipt_in_log(self, key: str) -> Receipt | None:
        return run(self._log.following.replica.receipt_of(key))

    async def _receipt_at(self, first: int) -> Receipt:
        """Return the receipt of the append that begins at a position."""
        replica, identity = self._log.following.replica, self._log.identity
        last = run(replica.boundary(first))
        page = run(replica.read(Query(), Span(after=first - 1, until=last, limit=last - first + 1)))
        return make_receipt(identity.store_id, identity.epoch, page.events)


def _name(key: str) -> str:
    """Return the name of a key's record: keys have characters and lengths that names cannot have."""
    return hashlib.sha256(key.encode()).hexdigest()


def _read(entry: Entry) -> Assigned | None:
    """Return a record; None if there is none that can be read."""
    if entry.value is None:
        return None
    try:
        return _decode(entry.value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
