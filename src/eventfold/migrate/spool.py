"""Records by key, in memory up to a limit and beyond it in temporary files: so that two sides of any size are compared.

Keys are distributed over partitions by their hash. A key is in the same partition of each spool of one process, so that
partition after partition can be compared, and only one of them has to fit into memory.
Knows: files, encoded records. Does not know: what a record means.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

PARTITIONS = 128
MAX_MEMORY_BYTES = 64 * 2**20
STEP_BYTES = 2**20  # between two looks at how much memory is used
RECORD_BYTES = 200  # of a record in memory, besides its payload
FRAME_RECORDS = 500  # encoded together
LENGTH_BYTES = 4

Record = tuple[str, int, bytes]  # key, what it is, payload
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Record]).decode


class Spool:
    """Records in the order in which they were added, within each key. `with Spool(folder) as spool: spool.extend(…)`"""

    def __init__(self, folder: Path | None = None, limit: int = MAX_MEMORY_BYTES) -> None:
        self._parent, self._limit = folder, limit
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files: list[BinaryIO] = []
        self._parts: list[list[Record]] = [[] for _ in range(PARTITIONS)]
        self._bytes = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._files:
            each.close()
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def is_on_disk(self) -> bool:
        """Whether more was added than memory may hold."""
        return self._folder is not None

    def extend(self, records: Iterable[Record]) -> None:
        """Add records."""
        parts, size = self._parts, 0
        for record in records:
            parts[hash(record[0]) % PARTITIONS].append(record)
            size += len(record[2]) + RECORD_BYTES
            if size > STEP_BYTES:
                self._count(size)
                size = 0
        self._count(size)

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._limit:
            self._write()

    def part(self, number: int) -> Iterator[Record]:
        """Yield the records of a partition, once."""
        if self._files:
            yield from _read(self._files[number])
        records, self._parts[number] = self._parts[number], []
        yield from records

    def _write(self) -> None:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="eventfold-compare-", dir=self._parent)
            names = [Path(self._folder.name) / f"part-{number}" for number in range(PARTITIONS)]
            self._files = [each.open("w+b") for each in names]
        for file, records in zip(self._files, self._parts, strict=True):
            for start in range(0, len(records), FRAME_RECORDS):
                message = _encode(records[start : start + FRAME_RECORDS])
                file.write(len(message).to_bytes(LENGTH_BYTES, "big") + message)
            records.clear()
        self._bytes = 0


def _read(file: BinaryIO) -> Iterator[Record]:
    file.seek(0)
    while len(length := file.read(LENGTH_BYTES)) == LENGTH_BYTES:
        yield from _decode(file.read(int.from_bytes(length, "big")))
