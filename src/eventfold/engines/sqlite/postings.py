"""A posting: consecutive events that have one tag, or one type, as a row of the table `posting`.

Its positions are a blob of 32-bit integers, little-endian: the lower halves of the positions, whose upper half is that
of `last`. If the events have several types, an array of their types follows, of as many 32-bit integers. The posting of
one event has no blob: its position is `last`. Each row has a checksum: damage that would hide an event from a query is
an error of the query.
Knows: the bytes of a posting. Does not know: SQL, which run it belongs to.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from operator import itemgetter
from struct import Struct
from zlib import crc32

from eventfold.engines.sqlite.errors import index_error
from eventfold.engines.sqlite.schema import encode_row

MAX_EVENTS = 120  # of a posting, so that SQLite keeps the row in one page also with a type for each event
SEVERAL = 0  # instead of a type
HALF_BITS = 32
HALF = 1 << HALF_BITS
_LOWER = HALF - 1
_TWO = Struct("<2I").pack
_BODY, _CRC = itemgetter(slice(0, 4)), itemgetter(4)

Types = int | Sequence[int]  # the type of all events, or that of each
Columns = tuple[int, int, int, bytes, int]  # tag, last, type, positions, crc


def pack(tag: int, positions: Sequence[int], types: Types) -> Iterator[Columns]:
    """The postings of a tag with these positions, which are in order, and types."""
    start, count = 0, len(positions)
    while start < count:
        end = min(count, start + MAX_EVENTS)
        if positions[end - 1] >> HALF_BITS != positions[start] >> HALF_BITS:  # a posting has one upper half
            upper = positions[start] >> HALF_BITS
            end = next(index for index in range(start, end) if positions[index] >> HALF_BITS != upper)
        part = positions[start:end]
        kinds = types if isinstance(types, int) else types[start:end]
        if not isinstance(kinds, int) and min(kinds) == max(kinds):
            kinds = kinds[0]
        last = part[-1]
        if isinstance(kinds, int):
            yield _row(tag, last, kinds, _bytes(part, last) if len(part) > 1 else b"")
        else:
            yield _row(tag, last, SEVERAL, _bytes(part, last) + to_bytes(kinds))
        start = end


def _row(tag: int, last: int, type: int, positions: bytes) -> Columns:
    return tag, last, type, positions, crc32(encode_row((tag, last, type, positions)))


def _bytes(positions: Sequence[int], last: int) -> bytes:
    return to_bytes(positions if last <= _LOWER else [each & _LOWER for each in positions])


def to_bytes(numbers: Sequence[int]) -> bytes:
    """Numbers below 2³² as the blob has them."""
    if len(numbers) == 2:  # most tags that are not of one event; an array takes twice as long
        return _TWO(numbers[0], numbers[1])
    found = array("I", numbers)
    if sys.byteorder == "big":
        found.byteswap()
    return found.tobytes()


def _from_bytes(data: bytes) -> Sequence[int]:
    found = array("I", data)
    if sys.byteorder == "big":
        found.byteswap()
    return found


def is_intact(row: Columns) -> bool:
    """Whether a posting has its checksum."""
    return crc32(encode_row(row[:4])) == row[4]


def verify(row: Columns) -> None:
    """Raises StoreDamaged if a posting does not have its checksum."""
    if crc32(encode_row(row[:4])) != row[4]:
        raise index_error(f"a posting of the index, with the last position {row[1]}, does not have its checksum")


def count(type: int, positions: bytes) -> int:
    """How many events a posting has."""
    return len(positions) // (4 if type else 8) or 1


def unpack(last: int, type: int, positions: bytes) -> tuple[Sequence[int], Types]:
    """The positions of a posting, in order, and the type of all or of each."""
    if not positions:
        return (last,), type
    found, types = _from_bytes(positions), type
    if type == SEVERAL:
        size = len(found) // 2
        found, types = found[:size], found[size:]
    if last > _LOWER:
        upper = last >> HALF_BITS << HALF_BITS
        found = [upper | each for each in found]
    return found, types


def join(rows: Sequence[Columns]) -> list[Columns]:
    """Join the postings of each tag, given in order, to longer ones. Raises StoreDamaged for one that is damaged."""
    if list(map(crc32, map(encode_row, map(_BODY, rows)))) != list(map(_CRC, rows)):
        for row in rows:
            verify(row)
    made: list[Columns] = []
    parts: list[Columns] = []
    events = current = upper = 0
    for row in rows:
        tag, last, type, data, _ = row
        more = (len(data) >> 2 if type else len(data) >> 3) or 1
        if parts and (tag != current or events + more > MAX_EVENTS or last >> HALF_BITS != upper):
            made.append(parts[0] if len(parts) == 1 else _joined(parts))
            parts, events = [], 0
        parts.append(row)
        events += more
        current, upper = tag, last >> HALF_BITS
    if parts:
        made.append(parts[0] if len(parts) == 1 else _joined(parts))
    return made


def _joined(parts: Sequence[Columns]) -> Columns:
    tag, last, type, _, _ = parts[-1]
    if type != SEVERAL and {part[2] for part in parts} == {type}:
        blobs = [part[3] or (part[1] & _LOWER).to_bytes(4, "little") for part in parts]
        return _row(tag, last, type, b"".join(blobs))
    positions, types = list[int](), list[int]()
    for _, part_last, part_type, blob, _ in parts:
        found, kinds = unpack(part_last, part_type, blob)
        positions += found
        types += [kinds] * len(found) if isinstance(kinds, int) else kinds
    return _row(tag, last, SEVERAL, _bytes(positions, last) + to_bytes(types))
