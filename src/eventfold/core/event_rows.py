"""Events as rows of an engine: made into `StoredEvent` only where an envelope is used.

Most reads use payloads only. A page that stays rows spares an object of thirteen fields for each event.
Knows: the order of the columns. Does not know: user classes, databases, checksums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import call, itemgetter, length_hint
from typing import Any, cast, overload

from eventfold.core.envelope import StoredEvent, unwritten_event

# position, id, type, version, data, tags, time, occurred, metadata, offset, size, codec, checksum, key.
# The type is a number. Offset and size may be None (an append of one event), and codec (json).
Row = tuple[Any, ...]
Decode = Callable[[bytes], Any]
_VARIANT, _kind = (itemgetter(3), itemgetter(11)), itemgetter(2, 3, 11)
_type, _data = itemgetter(2), itemgetter(4)
_call = cast("Callable[[Decode, bytes], Any]", call)


def stored_event(row: Row, types: Mapping[int, str]) -> StoredEvent:
    """Return the event of a row; `types` has the names of type numbers."""
    p, id, type, v, data, tags, time, occurred, meta, at, of, codec, _, key = row
    return StoredEvent(p, id, types[type], v, data, tags, time, occurred, meta, at or 0, of or 1, codec or "json", key)


class EventRows(Sequence[StoredEvent]):
    """The events of a page, made when they are first used. `types`: the names of the type numbers in its rows."""

    __slots__ = ("_events", "rows", "types")

    def __init__(self, rows: list[Row], types: Mapping[int, str]) -> None:
        self.rows, self.types = rows, types
        self._events: list[StoredEvent] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[StoredEvent]:
        return iter(self._all())

    @overload
    def __getitem__(self, index: int) -> StoredEvent: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[StoredEvent]: ...
    def __getitem__(self, index: int | slice) -> StoredEvent | Sequence[StoredEvent]:
        if self._events is not None:
            return self._events[index]
        if isinstance(index, slice):
            return EventRows(self.rows[index], self.types)
        return stored_event(self.rows[index], self.types)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._all() == list(other)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]

    __hash__ = None  # pyright: ignore[reportAssignmentType] (as of a list)

    def __repr__(self) -> str:
        return repr(self._all())

    def _all(self) -> list[StoredEvent]:
        events = self._events
        if events is None:
            types = self.types
            events = self._events = [  # not by `stored_event`, and with positional arguments: half the time
                StoredEvent(
                    p, id, types[t], v, data, tags, time, occurred, meta, at or 0, of or 1, codec or "json", key
                )
                for p, id, t, v, data, tags, time, occurred, meta, at, of, codec, _, key in self.rows
            ]
        return events

    def decode(self, decoder_of: Callable[[StoredEvent], Decode]) -> DecodedRows:
        """Return all payloads, each decoded when it is asked for, so that its memory can be used for the next one.

        `decoder_of` returns the decoder for events of one type, version and codec. It is called now, once for each of
        these, with an event that has no other values. Raises what it raises; asking raises what a decoder raises.
        """

        def decoder(type: int, version: int, codec: str | None) -> Decode:
            sample = unwritten_event(self.types[type], version)
            sample.codec = codec or "json"
            return decoder_of(sample)

        rows, places = self.rows, iter(self.rows)
        versions, codecs = (set(map(column, rows)) for column in _VARIANT)
        if len(versions) == len(codecs) == 1:  # usual, and a fifth faster
            variant = (*versions, *codecs)
            if len(self.types) == 1:
                payloads = map(decoder(rows[0][2], *variant), map(_data, places))
            else:
                by_type = {type: decoder(type, *variant) for type in set(map(_type, rows))}
                payloads = map(_call, map(by_type.__getitem__, map(_type, places)), map(_data, rows))
        else:
            by_kind = {kind: decoder(*kind) for kind in set(map(_kind, rows))}
            payloads = (by_kind[row[2], row[3], row[11]](row[4]) for row in places)
        return DecodedRows(self, places, payloads)


class DecodedRows:
    """The payloads of rows, each decoded when it is asked for."""

    __slots__ = ("_places", "_rows", "payloads")

    def __init__(self, rows: EventRows, places: Iterator[Row], payloads: Iterator[Any]) -> None:
        self._rows, self._places, self.payloads = rows, places, payloads

    @property
    def latest(self) -> StoredEvent | None:
        """The event whose payload was asked for last, or None."""
        asked = len(self._rows) - length_hint(self._places)
        return self._rows[asked - 1] if asked else None
