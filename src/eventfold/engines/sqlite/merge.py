"""Merging the tail into the index tables, in the order of their keys, in slices that are transactions of their own.

A slice may fail, or its process may end: the merge is then begun again, and entries that are there already are
ignored. Only with the last slice is the mark `indexed` moved, so that readers, who ask the tables up to the mark only,
never see a part.
Knows: the order of entries. Does not know: transactions, when to merge (index_merging.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, repeat
from operator import itemgetter

import apsw

from eventfold.engines.sqlite import schema
from eventfold.engines.sqlite.dictionary import NameDictionary
from eventfold.engines.sqlite.schema import read_through, write_through
from eventfold.engines.sqlite.tail import Segment

NAME_ENTRIES = 4  # entries that take as long as one name: it is looked up, and inserted with its index and a trigger


class StaleTail(Exception):
    """The tail in memory begins too late for the file."""


class Merge:
    """The merge of consecutive segments: `step` within transactions until `is_done`; not used after an error."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = segments
        self.start, self.end = segments[0].start, segments[-1].end
        self.is_done = False
        names = set[str]().union(*(tuple(segment.by_tag) for segment in segments))
        self._names = sorted(names)  # new ones get ids in this order, so that their index grows in order
        self._ids: dict[str, int] = {}
        self._entries: Iterator[int] | None = None  # those of the tables, in order of their keys
        events, carried = self.end - self.start, sum(segment.carried for segment in segments)
        self.entries_per_event = (events + carried + NAME_ENTRIES * len(names)) / max(1, events)

    def step(self, connection: apsw.Connection, types: NameDictionary, tags: NameDictionary, entries: int) -> int:
        """Merge about so many entries within the caller's transaction. Returns how many; a name counts as NAME_ENTRIES.

        Raises StaleTail if the index tables do not contain everything before the segments: their end is no mark then.
        """
        through = read_through(connection)
        if through < self.start:
            raise StaleTail
        if through >= self.end:  # another process has merged it
            self.is_done = True
            return 0
        known = len(self._ids)
        names = self._names[known : known + -(-entries // NAME_ENTRIES)]
        self._ids.update(zip(names, tags.ensure_all(connection, names), strict=True))
        left = entries - NAME_ENTRIES * len(names)
        if left <= 0:
            return entries
        if self._entries is None:
            self._entries = self._in_order(connection, types)
        slice_ = list(islice(self._entries, 3 * left))
        schema.insert_tagged(connection, slice_)
        if len(slice_) < 3 * left:
            write_through(connection, self.end)
            self.is_done = True
        return NAME_ENTRIES * len(names) + len(slice_) // 3

    def _in_order(self, connection: apsw.Connection, types: NameDictionary) -> Iterator[int]:
        """Return the columns of all entries one after another. No object is made for an entry."""
        segments, end = self._segments, self.end
        of_type = {name: types.ensure(connection, name) for segment in segments for name in list(segment.by_type)}
        entries: list[Iterable[tuple[int, int, int]]] = []
        for name in sorted(of_type, key=of_type.__getitem__, reverse=True):
            for segment in segments:
                positions = _through(segment.by_type.get(name, ()), segment, end)
                entries.append(zip(repeat(-of_type[name]), positions, repeat(of_type[name])))
        names = sorted(self._ids.items(), key=itemgetter(1))
        lists = [self._positions_of(name) for name, _ in names]
        positions = list(chain.from_iterable(lists))
        numbers = chain.from_iterable(map(repeat, map(itemgetter(1), names), map(len, lists)))
        if len(of_type) == 1:
            kinds = repeat(next(iter(of_type.values())), len(positions))
        else:
            base = self.start + 1
            of_event = [name for each in segments for name in each.types[: min(each.end, end) - each.start]]
            kinds = [of_type[of_event[position - base]] for position in positions]
        entries.append(zip(numbers, positions, kinds, strict=True))
        return chain.from_iterable(chain.from_iterable(entries))

    def _positions_of(self, tag: str) -> Sequence[int]:
        """The positions of a tag in all segments, in order."""
        found = [_through(each.of_tag(tag), each, self.end) for each in self._segments if tag in each.by_tag]
        return found[0] if len(found) == 1 else list(chain.from_iterable(found))


def _through(positions: Sequence[int], segment: Segment, end: int) -> Sequence[int]:
    """Those up to `end`. A reader may add later ones to the last segment meanwhile."""
    return positions if segment.is_closed else [position for position in list(positions) if position <= end]


def merge_all(
    connection: apsw.Connection, types: NameDictionary, tags: NameDictionary, segments: Sequence[Segment]
) -> None:
    """Merge whole segments within the caller's transaction."""
    merge = Merge(segments)
    while not merge.is_done:
        merge.step(connection, types, tags, 1 << 30)
