"""A page of events, decoded: one by one, or in columns where each event decodes to one event with one key.

Knows: codecs, the keys and the partition of each event. Does not know: how events are folded, how rows are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import compress, repeat, starmap
from operator import attrgetter, length_hint
from types import NoneType
from typing import Any, cast, overload

import msgspec

from eventfold.core.codec import Codec
from eventfold.core.counted import count_of
from eventfold.core.envelope import StoredEvent
from eventfold.core.event import Recorded
from eventfold.core.event_rows import EventRows
from eventfold.core.registry import Registry
from eventfold.core.table import values_getter
from eventfold.core.value_order import key_text, partition_of
from eventfold.errors import EventfoldError, InvalidProjection
from eventfold.ports.target import ParkedEvent
from eventfold.projections.definition import Key, ProjectionDefinition, keys_of

Parts = tuple[tuple[Any, tuple[Key, ...]], ...]  # events, each with the keys it concerns
_kind = attrgetter("type", "version")
MAX_CACHED_ROWS = 20_000  # rows in memory between pages; also the keys in memory with their partition


class HandlerFailed(Exception):
    """User code failed, or an event cannot be decoded. `index`: of the item that failed; None: any of the page."""

    def __init__(self, index: int | None, error: BaseException, handler: str = "") -> None:
        super().__init__(str(error))
        self.index, self.error, self.handler = index, error, handler


class DecodedEvent(msgspec.Struct, gc=False):
    """An event of this partition: `at` is its index in the page, `keys` the keys that it concerns.

    `parts`: the events it decodes to, each with its own keys: one, or any number where an upcaster splits it.
    """

    at: int
    stored: StoredEvent
    parts: Parts = ()
    keys: tuple[Key, ...] = ()

    @property
    def key_text(self) -> str:
        """Its keys as text, as messages and parked events have them."""
        return storable(" | ".join(map(key_text, self.keys)))


def storable(text: str) -> str:
    """Return a message as text that every database can store: without NUL and lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


class ColumnarPage(Sequence[DecodedEvent]):
    """A page in columns, where each event decodes to one event with one key. Items are created on access."""

    def __init__(
        self, places: Sequence[int], stored: Sequence[StoredEvent], events: list[Any], keys: list[Key]
    ) -> None:
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
        self,
        definition: ProjectionDefinition,
        rows: dict[Key, Any],
        catches: type[BaseException] = Exception,
        new: Collection[Key] | None = None,
    ) -> None:
        """Fold events into `rows`, in order. A row whose `keep` returns False becomes None. Raises HandlerFailed.

        `new`: the distinct keys that have no row in `rows`; None: they are looked up.
        """
        if definition.recorded or definition.keeps or not self._evolve_made(definition.cls, rows, catches, new):
            self._evolve_each(definition, rows, catches)

    def _evolve_made(
        self, cls: Any, rows: dict[Key, Any], catches: type[BaseException], new: Collection[Key] | None
    ) -> bool:
        """Fold events after all new rows were made at once, which takes half of the time.

        Returns False, and has changed nothing, if the class refuses to make a row: `_evolve_each` finds the event.
        """
        if new is None:
            new = dict.fromkeys([key for key in self.keys if rows.get(key) is None])
        try:
            made = list(starmap(cls, new))
        except catches:
            return False
        rows.update(zip(new, made, strict=True))
        of_events = made if len(made) == len(self.keys) else map(rows.__getitem__, self.keys)
        events = iter(self.events)
        try:
            for row, event in zip(of_events, events, strict=False):
                if row.evolve(event) is not None:
                    raise result_refused(cls)
        except catches as error:
            raise HandlerFailed(len(self.events) - length_hint(events) - 1, error, "evolve") from error
        return True

    def _evolve_each(
        self, definition: ProjectionDefinition, rows: dict[Key, Any], catches: type[BaseException]
    ) -> None:
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


def stored_events(items: Sequence[DecodedEvent], through: int | None = None) -> Sequence[StoredEvent]:
    """Return the events of items; with `through`, only of those at an index of the page below it."""
    if isinstance(items, ColumnarPage) and (through is None or not items or items.places[-1] < through):
        return items.stored
    return [item.stored for item in items if through is None or item.at < through]


def key_changed_error(definition: ProjectionDefinition, key: Key, row: Any) -> InvalidProjection:
    """Return the error for a row whose `evolve` changed its key."""
    assert definition.rows is not None
    changed = definition.rows.key_of(row)
    return InvalidProjection(
        f"A row of {definition.cls.__name__} was found by the key {_describe_key(key)}, "
        f"but has the key {_describe_key(changed)} after evolve: it would be two rows.",
        "Do not change the fields of the key in evolve. To move a row to another key, return the old and the new key "
        "from key(), and let keep() drop the old row.",
        projection=definition.name,
        key=_describe_key(key),
        changed_to=_describe_key(changed),
    )


def _describe_key(key: Key) -> str:
    return ", ".join(map(repr, key))


def result_refused(cls: type) -> InvalidProjection:
    """Return the error for an `evolve` that returned a value, which would be ignored."""
    return InvalidProjection(
        f"{cls.__name__}.evolve returned a value, but evolve has to change self.",
        "Assign to self and return nothing; to delete a row, return False from keep().",
    )


class PageDecoder:
    """Decodes stored events for one partition. `catches`: the exceptions that count as failures of user code."""

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
        self._field_values = values_getter(definition.key_fields) if definition.key_fields else None
        self._partition_of: dict[Key, int] = {}

    def items(self, events: Sequence[StoredEvent], parked: Mapping[int, ParkedEvent]) -> Sequence[DecodedEvent]:
        """Return the events of this partition, decoded; those that are parked or skipped already are not decoded.

        Raises HandlerFailed, with an index into `events`, where one cannot be decoded or its key is wrong.
        """
        if events and not parked and self._key_size:
            columns = self._columns_of(events)
            if columns is not None:
                return columns
        items: list[DecodedEvent] = []
        codecs, decode, size = self._codecs, self._registry.decode_as, self._key_size
        key_of, recorded = self._definition.key, self._definition.key_recorded
        split = self._partitions > 1
        for at, stored in enumerate(events):
            if parked and stored.position in parked:
                items.append(DecodedEvent(at, stored))
                continue
            try:
                codec = codecs.get((stored.type, stored.version))
                if codec is None:
                    codec = self._codec(stored)
                decoded = decode(codec, stored)
                if codec.upcaster is None:
                    event = decoded[0]
                    key: Any = None
                    if key_of is not None:
                        key = key_of(event, Recorded(stored, event)) if recorded else key_of(event)
                    keys: tuple[Key, ...]
                    if type(key) is tuple and (not size or len(cast("Key", key)) == size):
                        keys = (cast("Key", key),)
                    else:
                        keys = self._checked(key)
                    parts: Parts = ((event, keys),)
                else:
                    # An upcaster may also return events that this projection does not handle.
                    parts = tuple(
                        [(e, self._keys(e, stored)) for e in decoded if isinstance(e, self._definition.events)]
                    )
                    keys = tuple(dict.fromkeys(key for _, own in parts for key in own))
            except self._catches as error:
                raise HandlerFailed(at, error, "key") from error
            if split:
                own = self._own(parts, keys)
                if own is None:
                    continue
                parts, keys = own
            items.append(DecodedEvent(at, stored, parts, keys))
        return items

    def _columns_of(self, events: Sequence[StoredEvent]) -> ColumnarPage | None:
        """Return a page in columns; None where an event has to be decoded by itself, or cannot be decoded."""
        decoded = self._decoded(events)
        if decoded is None:
            return None
        try:
            if self._field_values is not None:
                keys = self._field_values(decoded)
            else:
                keys = self._uniform(self._key_results(events, decoded))
        except self._catches:  # of user code: decoding one by one finds the event
            return None
        if keys is None:
            return None
        if self._partitions == 1:
            return ColumnarPage(range(len(decoded)), events, decoded, keys)
        mine = [self._is_mine(key) for key in keys]
        indexes = list(compress(range(len(decoded)), mine))
        of_rows = isinstance(events, EventRows)
        stored = EventRows(list(compress(events.rows, mine)), events.types) if of_rows else list(compress(events, mine))
        return ColumnarPage(indexes, stored, list(compress(decoded, mine)), list(compress(keys, mine)))

    def _key_results(self, events: Sequence[StoredEvent], decoded: list[Any]) -> list[Any]:
        of = cast("Callable[..., Any]", self._definition.key)
        if self._definition.key_recorded:
            return list(map(of, decoded, map(Recorded[Any], events, decoded)))
        return list(map(of, decoded))

    def _uniform(self, keys: list[Any]) -> list[Key] | None:
        """Return results of the `key` function as keys; None if one is not one key of the right size."""
        kinds = set(map(type, keys))
        if kinds == {tuple}:
            return keys if set(map(len, keys)) == {self._key_size} else None
        if self._key_size > 1 or any(issubclass(kind, (tuple, list, NoneType)) for kind in kinds):
            return None
        return list(zip(keys, strict=True))

    def _decoded(self, events: Sequence[StoredEvent]) -> list[Any] | None:
        if isinstance(events, EventRows):
            return self._registry.decode_rows(events, self._codec_of)
        kinds = list(map(_kind, events))
        of: dict[tuple[str, int], Iterator[Any]] = {}
        of_kinds = dict.fromkeys(kinds)
        for kind in of_kinds:
            own = events
            if len(of_kinds) > 1:
                own = [stored for stored, each in zip(events, kinds, strict=True) if each == kind]
            try:
                codec = self._codecs.get(kind) or self._codec(own[0])
            except EventfoldError:
                return None
            events_of_kind = self._registry.decode_all(codec, own)
            if events_of_kind is None or len(events_of_kind) == len(kinds):
                return events_of_kind
            of[kind] = iter(events_of_kind)
        return [next(of[kind]) for kind in kinds]

    def _is_mine(self, key: Key) -> bool:
        partition = self._partition_of.get(key)
        if partition is None:
            if len(self._partition_of) >= MAX_CACHED_ROWS:
                self._partition_of.clear()
            partition = self._partition_of[key] = partition_of(key, self._partitions)
        return partition == self._partition

    def _codec_of(self, stored: StoredEvent) -> Codec:
        return self._codecs.get((stored.type, stored.version)) or self._codec(stored)

    def _codec(self, stored: StoredEvent) -> Codec:
        codec = self._registry.codec_among(self._definition.events, stored)
        self._codecs[stored.type, stored.version] = codec
        return codec

    def _keys(self, event: Any, stored: StoredEvent) -> tuple[Key, ...]:
        of = self._definition.key
        if of is None:
            return ()
        return self._checked(of(event, Recorded(stored, event)) if self._definition.key_recorded else of(event))

    def _checked(self, result: Any) -> tuple[Key, ...]:
        keys = keys_of(result)
        if self._key_size:
            for key in keys:
                if len(key) != self._key_size:
                    raise self._wrong_key(key)
        return keys

    def _own(self, parts: Parts, keys: tuple[Key, ...]) -> tuple[Parts, tuple[Key, ...]] | None:
        """Return the parts and keys of an event in this partition, or None. One without a key is in partition 0."""
        if not keys:
            return None if self._partition else (parts, keys)
        own_keys = tuple(k for k in keys if partition_of(k, self._partitions) == self._partition)
        if not own_keys:
            return None
        return tuple((event, tuple(k for k in own if k in own_keys)) for event, own in parts), own_keys

    def _wrong_key(self, key: Any) -> InvalidProjection:
        return InvalidProjection(
            f"{self._definition.cls.__name__}.key returned {key!r}, but the key has "
            f"{count_of(self._key_size, 'field')}.",
            "Return one value for each field of the key, in their order.",
        )
