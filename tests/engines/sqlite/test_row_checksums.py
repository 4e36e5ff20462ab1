"""Rows are verified many at once: what is found, and that it is what a check of each row finds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from zlib import crc32

import apsw
import pytest

from eventfold.core.event_rows import Row
from eventfold.engines.sqlite import schema
from eventfold.engines.sqlite.row_checksums import has_checksum, have_checksums
from eventfold.engines.sqlite.schema import encode_row, with_checksum

ALL = f"SELECT {schema.ROW} FROM event ORDER BY position"  # noqa: S608
OTHER = (99, bytes(16), 2, 200, b"{}", "a:2", 6, 7, b"{}", 9, 1, "cbor", 0x12345678, "k")  # a value for each column


@pytest.fixture
def connection() -> Iterator[apsw.Connection]:
    """A database with the tables, of which no trigger guards the events."""
    found = apsw.Connection("")
    found.execute(schema.CREATE)
    for (name,) in found.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        found.execute(f"DROP TRIGGER {name}")
    yield found
    found.close()


def columns(position: int, **more: Any) -> tuple[Any, ...]:
    """An event's columns without a checksum."""
    given = {"data": b'{"n":%d}' % position, "tags": "a:1\nb:ä", "occurred": None, "metadata": None} | more
    return (
        *(position, position.to_bytes(16), 1, 1, given["data"], given["tags"], 1_795_000_000_000_000 + position),
        *(given["occurred"], given["metadata"], more.get("offset"), more.get("size"), more.get("encoding")),
        more.get("key"),
    )


def written(connection: apsw.Connection, events: Sequence[tuple[Any, ...]]) -> list[Row]:
    """Write events with their checksums, and read them as the engine does."""
    connection.execute("DELETE FROM event")
    connection.executemany(schema.INSERT_EVENT, map(with_checksum, events))
    return connection.execute(ALL).fetchall()


def ordinary(count: int) -> list[tuple[Any, ...]]:
    """Events whose checksums take five bytes as MessagePack, as those of all but one in 65,536 do."""
    found, position = list[tuple[Any, ...]](), 0
    while len(found) < count:
        position += 1
        each = columns(position, data=b"x" * (position % 400), offset=position % 7, size=7)
        if reversed_bytes(with_checksum(each)[-1]) >= 65_536:
            found.append(each)
    return found


def reversed_bytes(number: int) -> int:
    """The number with its four bytes in reverse order."""
    return int.from_bytes(number.to_bytes(4, "little"))


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 1_000, 32_767, 32_768])
def test_unchanged_rows_are_verified_at_once(connection: apsw.Connection, count: int) -> None:
    """As few or as many as MessagePack gives headers of different lengths; the buffer then has their bytes."""
    rows, buffer = written(connection, ordinary(count)), bytearray()
    assert len(rows) == count
    assert have_checksums(rows, buffer)
    assert len(buffer) > sum(len(row[4]) for row in rows)
    assert all(map(has_checksum, rows[:1_000]))


@pytest.mark.parametrize("column", range(14))
@pytest.mark.parametrize("place", [0, 1, 5, 9])
def test_a_changed_column_of_any_row_is_found(connection: apsw.Connection, column: int, place: int) -> None:
    """At the beginning, in the middle and at the end of the rows; by both checks, which find no other row."""
    rows = written(connection, ordinary(10))
    rows[place] = (*rows[place][:column], OTHER[column], *rows[place][column + 1 :])
    assert not have_checksums(rows, bytearray())
    assert [index for index, row in enumerate(rows) if not has_checksum(row)] == [place]


@pytest.mark.parametrize("bit", range(0, 8 * 60, 7))
def test_a_flipped_bit_is_found(connection: apsw.Connection, bit: int) -> None:
    """In the payload of one row of many, wherever it is; also if a second row has another one."""
    rows = written(connection, [columns(number, data=bytes(60), offset=1, size=7) for number in range(1, 300)])
    whole = [row for row in rows if row[12] >= 65_536]
    assert have_checksums(whole, bytearray())
    for flipped in ([bit % 290], [bit % 290, 291]):
        damaged = list(whole)
        for index in flipped:
            data = int.from_bytes(damaged[index][4]) ^ (1 << bit)
            damaged[index] = (*damaged[index][:4], data.to_bytes(60), *damaged[index][5:])
        assert not have_checksums(damaged, bytearray())
        assert [index for index, row in enumerate(damaged) if not has_checksum(row)] == flipped


def test_rows_that_are_exchanged_lost_or_repeated_still_have_their_checksums(connection: apsw.Connection) -> None:
    """A checksum is of one row. That positions follow each other is what the reader verifies."""
    rows = written(connection, ordinary(9))
    for some in (rows[::-1], rows[1::3], rows + rows):
        assert have_checksums(some, bytearray())


def test_some_rows_are_verified_one_by_one(connection: apsw.Connection) -> None:
    """With a key, and with a checksum of fewer bytes: they are not taken for damaged, and damage is found in them."""
    short = next(each for n in range(1, 10**6) if reversed_bytes(with_checksum(each := columns(n))[-1]) < 65_536)
    for unusual in (short, columns(10**6, key="k")):
        rows = written(connection, [unusual, *ordinary(3)])
        assert not have_checksums(rows, bytearray())
        assert all(map(has_checksum, rows))
        damaged = [(*row[:4], row[4] + b" ", *row[5:]) for row in rows]
        assert not any(map(has_checksum, damaged))
        assert not have_checksums(damaged, bytearray())


@pytest.mark.parametrize("checksum", [0, 1, 255, 65_535, 0x01020304, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF])
def test_sql_reverses_the_bytes_of_a_checksum(connection: apsw.Connection, checksum: int) -> None:
    """Of every checksum but the highest one, which is read as 0."""
    connection.execute(schema.INSERT_EVENT, (*columns(1), checksum))
    ((*_, found, _),) = connection.execute(ALL)
    assert found == reversed_bytes(checksum) % 0xFFFFFFFF


def test_a_number_that_is_no_checksum_matches_no_row(connection: apsw.Connection) -> None:
    """Negative ones, and larger ones than four bytes hold, among them those that have the right last bytes."""
    event = columns(1)
    right = with_checksum(event)[-1]
    for wrong in (-right, right - 2**32, right + 2**32, right + 2**40, 2**63 - 1, -(2**63)):
        connection.execute("DELETE FROM event")
        connection.execute(schema.INSERT_EVENT, (*event, wrong))
        rows = connection.execute(ALL).fetchall()
        assert not have_checksums(rows, bytearray()), wrong
        assert not has_checksum(rows[0]), wrong


def test_a_missing_row_has_no_checksum() -> None:
    """An index that leads to no event gives a row of nulls, except for the position."""
    row = (7, *[None] * 13)
    assert not have_checksums([row], bytearray())
    assert not has_checksum(row)


def test_a_checksum_is_that_of_the_layout(connection: apsw.Connection) -> None:
    """The CRC-32 of the columns as a MessagePack array, as every version of the library has written it."""
    event = columns(3, occurred=5, metadata=b"{}", offset=1, size=2, encoding="cbor")
    ((*_, found, _),) = written(connection, [event])
    assert found == reversed_bytes(crc32(encode_row(event)))
