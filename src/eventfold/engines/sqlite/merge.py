"""Merging the tail into the index tables, in the order of their keys, in slices that appends carry in their commits.

A slice may be rolled back with the append that carries it, or its process may end: the next one begins the segment
again, and entries that are there already are ignored. Only when all are in is the mark `indexed` moved, so that
readers, who ask the tables up to the mark only, never see a part.
Knows: the order of slices. Does not know: transactions (the writer does), when to merge.
"""

from __future__ import annotations

from collections.abc import Iterator

import apsw

from eventfold.engines.sqlite import schema
from eventfold.engines.sqlite.dictionary import NameDictionary
from eventfold.engines.sqlite.schema import read_through, write_through
from eventfold.engines.sqlite.tail import Segment

SLICE_ENTRIES = 192  # at least so many in each commit
SLICE_FACTOR = 3  # or so many for each entry that the commit's own events will need, so that merges keep up
MAX_BACKLOG = 16  # and so many times as much for as many closed segments: after one commit of very many events


class StaleTail(Exception):
    """The tail in memory begins too late for the file."""


class Merge:
    """The merge of one closed segment. The writer calls `step` within a transaction, then `commit` or `rollback`."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.end = segment.end
        self.entries_per_event = 1 + -(-segment.carried // max(1, segment.end - segment.start))  # one for the type
        self._names = sorted(segment.by_tag)  # new ones get ids in this order, so that their index grows in order
        self._ids: dict[str, int] = {}
        self._known = 0  # names whose ids are committed
        self._entries: list[tuple[int, int, int]] | None = None  # those of the tables, in order of their keys
        self._merged = 0  # entries that are committed
        self._next = (0, 0, False)  # names and entries once the transaction commits, and whether all are in

    def step(self, connection: apsw.Connection, types: NameDictionary, tags: NameDictionary, entries: int) -> None:
        """Merge about so many entries within the caller's transaction.

        Raises StaleTail if the index tables do not contain everything before the segment: its end is no mark then.
        """
        through = read_through(connection)
        if through < self.segment.start:
            raise StaleTail
        if through >= self.end:  # another process has merged it
            self._next = (self._known, self._merged, True)
            return
        names = self._names[self._known : self._known + entries]
        for name in names:
            self._ids[name] = tags.ensure(connection, name)
        known, merged, is_done = self._known + len(names), self._merged, False
        if known == len(self._names) and len(names) < entries:
            if self._entries is None:
                self._entries = list(self._in_order(connection, types))
            slice_ = self._entries[merged : merged + entries - len(names)]
            connection.executemany(schema.INSERT_TAGGED, slice_)
            merged += len(slice_)
            if merged == len(self._entries):
                is_done = True
                write_through(connection, self.end)
        self._next = (known, merged, is_done)

    def commit(self) -> bool:
        """The transaction was committed. Returns whether all is merged."""
        self._known, self._merged, is_done = self._next
        return is_done

    def rollback(self) -> None:
        """The transaction was rolled back, or may have been."""
        for name in self._names[self._known :]:
            self._ids.pop(name, None)
        self._entries = None if self._known < len(self._names) else self._entries
        self._next = (self._known, self._merged, False)

    def _in_order(self, connection: apsw.Connection, types: NameDictionary) -> Iterator[tuple[int, int, int]]:
        segment = self.segment
        of_type = {name: types.ensure(connection, name) for name in list(segment.by_type)}
        for name in sorted(of_type, key=of_type.__getitem__, reverse=True):
            number = of_type[name]
            for position in segment.by_type[name]:
                if position <= self.end:
                    yield -number, position, number
        for name, number in sorted(self._ids.items(), key=lambda each: each[1]):
            yield from (
                (number, position, of_type[type]) for position, type, _ in segment.by_tag[name] if position <= self.end
            )


def merge_all(
    connection: apsw.Connection, types: NameDictionary, tags: NameDictionary, segments: tuple[Segment, ...]
) -> None:
    """Merge whole segments within the caller's transaction."""
    for segment in segments:
        merge = Merge(segment)
        while not merge.commit():
            merge.step(connection, types, tags, 1 << 30)
