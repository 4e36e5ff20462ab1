"""Merging the tail into the index: its postings are written as a new run, in slices that are transactions of their own.

A slice may fail, or its process may end: any process goes on behind the last posting that was written, since all make
the same postings of the same events. Only with the last slice is the run complete and the mark `indexed` moved, so that
readers, who ask complete runs up to the mark only, never see a part.
Knows: the order of postings. Does not know: transactions, when to merge (index_merging.py).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, cast
from zlib import crc32

import apsw

from eventfold.engines.sqlite import postings, runs
from eventfold.engines.sqlite.dictionary import NameDictionary
from eventfold.engines.sqlite.runs import BEING_WRITTEN, COMPLETE, Run
from eventfold.engines.sqlite.schema import encode_row, read_through, write_through
from eventfold.engines.sqlite.tail import Segment

LARGE_NAMES = 2_048  # are sorted in about half a millisecond
NAME_POSTINGS = 2  # postings that take as long as one name: it is looked up, and inserted with its index
Places = int | Sequence[int]  # the only position, or all


class StaleTail(Exception):
    """The tail in memory begins too late for the file."""


class OutdatedMerge(Exception):
    """Other processes have merged a part of these events, or begun to merge other ones: begin another merge."""


class Merge:
    """The merge of the events in (start, end] of segments: `step` within transactions until `is_done`.

    Not used after an error.
    """

    def __init__(self, segments: Sequence[Segment], start: int, end: int) -> None:
        self.start, self.end = start, end
        self.is_done = False
        self._segments = [each for each in segments if each.end > start and each.start < end]
        self._by_tag = [self._within(each, each.by_tag) for each in self._segments]
        self._by_type = [self._within(each, each.by_type) for each in self._segments]
        names = set[str]().union(*map(tuple, self._by_tag))
        self._names = sorted(names)  # new ones get ids in this order, so that their index grows in order
        self._ids: list[int] = []  # of the first names
        self._keys: list[int] = []  # of the postings in their order: ids of tags, and negative ones of types
        self._order: list[int] = []  # the index of the name of each
        self._types: dict[int, str] = {}  # by id, of all events up to `end`
        self._of_event: list[int] = []  # the type of each of these events; empty if they have one
        self._next, self._entries = 0, 0  # the index of the next key; entries of the postings before
        events = max(1, end - start)
        self.postings_per_event = ((1 + NAME_POSTINGS) * len(names) + events / postings.MAX_EVENTS) / events

    @property
    def is_large(self) -> bool:
        """Whether it has so many tags that to sort them takes a slice of its own."""
        return len(self._names) >= LARGE_NAMES

    @classmethod
    def begin(cls, connection: apsw.Connection, segments: Sequence[Segment], end: int) -> Merge | None:
        """The merge of what the index lacks up to `end`, or of what another process began; None if it lacks nothing.

        Within the caller's transaction. Raises StaleTail if the segments begin too late.
        """
        through = read_through(connection)
        if through >= end:
            return None
        if through < segments[0].start:
            raise StaleTail
        begun = _being_written(connection, through)
        if begun is not None:
            if begun.start == through and begun.end <= segments[-1].end:
                return cls(segments, through, begun.end)
            runs.discard(connection, begun)  # these segments cannot make the same postings
        return cls(segments, through, end)

    def step(self, connection: apsw.Connection, types: NameDictionary, tags: NameDictionary, most: int) -> int:
        """Write about so many postings within the caller's transaction. Returns how many; a name counts as some.

        Raises OutdatedMerge, after which this merge is not used any more.
        """
        if read_through(connection) != self.start:
            raise OutdatedMerge
        known = len(self._ids)
        names = self._names[known : known + -(-most // NAME_POSTINGS)]
        self._ids += tags.ensure_all(connection, names)
        left = most - NAME_POSTINGS * len(names)
        if left <= 0:
            return most
        if not self._keys:
            self._begin_postings(connection, types)
            if self.is_large and most < len(self._keys):
                return most  # to sort so many takes as long as a slice
        run = _being_written(connection, self.start) or runs.add_run(connection, self.start, self.end)
        if (run.start, run.end) != (self.start, self.end):
            raise OutdatedMerge
        written = runs.last_key(connection, run)
        if written is None:  # changed on disk
            runs.discard(connection, run)
            run, written = runs.add_run(connection, self.start, self.end), runs.LOWEST
        self._pass_over(written)
        columns = self._columns(run.id, left)
        runs.insert_columns(connection, columns)
        if self._next == len(self._keys):
            self._complete(connection, run)
        return NAME_POSTINGS * len(names) + len(columns) // runs.WIDTH

    def _begin_postings(self, connection: apsw.Connection, types: NameDictionary) -> None:
        """Find the order of the postings: by type, from the last to the first, then by tag."""
        # Not those that readers add to the last segment meanwhile.
        of_event = [name for each in self._segments for name in each.types[: self.end - each.start]]
        numbers = {name: types.ensure(connection, name) for name in set(of_event)}
        self._types = {number: name for name, number in numbers.items()}
        self._of_event = list(map(numbers.__getitem__, of_event)) if len(numbers) > 1 else []
        self._order = sorted(range(len(self._ids)), key=self._ids.__getitem__)
        of_types = sorted({-numbers[name] for by_type in self._by_type for name in by_type})
        self._keys = [*of_types, *map(self._ids.__getitem__, self._order)]
        self._order = [*range(-len(of_types), 0), *self._order]

    def _pass_over(self, written: tuple[int, int]) -> None:
        """Go to the key after the last that is written, which may be another process's."""
        index = bisect_right(self._keys, written[0])
        if index != self._next:
            first = self._next if index > self._next else 0
            if not first:
                self._entries = 0
            self._entries += sum(map(self._count_at, range(first, index)))
            self._next = index

    def _columns(self, run: int, most: int) -> list[Any]:
        """The columns of the next postings, of all postings of a tag at once. No object is made for each posting.

        Objects that live until the slice ends would make the interpreter's garbage collections frequent.
        """
        columns: list[Any] = []
        encode, extend, keys, order, names = encode_row, columns.extend, self._keys, self._order, self._names
        of_event, base = self._of_event, self._segments[0].start + 1
        number = 0 if of_event else next(iter(self._types))
        largest, end = most * runs.WIDTH, len(keys)
        index, entries, by_tag = self._next, self._entries, [each.get for each in self._by_tag]
        while index < end and len(columns) < largest:
            tag, place = keys[index], order[index]
            if place < 0:
                found: Places | None = self._positions_of_type(-tag)
            else:  # without calls: this loop runs once for each tag
                name, found = names[place], None
                for get in by_tag:
                    more = get(name)
                    if more is not None:
                        found = more if found is None else _as_list(found) + _as_list(more)
            index += 1
            if type(found) is int:
                kind = number or of_event[found - base]
                extend((run, tag, found, kind, b"", crc32(encode((tag, found, kind, b"")))))
                entries += 1
                continue
            positions = cast("Sequence[int]", found)
            count, last, kind = len(positions), positions[-1], -tag if tag < 0 else number
            if kind and 1 < count <= postings.MAX_EVENTS and last < postings.HALF:
                data = postings.to_bytes(positions)
                extend((run, tag, last, kind, data, crc32(encode((tag, last, kind, data)))))
            else:
                types = kind or [of_event[position - base] for position in positions]
                for row in postings.pack(tag, positions, types):
                    extend((run, *row))
            entries += count
        self._next, self._entries = index, entries
        return columns

    def _count_at(self, index: int) -> int:
        """How many events have the tag or the type at an index of the keys."""
        if self._order[index] < 0:
            return len(self._positions_of_type(-self._keys[index]))
        name = self._names[self._order[index]]
        return sum(len(_as_list(by_tag.get(name, ()))) for by_tag in self._by_tag)

    def _positions_of_type(self, number: int) -> list[int]:
        name = self._types[number]
        return list(chain.from_iterable(_as_list(by_type.get(name, ())) for by_type in self._by_type))

    def _complete(self, connection: apsw.Connection, run: Run) -> None:
        """Make the run a part of the index, unless processes that wrote it did not make the same postings."""
        if runs.count_events(connection, run) != self._entries:
            runs.discard(connection, run)
            self._next = self._entries = 0  # begun again by the next step
            return
        runs.set_state(connection, run, COMPLETE)
        write_through(connection, self.end)
        self.is_done = True

    def _within(self, segment: Segment, found: Mapping[str, Places]) -> Mapping[str, Places]:
        """The positions that are merged. A reader may add later ones to the last segment meanwhile."""
        if segment.is_closed and self.start <= segment.start and segment.end <= self.end:
            return found
        inside: dict[str, Places] = {}
        for name, positions in list(found.items()):
            merged = [position for position in _as_list(positions) if self.start < position <= self.end]
            if merged:
                inside[name] = merged
        return inside


def _as_list(positions: Places) -> list[int]:
    return [positions] if isinstance(positions, int) else list(positions)


def _being_written(connection: apsw.Connection, through: int) -> Run | None:
    """The run that a merge writes, if one was begun: it is behind the mark, that of a compaction is not."""
    known = runs.read_runs(connection)
    return next((run for run in known if run.state == BEING_WRITTEN and run.end > through), None)


def merge_all(
    connection: apsw.Connection, types: NameDictionary, tags: NameDictionary, segments: Sequence[Segment]
) -> None:
    """Merge whole segments within the caller's transaction. Raises StaleTail if they begin too late."""
    end = segments[-1].end
    while (merge := Merge.begin(connection, segments, end)) is not None:
        while not merge.is_done:
            merge.step(connection, types, tags, 1 << 30)
