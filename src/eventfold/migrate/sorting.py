"""Sorting of more events than memory holds: sorted parts in temporary files, which are merged.

The source is read once and in the order of its keys, so that its snapshot is open only for as long as reading takes.
Knows: files, encoded events. Does not know: rows, stores.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

import msgspec

from eventfold.core.envelope import NewEvent

PART_EVENTS = 50_000  # sorted in memory
FRAME_EVENTS = 500  # encoded together
MERGED_TOGETHER = 64  # files
LENGTH_BYTES = 4

Place = tuple[int, int, int, int]  # moment, rank of the table, number of the row, number of the event
Item = tuple[Place, NewEvent]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Item]).decode
_place = itemgetter(0)


class Sorter:
    """Events by their place. `with Sorter(folder) as sorter: sorter.add(…); for event in sorter: …`"""

    def __init__(self, folder: Path | None = None, part: int = PART_EVENTS) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="eventfold-load-", dir=folder)
        self._items: list[Item] = []
        self._parts: list[Path] = []
        self._made = 0
        self._part, self.count = part, 0

    def __enter__(self) -> Sorter:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def add(self, place: Place, event: NewEvent) -> None:
        """Add an event."""
        self._items.append((place, event))
        self.count += 1
        if len(self._items) >= self._part:
            self._write()

    def __iter__(self) -> Iterator[NewEvent]:
        self._items.sort(key=_place)
        if not self._parts:
            yield from (event for _, event in self._items)
            return
        self._write()
        while len(self._parts) > MERGED_TOGETHER:
            first, self._parts = self._parts[:MERGED_TOGETHER], self._parts[MERGED_TOGETHER:]
            with ExitStack() as stack:
                merged = heapq.merge(*(_read(stack.enter_context(each.open("rb"))) for each in first), key=_place)
                self._parts.append(self._store(merged))
            for each in first:
                each.unlink()
        with ExitStack() as stack:
            files = [_read(stack.enter_context(each.open("rb"))) for each in self._parts]
            for _, event in heapq.merge(*files, key=_place):
                yield event

    def _write(self) -> None:
        if self._items:
            self._items.sort(key=_place)
            self._parts.append(self._store(self._items))
            self._items = []

    def _store(self, items: Iterable[Item]) -> Path:
        self._made += 1
        path = Path(self._folder.name) / f"part-{self._made}"
        frame: list[Item] = []
        with path.open("wb") as file:
            for item in items:
                frame.append(item)
                if len(frame) >= FRAME_EVENTS:
                    _put(file, frame)
                    frame = []
            _put(file, frame)
        return path


def _put(file: BinaryIO, frame: list[Item]) -> None:
    message = _encode(frame)
    file.write(len(message).to_bytes(LENGTH_BYTES, "big") + message)


def _read(file: BinaryIO) -> Iterator[Item]:
    while len(length := file.read(LENGTH_BYTES)) == LENGTH_BYTES:
        yield from _decode(file.read(int.from_bytes(length, "big")))
