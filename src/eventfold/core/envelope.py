"""Encoded events with their envelopes, before (NewEvent) and after (StoredEvent) they are written, and receipts.

Knows: the envelope, its limits, its digest. Does not know: user classes (registry does), databases.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time as _time
import zlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID

import msgspec

from eventfold.core.json_values import encode_sorted
from eventfold.core.tags import check_name, same_tags
from eventfold.errors import InvalidEvent, InvalidInput

MAX_EVENT_BYTES = 1_000_000  # data + metadata + tags + type: below NATS's default message of 1 MiB, headers included
MAX_EVENTS_PER_APPEND = 1_000  # a JetStream atomic batch holds 1,000 messages
MAX_TAGS = 64
SMALL_BYTES = 900_000  # bytes of data and metadata: with 64 tags and a type of 255 bytes each they are within the limit

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999  # µs: the range of a datetime
_NO_MOMENT = (-(2**63)).to_bytes(8, signed=True)
KEPT_SHARED_PARTS = 1_024  # of envelopes, kept for digests
_VARIANT, _RANDOM_BITS = 0b10 << 62, (1 << 62) - 1  # RFC 9562: two bits, then random ones
_random_halves: deque[bytes] = deque()  # the last eight bytes of ids, drawn in advance
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random_halves.clear)  # or parent and child would use the same ids


class NewEvent(msgspec.Struct, frozen=True, gc=False):
    """An encoded event to be written, for `store.append_encoded`. `NewEvent.of(…)` creates one.

    `id` is 16 bytes (a UUIDv7 unless the user passed one); `tags` are sorted and distinct; `occurred` is in µs since
    1970 UTC, or None; `metadata` is a JSON object or None. `codec` is the format of the payload, `key` the id of the
    key with which it is encrypted.
    """

    id: bytes
    type: str
    version: int
    data: bytes
    tags: tuple[str, ...]
    occurred: int | None = None
    metadata: bytes | None = None
    codec: str = "json"
    key: str | None = None

    @classmethod
    def of(
        cls,
        type: str,
        data: bytes,
        *,
        version: int = 1,
        tags: Iterable[str] = (),
        id: UUID | None = None,
        occurred: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        codec: str = "json",
        key: str | None = None,
    ) -> NewEvent:
        """Create an encoded event of any type, also of one without a class; `data` is stored unchanged.

        `id` is your own, with which the append can be repeated safely; `occurred` an aware datetime; `metadata` JSON
        values by name; `codec` the format of the data ("json": one JSON value, which is checked); `key` the id of the
        key with which it is encrypted. Raises InvalidEvent on values that cannot be stored, InvalidInput on a datetime
        without a time zone.
        """
        if isinstance(tags, str):
            raise InvalidEvent(f"The tags {tags!r} are one text.", "Give a list of tags, even for one tag: [tag].")
        if id is not None and not isinstance(id, UUID):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidEvent(f"The id {id!r} is not a UUID.", "Give a uuid.UUID, or None.", id=repr(id))
        try:
            packed = encode_sorted(metadata) if metadata else None
        except (TypeError, ValueError, OverflowError) as error:
            what = f"The metadata of a {type} cannot be stored: {error}."
            raise InvalidEvent(what, "Use values that have a JSON form.") from None
        given = tuple(tags)
        names = tuple(sorted(set(given))) if all(isinstance(tag, str) for tag in given) else given  # pyright: ignore[reportUnnecessaryIsInstance]
        moment = None if occurred is None else to_micros(occurred)
        identity = new_id() if id is None else id.bytes
        return check_encoded(cls(identity, type, version, data, names, moment, packed, codec, key))

    def at(self, position: int, time: int, offset: int, size: int) -> StoredEvent:
        """Return the stored event: number `offset` (from 0) of an append of `size` events, recorded at `time` (µs)."""
        return StoredEvent(
            position,
            self.id,
            self.type,
            self.version,
            self.data,
            "\n".join(self.tags),
            time,
            self.occurred,
            self.metadata,
            offset,
            size,
            self.codec,
            self.key,
        )


class StoredEvent(msgspec.Struct, gc=False):
    """An encoded event that was read from the log. Its fields are converted when they are accessed, not when read.

    `position` is from 1; `time` and `occurred` are in µs since 1970 UTC; `tags` are joined by newlines; the event is
    number `offset` (from 0) of an append of `size` events.
    """

    position: int
    id: bytes
    type: str
    version: int
    data: bytes
    tags: str
    time: int
    occurred: int | None = None
    metadata: bytes | None = None
    offset: int = 0
    size: int = 1
    codec: str = "json"
    key: str | None = None

    @property
    def first(self) -> int:
        """The first position of the append that wrote this event."""
        return self.position - self.offset

    @property
    def last(self) -> int:
        """The last position of the append that wrote this event."""
        return self.position - self.offset + self.size - 1

    @property
    def tag_set(self) -> tuple[str, ...]:
        """The tags, sorted."""
        return tuple(self.tags.split("\n")) if self.tags else ()

    def is_same_as(self, new: NewEvent) -> bool:
        """Whether this is the same event: equal in every value that its writer chose."""
        return (
            self.id == new.id
            and self.type == new.type
            and self.data == new.data
            and (self.tags == "\n".join(new.tags) or same_tags(self.tag_set, new.tags))
            and self.version == new.version
            and self.occurred == new.occurred
            and self.metadata == new.metadata
            and self.codec == new.codec
            and self.key == new.key
        )


class Receipt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The result of an append, which proves later that its events were acknowledged.

    `store` and `epoch` identify the history; `first` and `last` are positions, inclusive; `time` is in µs since 1970
    UTC; `digest` is the SHA-256 of the events' envelopes, in hex. `repeated` is True if this is the receipt of an
    earlier, identical append, and nothing was written now. If a reply was lost and the store itself repeated the
    append, that counts as one append: `repeated` is False.
    """

    store: str
    epoch: int
    first: int
    last: int
    time: int
    ids: tuple[bytes, ...]
    digest: str
    repeated: bool = False

    @property
    def positions(self) -> range:
        """The positions written, in order."""
        return range(self.first, self.last + 1)

    @property
    def event_ids(self) -> tuple[UUID, ...]:
        """The ids of the events, in order."""
        return tuple(UUID(bytes=i) for i in self.ids)

    def __repr__(self) -> str:
        where = f"position {self.first}" if self.first == self.last else f"positions {self.first} to {self.last}"
        again = ", repeated" if self.repeated else ""
        return f"<Receipt of {where} at {from_micros(self.time).isoformat(timespec='milliseconds')}{again}>"


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """An append in a transaction of the user, before the COMMIT: a receipt without positions and time.

    Its outcome is unknown before the COMMIT; afterwards, `store.confirm` returns the receipt. `after` is the head when
    it was staged: an append at or before it was made earlier, and so the staged one is a repetition.
    """

    store: str
    epoch: int
    ids: tuple[bytes, ...]
    digest: str
    after: int = 0


def page_length(events: Sequence[StoredEvent], limit: int, most: int) -> int:
    """Return how many of these events make a page: at most `limit`, and up to the one that reaches `most` bytes."""
    if len(events) * MAX_EVENT_BYTES >= most:
        size = 0
        for index, event in enumerate(events):
            size += len(event.data) + (len(event.metadata) if event.metadata else 0)
            if size >= most:
                return min(limit, index + 1)
    return min(limit, len(events))


def make_receipt(store: str, epoch: int, events: Sequence[StoredEvent], *, repeated: bool = False) -> Receipt:
    """Return the receipt for the stored events of one append."""
    first = events[0]
    return Receipt(
        store=store,
        epoch=epoch,
        first=first.position,
        last=events[-1].position,
        time=first.time,
        ids=tuple([event.id for event in events]),
        digest=digest(events),
        repeated=repeated,
    )


def as_first_answer(done: Receipt, events: Sequence[NewEvent]) -> Receipt:
    """Return the receipt that the first attempt would have returned, for an append repeated because its reply was lost.

    If another append was made with the same request key, the receipt is that one's, and `repeated` stays True.
    """
    if done.repeated and done.ids == tuple([event.id for event in events]):
        return msgspec.structs.replace(done, repeated=False)
    return done


def digest(events: Iterable[NewEvent | StoredEvent]) -> str:
    """Return the SHA-256, in hex, over the envelopes of some events, in order.

    An envelope has the values that the writer chose, and is the same on every engine: for each event its id, then type,
    data, tags (joined by newlines), metadata, codec and key id, each as a 4-byte big-endian length and its UTF-8 bytes,
    then the version (4 bytes) and `occurred` (8 bytes, signed; the least number if absent).
    """
    sha, last, start, end = None, None, b"", b""
    for event in events:
        data, metadata, tags = event.data, event.metadata or b"", event.tags
        packed = (tags if isinstance(tags, str) else "\n".join(tags)).encode()
        shared = (event.type, event.version, event.codec, event.key)
        if shared != last:
            last, (start, end) = shared, _shared_parts.get(shared) or _remember_parts(*shared)
        envelope = b"".join((
            event.id, start, len(data).to_bytes(4), data, len(packed).to_bytes(4), packed,
            len(metadata).to_bytes(4), metadata, end,
            _NO_MOMENT if event.occurred is None else event.occurred.to_bytes(8, signed=True),
        ))  # fmt: skip
        if sha is None:
            sha = hashlib.sha256(envelope)
        else:
            sha.update(envelope)
    return (sha or hashlib.sha256()).hexdigest()


_shared_parts: dict[tuple[str, int, str, str | None], tuple[bytes, bytes]] = {}  # at most KEPT_SHARED_PARTS


def _remember_parts(type: str, version: int, codec: str, key: str | None) -> tuple[bytes, bytes]:
    """Return the parts of an envelope that most events share: the type; codec, key id and version."""
    if len(_shared_parts) >= KEPT_SHARED_PARTS:
        _shared_parts.clear()
    found = _with_length(type), _with_length(codec) + _with_length(key or "") + version.to_bytes(4)
    _shared_parts[type, version, codec, key] = found
    return found


def _with_length(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes(4) + encoded


def checksum(position: int, time: int, data: bytes, tags: str, metadata: bytes | None) -> int:
    """Return the CRC-32 that engines store with an event, so that every read detects changed bits."""
    crc = zlib.crc32(data, (position ^ time) & 0xFFFFFFFF)
    if tags:
        crc = zlib.crc32(tags.encode(), crc)
    if metadata:
        crc = zlib.crc32(metadata, crc)
    return crc


def unwritten_event(type: str, version: int) -> StoredEvent:
    """Return an envelope for an event that is not written yet: position 0, recorded now, no id, tags or metadata."""
    return StoredEvent(0, bytes(16), type, version, b"", "", now_micros())


def now_micros() -> int:
    """Return the current time in µs since 1970 UTC."""
    return _time.time_ns() // 1000


def new_id(time_ns: int | None = None) -> bytes:
    """Return a UUIDv7 (RFC 9562 §5.7, method 3: the 12 bits after the milliseconds are their fraction).

    Ids that grow with time cost an index half as much as random ones (docs/reference/limits.md).
    """
    ns = _time.time_ns() if time_ns is None else time_ns
    millis, rest = divmod(ns, 1_000_000)
    stamp = (millis << 16) | 0x7000 | (rest * 4096 // 1_000_000)
    try:
        chance = _random_halves.popleft()
    except IndexError:
        chance = _more_random_halves()
    return stamp.to_bytes(8) + chance


def new_ids(count: int) -> list[bytes]:
    """Return ids as `new_id` does, for events of one moment, in ascending order: they are inserted side by side."""
    ns = _time.time_ns()
    millis, rest = divmod(ns, 1_000_000)
    stamp = ((millis << 16) | 0x7000 | (rest * 4096 // 1_000_000)).to_bytes(8)
    drawn = struct.unpack(f">{count}Q", os.urandom(8 * count))
    return [stamp + chance.to_bytes(8) for chance in sorted([_VARIANT | number & _RANDOM_BITS for number in drawn])]


def _more_random_halves() -> bytes:
    """Return the random half of an id, and store more for later: each system call may switch to another thread."""
    drawn = struct.unpack(">256Q", os.urandom(8 * 256))
    halves = [(_VARIANT | number & _RANDOM_BITS).to_bytes(8) for number in drawn]
    _random_halves.extend(halves[1:])
    return halves[0]


def to_micros(moment: datetime) -> int:
    """Return an aware datetime in µs since 1970 UTC.

    Raises InvalidInput on a naive one, which names no moment, and on one that no datetime in UTC can show.
    """
    if not isinstance(moment, datetime):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidInput(f"{moment!r} is not a datetime.", "Give an aware datetime, for example datetime.now(UTC).")
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise InvalidInput(
            f"{moment!r} has no time zone, so it names no moment.",
            "Give an aware datetime, for example datetime.now(UTC).",
        )
    micros = (moment - _EPOCH) // timedelta(microseconds=1)
    if not _FIRST <= micros <= _LAST:  # no reader could show it: 0001-01-01T00:00+14:00 is in the year before 1
        what = f"{moment.isoformat()} is not in the years 1 to 9999 in UTC."
        raise InvalidInput(what, "Give a moment of those years.")
    return micros


def to_moment(given: date, *, late: bool = False) -> datetime:
    """Return the moment that an argument of a read means: a datetime itself; a date's first moment in UTC, or last."""
    if isinstance(given, date) and not isinstance(given, datetime):  # pyright: ignore[reportUnnecessaryIsInstance]
        return datetime.combine(given, time.max if late else time.min, UTC)
    return given  # pyright: ignore[reportReturnType] (to_micros refuses anything else)


def from_micros(micros: int) -> datetime:
    """Return the aware datetime in UTC for µs since 1970."""
    return _EPOCH + timedelta(microseconds=micros)


def check_new(event: NewEvent) -> NewEvent:
    """Return the event if it is within the limits that all engines share. Raises InvalidEvent."""
    if (
        len(event.tags) <= MAX_TAGS
        and len(event.data) < SMALL_BYTES
        and (event.metadata is None or len(event.metadata) < SMALL_BYTES)
    ):
        return event
    if len(event.tags) > MAX_TAGS:
        raise InvalidEvent(
            f"The event {event.type} has {len(event.tags)} tags, and {MAX_TAGS} is the most.",
            "Tag only the values that decisions and readers query by; leave the rest in the data.",
            type=event.type,
        )
    size = len(event.data) + len(event.metadata or b"") + sum(map(len, event.tags)) + len(event.type)
    if size > MAX_EVENT_BYTES:
        raise InvalidEvent(
            f"The event {event.type} has {size:,} bytes, and {MAX_EVENT_BYTES:,} is the most.",
            "Keep large files elsewhere and put their address and digest in the event.",
            type=event.type,
            size=size,
        )
    return event


def check_encoded(event: NewEvent, *, reserved: bool = False) -> NewEvent:
    """Return an encoded event of a caller if it is valid: every engine can store it, every reader can read it raw.

    `reserved` allows a type and tags that start with `$`. Raises InvalidEvent.
    """
    if not isinstance(event, NewEvent):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidEvent(
            f"{event!r:.200} is not an encoded event.",
            "Create one with NewEvent.of(type, data, …), or append objects by append(…).",
        )
    check_name("event type", event.type, reserved=reserved)
    check_name("codec", event.codec)
    if event.key is not None:
        check_name("key id", event.key)
    for tag in event.tags:
        check_name("tag", tag, reserved=reserved)
    for fine, what, remedy in (
        (_is(event.id, bytes) and len(event.id) == 16, f"the id {event.id!r:.60}", "Give 16 bytes, as UUID.bytes has."),
        (_is(event.version, int) and 1 <= event.version < 2**31, f"version {event.version!r}", "Count from 1."),
        (_is(event.data, bytes), f"data of type {type(event.data).__name__}", "Give bytes."),
        (
            event.occurred is None or (_is(event.occurred, int) and _FIRST <= event.occurred <= _LAST),
            f"occurred={event.occurred!r}",
            "Give µs since 1970 UTC, of the years 1 to 9999.",
        ),
        (
            list(event.tags) == sorted(set(event.tags)),
            "tags that are not sorted, or not distinct",
            "Sort them; NewEvent.of does.",
        ),
        (
            event.metadata is None or _is_json(event.metadata, dict),
            f"the metadata {event.metadata!r:.60}",
            "Give a JSON object as bytes, or None.",
        ),
        (
            event.codec != "json" or _is_json(event.data, object),
            f"data that is not JSON: {event.data!r:.60}",
            "Give one JSON value, or name the format: codec=….",
        ),
    ):
        if not fine:
            raise InvalidEvent(f"The event {event.type} has {what}.", remedy, type=event.type)
    return check_new(event)


def _is(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_json(text: object, kind: type) -> bool:
    if not isinstance(text, bytes):
        return False
    try:
        return isinstance(msgspec.json.decode(text), kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
