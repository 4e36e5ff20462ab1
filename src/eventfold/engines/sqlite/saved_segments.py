"""Closed segments of the tail, saved in the table `segment`, so that another process need not read their events.

A merge takes several segments at once, since each leaf of the index is then written once for all of them. Until then
a process that opens the store decodes the saved segments, in a tenth of the time that their rows take. They are derived
from the rows: whatever is missing or damaged here is read from the rows instead.
Knows: the bytes of a saved segment. Does not know: which segments are saved, and when (index_merging.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from zlib import crc32

import apsw
import msgspec

from eventfold.engines.sqlite.tail import Positions, Segment, by_type_of

SAVE = 'INSERT OR IGNORE INTO segment (start, "end", labels, crc) VALUES (?,?,?,?)'
BEGINNING_AT = 'SELECT start, "end", labels, crc FROM segment WHERE start = ?'
ALL = 'SELECT start, "end", labels, crc FROM segment ORDER BY start'


class SavedLabels(msgspec.Struct, array_like=True, frozen=True):
    """What is saved of a segment: an index of `type_names` for each event, and the positions of each tag."""

    size: int  # bytes of payloads and tags
    type_names: list[str]
    types: list[int]
    by_tag: dict[str, Positions]
    moments: dict[str, list[str]]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(SavedLabels).decode


def save(connection: apsw.Connection, segments: Sequence[Segment]) -> None:
    """Save closed segments, within the caller's transaction. One that is there already is left as it is."""
    rows: list[tuple[int, int, bytes, int]] = []
    for segment in segments:
        numbers = {name: number for number, name in enumerate(segment.by_type)}
        labels = _encode(
            SavedLabels(
                segment.size,
                list(numbers),
                list(map(numbers.__getitem__, segment.types)),
                segment.by_tag,
                segment.moments,
            )
        )
        rows.append((segment.start, segment.end, labels, _checksum(segment.start, segment.end, labels)))
    connection.executemany(SAVE, rows)


def read_from(connection: apsw.Connection, start: int, max_events: int) -> list[Segment]:
    """The saved segments from a position on, each beginning where the one before ends; up to one that is damaged."""
    found: list[Segment] = []
    try:
        while (row := connection.execute(BEGINNING_AT, (start,)).fetchone()) is not None:
            segment = decode(row, max_events)
            if segment is None:
                break
            found.append(segment)
            start = segment.end
    except (apsw.CorruptError, apsw.NotADBError, UnicodeDecodeError):  # a check reports it
        return found
    return found


def decode(row: tuple[int, int, bytes, int], max_events: int) -> Segment | None:
    """A saved segment; None if it is damaged."""
    start, end, labels, crc = row
    if crc != _checksum(start, end, labels) or end <= start:
        return None
    try:
        saved = _decode(labels)
        types = list(map(saved.type_names.__getitem__, saved.types))
        if len(types) != end - start:
            return None
        segment = Segment(start, max_events)
        segment.tag_sets, segment.carried = _tag_sets(saved.by_tag, start, end)
    except (msgspec.DecodeError, IndexError):
        return None
    segment.end, segment.size, segment.types = end, saved.size, types
    segment.by_tag, segment.moments = saved.by_tag, saved.moments
    segment.by_type = by_type_of(types, start + 1)
    segment.is_closed = segment.is_saved = True
    return segment


def decode_all(connection: apsw.Connection) -> Iterator[tuple[int, int, Segment | None]]:
    """Start and end of every row, and its segment; None where it is damaged."""
    for row in connection.execute(ALL):
        yield row[0], row[1], decode(row, 1)


def _tag_sets(by_tag: dict[str, Positions], start: int, end: int) -> tuple[list[tuple[str, ...]], int]:
    """The tags of each event, and how many they are."""
    sets: list[list[str]] = [[] for _ in range(end - start)]
    first, count = start + 1, 0
    for name, positions in by_tag.items():
        if isinstance(positions, int):
            sets[positions - first].append(name)
            count += 1
            continue
        count += len(positions)
        for position in positions:
            sets[position - first].append(name)
    return list(map(tuple, sets)), count


def _checksum(start: int, end: int, labels: bytes) -> int:
    return crc32(labels, crc32(b"%d %d" % (start, end)))
