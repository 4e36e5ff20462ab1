"""A page of events, decoded: one by one, or in columns where every event reads as one and concerns one key.

Knows: codecs, which rows and which partition each event belongs to. Does not know: how events are folded, where rows
are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import compress, repeat
from operator import length_hint
from typing import Any, cast, overload

import msgspec

from eventfold.core.codec import Codec
from eventfold.core.envelope import StoredEvent
from eventfold.core.event import Recorded
from eventfold.core.registry import Registry
from eventfold.core.value_order import key_text, partition_of
from eventfold.errors import EventfoldError, InvalidProjection
from eventfold.ports.target import ParkedEvent
from eventfold.projections.definition import Key, ProjectionDefinition, keys_of

Parts = tuple[tuple[Any, tuple[Key, ...]], ...]  # events, each with the keys it concerns
MAX_CACHED_ROWS = 20_000  # rows kept in memory between pages, and keys whose partition is


class HandlerFailed(Exception):
    """The user's code, or an event, failed. `index` of the item it failed at; None: somewhere in the page."""

    def __init__(self, index: int | None, error: BaseException, handler: str = "") -> None:
        super().__init__(str(error))
        self.index, self.error, self.handler = index, error, handler


class DecodedEvent(msgspec.Struct, gc=False):
    """An event of this partition: `at` is its place in the page, `keys` the keys it concerns.

    `parts` are the events it reads as, each with its own keys: one, unless an upcaster made several of it, or none.
    """

    at: int
    stored: StoredEvent
    parts: Parts = ()
    keys: tuple[Key, ...] = ()

    @property
    def key_text(self) -> str:
        """Its keys, as they are told and remembered."""
        return storable(" | ".join(map(key_text, self.keys)))


def storable(text: str) -> str:
    """A text for people as every database takes it."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


class ColumnarPage(Sequence[DecodedEvent]):
    """A page in columns: each event reads as one, and concerns one key. Items are made only for who asks for one."""

    def __init__(self, places: Sequence[int], stored: list[StoredEvent], events: list[Any], keys: list[Key]) -> None:
        self.places, self.stored, self.events, self.keys = places, stored, events, keys

    def __len__(self) -> int:
        return len(self.events)

    @overload
    def __getitem__(self, index: int) -> DecodedEvent: ...
    @overload
    def __getitem__(self, index: slice) -> list[DecodedEvent]: ...
    def __getitem__(self, index: int | slice) -> DecodedEvent | list[DecodedEvent]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self.events)))]
        keys = (self.keys[index],)
        return DecodedEvent(self.places[index], self.stored[index], ((self.events[index], keys),), keys)

    def evolve(
        self, definition: ProjectionDefinition, rows: dict[Key, Any], catches: type[BaseException] = Exception
    ) -> None:
        """Fold into rows, in order; a row that is not to be kept becomes None. Raises Failed."""
        cls, keep, events = definition.cls, definition.keeps, iter(self.events)
        envelopes = map(Recorded[Any], self.stored, self.events) if definition.recorded else repeat(None)
        try:
            for event, key, envelope in zip(events, self.keys, envelopes, strict=False):
                row = rows.get(key)
                if row is None:
                    row = rows[key] = cls(*key)
                if (row.evolve(event) if envelope is None else row.evolve(event, envelope)) is not None:
                    raise result_refused(cls)
                if keep and not row.keep():
                    rows[key] = None
        except catches as error:
            raise HandlerFailed(len(self.events) - length_hint(events) - 1, error, "evolve") from error


def stored_events(items: Sequence[DecodedEvent], through: int | None = None) -> list[StoredEvent]:
    """The events of items, or of those before a place in the page."""
    if isinstance(items, ColumnarPage) and (through is None or not items or items.places[-1] < through):
        return items.stored
    return [item.stored for item in items if through is None or item.at < through]


def key_changed_error(definition: ProjectionDefinition, key: Key, row: Any) -> InvalidProjection:
    """The error for a row that does not have the key any more by which its events find it."""
    assert definition.rows is not None
    found = definition.rows.key_of(row)
    return InvalidProjection(
        f"A row of {definition.cls.__name__} is found by the key {_describe_key(key)}, "
        f"and has the key {_describe_key(found)} after evolve: it would be two rows.",
        "Leave the key's fields as they are in evolve. A row that is to move is two keys: have key() return both, old "
        "and new, and let keep() drop the old one.",
        projection=definition.name,
        key=_describe_key(key),
        changed_to=_describe_key(found),
    )


def _describe_key(key: Key) -> str:
    return ", ".join(map(repr, key))


def result_refused(cls: type) -> InvalidProjection:
    """An evolve that returns something: it would be lost."""
    return InvalidProjection(
        f"{cls.__name__}.evolve returned a value, and evolve changes self.",
        "Assign to self and return nothing; a row that is to go says so in keep().",
    )


class PageDecoder:
    """Stored events as items, for one partition. `catches`: what the user's code raises that is its failure."""

    def __init__(
        self,
        definition: ProjectionDefinition,
        registry: Registry,
        partition: int,
        partitions: int,
        catches: type[BaseException] = Exception,
    ) -> None:
        self._definition, self._registry, self._catches = definition, registry, catches
        self._partition, self._partitions = partition, partitions
        self._codecs: dict[tuple[str, int], Codec] = {}
        self._key_size = len(definition.rows.table.key) if definition.rows else 0
        self._partition_of: dict[Key, int] = {}

    def items(self, events: Sequence[StoredEvent], parked: Mapping[int, ParkedEvent]) -> Sequence[DecodedEvent]:
        """Those of this partition; what is `known` to be skipped is not decoded.

        Raises Failed, its index into the events, where one cannot be decoded or has no key.
        """
        if events and not parked and self._key_size:
            straight = self._columns_of(events)
            if straight is not None:
                return straight
        found: list[DecodedEvent] = []
        codecs, decode, key_of, size = self._codecs, self._registry.decode_as, self._definition.key, self._key_size
        split = self._partitions > 1
        for at, stored in enumerate(events):
            if parked and stored.position in parked:
                found.append(DecodedEvent(at, stored))
                continue
            try:
                codec = codecs.get((stored.type, stored.version))
                if codec is None:
                    codec = self._codec(stored)
                decoded = decode(codec, stored)
                if codec.upcaster is None:
                    event = decoded[0]
                    key: Any = None if key_of is None else key_of(event)
                    keys: tuple[Key, ...]
                    if type(key) is tuple and (not size or len(cast("Key", key)) == size):
                        keys = (cast("Key", key),)
                    else:
                        keys = self._checked(key)
                    parts: Parts = ((event, keys),)
                else:
                    # What an upcaster split off for others is left out.
                    parts = tuple([(e, self._keys(e)) for e in decoded if isinstance(e, self._definition.events)])
                    keys = tuple(dict.fromkeys(key for _, own in parts for key in own))
            except self._catches as error:
                raise HandlerFailed(at, error, "key") from error
            if split:
                own = self._own(parts, keys)
                if own is None:
                    continue
                parts, keys = own
            found.append(DecodedEvent(at, stored, parts, keys))
        return found

    def _columns_of(self, events: Sequence[StoredEvent]) -> ColumnarPage | None:
        """A page in columns; None where an event is of the kinds, or has one of the faults, that need looking at."""
        decoded = self._decoded(events)
        if decoded is None:
            return None
        try:
            keys = list(map(cast("Callable[[Any], Any]", self._definition.key), decoded))
        except self._catches:  # the user's; which event it was is found out one by one
            return None
        if set(map(type, keys)) != {tuple} or set(map(len, keys)) != {self._key_size}:
            if self._key_size > 1 or any(isinstance(key, (tuple, list)) or key is None for key in keys):
                return None
            keys = list(zip(keys, strict=True))
        if self._partitions == 1:
            return ColumnarPage(range(len(decoded)), list(events), decoded, keys)
        mine = [self._is_mine(key) for key in keys]
        places = list(compress(range(len(decoded)), mine))
        stored, own = list(compress(events, mine)), list(compress(decoded, mine))
        return ColumnarPage(places, stored, own, list(compress(keys, mine)))

    def _decoded(self, events: Sequence[StoredEvent]) -> list[Any] | None:
        kinds = [(stored.type, stored.version) for stored in events]
        of: dict[tuple[str, int], Iterator[Any]] = {}
        for kind in dict.fromkeys(kinds):
            own = [stored for stored, each in zip(events, kinds, strict=True) if each == kind]
            try:
                codec = self._codecs.get(kind) or self._codec(own[0])
            except EventfoldError:
                return None
            found = self._registry.decode_all(codec, own)
            if found is None or len(found) == len(kinds):
                return found
            of[kind] = iter(found)
        return [next(of[kind]) for kind in kinds]

    def _is_mine(self, key: Key) -> bool:
        partition = self._partition_of.get(key)
        if partition is None:
            if len(self._partition_of) >= MAX_CACHED_ROWS:
                self._partition_of.clear()
            partition = self._partition_of[key] = partition_of(key, self._partitions)
        return partition == self._partition

    def _codec(self, stored: StoredEvent) -> Codec:
        codec = self._registry.codec_among(self._definition.events, stored)
        self._codecs[stored.type, stored.version] = codec
        return codec

    def _keys(self, event: Any) -> tuple[Key, ...]:
        return () if self._definition.key is None else self._checked(self._definition.key(event))

    def _checked(self, given: Any) -> tuple[Key, ...]:
        keys = keys_of(given)
        if self._key_size:
            for key in keys:
                if len(key) != self._key_size:
                    raise self._wrong_key(key)
        return keys

    def _own(self, parts: Parts, keys: tuple[Key, ...]) -> tuple[Parts, tuple[Key, ...]] | None:
        """What of an event is this partition's; None where nothing is. One without a key is the first one's."""
        if not keys:
            return None if self._partition else (parts, keys)
        mine = tuple(k for k in keys if partition_of(k, self._partitions) == self._partition)
        if not mine:
            return None
        return tuple((event, tuple(k for k in own if k in mine)) for event, own in parts), mine

    def _wrong_key(self, key: Any) -> InvalidProjection:
        return InvalidProjection(
            f"{self._definition.cls.__name__}.key gave {key!r}, and the key has {self._key_size} fields.",
            "Return one value for each field of the key, in their order.",
        )
