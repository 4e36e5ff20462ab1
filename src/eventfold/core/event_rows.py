"""Events as rows of an engine: made into `StoredEvent` only where an envelope is used.

Most reads use payloads only. A page that stays rows spares an object of thirteen fields for each event.
Knows: the order of the columns. Does not know: user classes, databases, checksums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, overload

from eventfold.core.envelope import StoredEvent, unwritten_event

# position, id, type, version, data, tags, time, occurred, metadata, offset, size, codec, key, checksum.
# The type is a number. Offset and size may be None (an append of one event), and codec (json).
Row = tuple[Any, ...]
Decode = Callable[[bytes], Any]
_KIND, _data = (itemgetter(2), itemgetter(3), itemgetter(11)), itemgetter(4)


def stored_event(row: Row, types: Mapping[int, str]) -> StoredEvent:
    """Return the event of a row; `types` has the names of type numbers."""
    p, id, type, v, data, tags, time, occurred, meta, at, of, codec, key, _ = row
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
                for p, id, t, v, data, tags, time, occurred, meta, at, of, codec, key, _ in self.rows
            ]
        return events

    def envelopes(self) -> Iterator[tuple[Row, Mapping[int, str]]]:
        """Yield for each event what `Recorded` makes its envelope of, if it is asked for."""
        return zip(self.rows, repeat(self.types))

    def decode(self, decoder_of: Callable[[StoredEvent], Decode]) -> list[Any]:
        """Return all payloads decoded. `decoder_of` returns the decoder for events of one type, version and codec.

        It is called once for each of these, with an event that has no other values. Raises what it or a decoder raises.
        """
        decoders, rows = _Decoders(self.types, decoder_of), self.rows
        kinds = [set(map(column, rows)) for column in _KIND]
        if all(len(values) == 1 for values in kinds):  # usual, and a fifth faster
            return list(map(decoders[rows[0][2], rows[0][3], rows[0][11]], map(_data, rows)))
        return [decoders[row[2], row[3], row[11]](row[4]) for row in rows]


class _Decoders(dict[tuple[int, int, str | None], Decode]):
    """Decoders by type number, version and codec, looked up when first used."""

    def __init__(self, types: Mapping[int, str], decoder_of: Callable[[StoredEvent], Decode]) -> None:
        super().__init__()
        self._types, self._decoder_of = types, decoder_of

    def __missing__(self, kind: tuple[int, int, str | None]) -> Decode:
        sample = unwritten_event(self._types[kind[0]], kind[1])
        sample.codec = kind[2] or "json"
        decode = self[kind] = self._decoder_of(sample)
        return decode
