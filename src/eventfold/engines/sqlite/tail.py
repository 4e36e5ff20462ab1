"""The tail: the newest events of the log, which the index tables do not contain yet, indexed in memory by tag and type.

An append writes only the row of its event and the entry of its id. The writer merges the tail into the index tables in
the order of their keys, a slice at a time (merge.py). So whatever is asked of the index has two parts: positions up to
the start of the tail are in the tables, later ones are here. Every process builds its own tail from the rows.
Entries of the tables up to a position once merged stay there, so a tail that begins too early is right as well.
A damaged event may have any tag: it is a segment of its own, and may be an answer to whatever is asked of its position.
Knows: positions, types and tags of events. Does not know: SQL, transactions.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import NamedTuple, NoReturn, cast

import apsw

from eventfold.core.envelope import StoredEvent
from eventfold.core.mutex import Mutex
from eventfold.core.query import Item, Matcher, Query
from eventfold.core.tags import in_utc, is_moment
from eventfold.errors import CorruptEvent

MERGE_SEGMENTS = 6  # so many segments are merged at once: a leaf of the index is then written once for all of them
MERGE_EVENTS = 18_432  # events of them; a segment of 3,072 is read in 1 ms once it is saved, and in 30 ms from its rows
SEGMENT_BYTES = 8_388_608  # or so many bytes of payloads and tags make a segment: a process may have to read them all
SEGMENT_TAGS = 12_288  # or so many tags of all its events: a merge sorts the tags of its segments at once
CATCH_UP_ROWS = 512  # rows read at a time
PENDING_EVENTS = 32  # of this process, added together: a quarter of the time of adding each after its append
EVENT_MEMORY, ENTRY_MEMORY, NAME_MEMORY = 110, 75, 45  # bytes; within a fifth of what tracemalloc finds for short tags


class Labels(NamedTuple):
    """What the index has of consecutive events: the type and the tags of each, and how many bytes it has.

    A size is that of payload and tags.
    """

    types: list[str]
    tag_sets: list[tuple[str, ...]]
    sizes: list[int]

    def after(self, count: int) -> Labels:
        """Those of the events after the first `count`."""
        return Labels(self.types[count:], self.tag_sets[count:], self.sizes[count:])


Positions = int | list[int]  # of a tag: most have one event in a segment, for which no list is made


class Stretch(NamedTuple):
    """How many events of the tail have a tag or a type, and the first and the last of their positions."""

    events: int
    first: int
    last: int


class Segment:
    """The events in (start, end]. A reader may use it while the one writer of the tail adds events after `end`.

    `types` and `tag_sets` have an item for each event, in order of position.
    """

    __slots__ = (
        "by_tag",
        "by_type",
        "carried",
        "damage",
        "end",
        "is_closed",
        "is_partial",
        "is_saved",
        "max_events",
        "moments",
        "size",
        "start",
        "tag_sets",
        "types",
    )

    def __init__(self, start: int, max_events: int) -> None:
        self.start = self.end = start
        self.max_events = max_events
        self.size = 0  # bytes of payloads and tags
        self.carried = 0  # tags of all events
        self.types: list[str] = []
        self.tag_sets: list[tuple[str, ...]] = []
        self.by_tag: dict[str, Positions] = {}
        self.by_type: dict[str, list[int]] = {}
        self.moments: dict[str, list[str]] = {}  # a tag in UTC -> its other spellings here
        self.damage: CorruptEvent | None = None  # of its only event
        self.is_closed = False  # whether it has a successor: nothing is added to it any more
        self.is_saved = False  # whether it is in the table of segments, or need not be
        self.is_partial = False  # an exception ended `add`: entries after `end` may be there

    @property
    def is_full(self) -> bool:
        """Whether it has so many events, bytes or tags that the next event begins another segment."""
        return (
            self.end - self.start >= self.max_events
            or self.size >= SEGMENT_BYTES
            or self.carried >= SEGMENT_TAGS
            or self.damage is not None
        )

    def raise_damage(self) -> NoReturn:
        """Raises the error of its damaged event."""
        assert self.damage is not None
        raise CorruptEvent(self.damage.what, self.damage.remedy, **self.damage.fields)

    def add(self, labels: Labels) -> int:
        """Add the next events, until it is full. Returns how many were added."""
        types, tag_sets, sizes = labels
        left = self.max_events - (self.end - self.start)
        if len(types) > left:
            types, tag_sets, sizes = types[:left], tag_sets[:left], sizes[:left]
        size, carried = sum(sizes), sum(map(len, tag_sets))
        if self.size + size >= SEGMENT_BYTES or self.carried + carried >= SEGMENT_TAGS:
            fit = self._count_fitting(tag_sets, sizes)
            types, tag_sets, size = types[:fit], tag_sets[:fit], sum(sizes[:fit])
            carried = sum(map(len, tag_sets))
        self.types += types
        self.tag_sets += tag_sets
        self._index(types, tag_sets)
        self.carried += carried
        self.size += size
        self.end += len(types)  # last: readers ask up to it
        return len(types)

    def _count_fitting(self, tag_sets: Sequence[tuple[str, ...]], sizes: Sequence[int]) -> int:
        """How many of the next events are added: those up to the one that makes it full."""
        size, carried = self.size, self.carried
        for count, (tags, each) in enumerate(zip(tag_sets, sizes, strict=True), 1):
            size, carried = size + each, carried + len(tags)
            if size >= SEGMENT_BYTES or carried >= SEGMENT_TAGS:
                return count
        return len(sizes)

    def _index(self, types: Sequence[str], tag_sets: Sequence[tuple[str, ...]]) -> None:
        by_tag, by_type, first = self.by_tag, self.by_type, self.end + 1
        for position, tags in enumerate(tag_sets, first):
            for tag in tags:
                found = by_tag.get(tag)
                if found is None:
                    by_tag[tag] = position
                    if "T" in tag and is_moment(tag) and (utc := in_utc(tag)) != tag:
                        self.moments.setdefault(utc, []).append(tag)
                elif type(found) is list:
                    found.append(position)
                else:
                    by_tag[tag] = [cast(int, found), position]
        for name, positions in by_type_of(types, first).items():
            by_type.setdefault(name, []).extend(positions)

    @property
    def memory(self) -> int:
        """About how many bytes of memory it takes."""
        names = len(self.by_tag) + len(self.by_type)
        return (self.end - self.start) * EVENT_MEMORY + self.carried * ENTRY_MEMORY + names * NAME_MEMORY

    def first(self, item: Item, after: int, until: int) -> int | None:
        """The first position in (after, until] that matches an item, or None."""
        if not item.tags:
            return min(
                [p for name in item.types if (p := _first(self.by_type.get(name, ()), after, until))], default=None
            )
        types, tags, tag_sets, base = item.types, item.tags, self.tag_sets, self.start + 1
        for tag in tags:  # no event of most conditions has a tag: without a call, since it is asked for every condition
            found = self.by_tag.get(tag, 0)
            if (found if type(found) is int else cast("list[int]", found)[-1]) <= after:
                return None
        positions = self._positions(item)
        for index in range(bisect_right(positions, after), len(positions)):
            position = positions[index]
            if position > until:
                return None
            if (not types or self.types[position - base] in types) and (
                len(tags) == 1 or all(tag in tag_sets[position - base] for tag in tags)
            ):
                return position
        return None

    def find(self, item: Item, after: int, until: int) -> Sequence[int]:
        """All positions in (after, until] that match an item, in order for an item with tags."""
        if not item.tags:
            return [p for name in item.types for p in _between(self.by_type.get(name, ()), after, until)]
        among = _between(self._positions(item), after, until)
        asked, tags, base = item.types, item.tags, self.start + 1
        if asked:
            types = self.types
            among = [position for position in among if types[position - base] in asked]
        if len(tags) > 1:
            tag_sets = self.tag_sets
            among = [position for position in among if all(tag in tag_sets[position - base] for tag in tags)]
        return among

    def _positions(self, item: Item) -> Sequence[int]:
        """The positions of the rarest tag of an item."""
        if len(item.tags) == 1:
            return self.of_tag(item.tags[0])
        return min(map(self.of_tag, item.tags), key=len)

    def of_tag(self, tag: str) -> Sequence[int]:
        """The positions of a tag, in order; also those after `end`, of events that are being added."""
        found = self.by_tag.get(tag, ())
        return (found,) if type(found) is int else cast("Sequence[int]", found)

    def events(self, after: int, until: int) -> Iterator[tuple[int, str, tuple[str, ...]]]:
        """Position, type and tags of the events in (after, until], in order."""
        low, high = max(after, self.start), min(until, self.end)
        inside = slice(low - self.start, high - self.start)
        return zip(range(low + 1, high + 1), self.types[inside], self.tag_sets[inside], strict=True)


class Tail:
    """The tail of one process: segments in order, each beginning where the one before ends.

    `read` reads the events in (after, until] and verifies them; `read_through` the position through which the index
    tables are complete; `read_saved` the saved segments from a position on. `merge_events`: so many are merged at once.
    """

    def __init__(
        self,
        read: Callable[[apsw.Connection, int, int], list[StoredEvent]],
        read_through: Callable[[apsw.Connection], int],
        read_saved: Callable[[apsw.Connection, int, int], list[Segment]],
        merge_events: int = MERGE_EVENTS,
    ) -> None:
        self._read, self._read_through, self._read_saved = read, read_through, read_saved
        self._max_events = -(-merge_events // MERGE_SEGMENTS)  # of a segment
        self.merge_segments = -(-merge_events // self._max_events)  # that are merged at once
        self.segments: tuple[Segment, ...] = ()
        self._is_damaged = False  # whether a segment is damaged
        self._most_pending = min(PENDING_EVENTS, self._max_events // 64)
        self._pending: list[tuple[int, Labels]] = []  # appended by this process and not yet in a segment
        self._pending_events = 0
        self._mutex = Mutex()

    def covering(self, connection: apsw.Connection, until: int) -> tuple[Segment, ...]:
        """Segments that contain every event up to `until` (committed) that the index tables may lack."""
        segments = self.segments
        if segments and segments[-1].end >= until and not segments[-1].is_partial and not self._is_damaged:
            return segments
        return self._mutex.run(self._catch_up, connection, until)

    def extend(self, first: int, labels: Labels) -> bool:
        """Add events of a commit of this process, from position `first`; a few are added together once they are needed.

        Returns False if the tail did not end where they begin: it has to catch up. Called by one thread at a time.
        """
        self._pending.append((first, labels))
        self._pending_events += len(labels.types)
        return self._pending_events < self._most_pending or self._mutex.run(self._add_pending)

    def _add_pending(self) -> bool:
        """Whether the tail now ends with the last of the events."""
        pending, self._pending, self._pending_events = self._pending, [], 0
        last = 0
        for first, labels in _joined(pending):
            self._extend(first, labels)
            last = first + len(labels.types) - 1
        return bool(self.segments) and self.segments[-1].end >= last and not self.segments[-1].is_partial

    def drop_through(self, position: int) -> None:
        """Drop the segments up to `position`, through which the index tables are complete."""
        self._mutex.run(self._drop_through, position)

    def close_segment(self) -> None:
        """Close the last segment, if it has events, so that it can be merged."""
        self._mutex.run(self._close_segment)

    def forget(self) -> None:
        """Drop all segments: the file may have been changed by other tools while this process had it closed."""
        self._mutex.run(self._forget)

    def _forget(self) -> None:
        self.segments, self._is_damaged, self._pending, self._pending_events = (), False, [], 0

    @property
    def damage(self) -> CorruptEvent | None:
        """The error of the first damaged event, before which merging ends; None if there is none."""
        return next((segment.damage for segment in self.segments if segment.damage is not None), None)

    @property
    def closed(self) -> tuple[Segment, ...]:
        """The segments that can be merged: all but the last, up to a damaged event, whose tags are not known."""
        closed = self.segments[:-1]
        return tuple(takewhile(_is_whole, closed)) if self._is_damaged else closed

    @property
    def whole(self) -> tuple[Segment, ...]:
        """The segments up to a damaged event, with the last, to which events are added."""
        return tuple(takewhile(_is_whole, self.segments))

    @property
    def memory(self) -> int:
        """About how many bytes of memory it takes."""
        return sum(segment.memory for segment in self.segments)

    def _catch_up(self, connection: apsw.Connection, until: int) -> tuple[Segment, ...]:
        if self._pending:
            self._add_pending()
        if self._is_damaged:
            self._forget_repaired(connection)
        segments = self.segments
        end = segments[-1].end if segments and not segments[-1].is_partial else -1
        if end < 0 or until - end > CATCH_UP_ROWS:
            through = self._read_through(connection)
            if through > end:  # other processes have merged all that this one has
                self.segments = (Segment(through, self._max_events),)
            self._add_saved(connection)
        while (end := self.segments[-1].end) < until:
            if self._read_further(connection, end, min(until, end + CATCH_UP_ROWS)):
                self._drop_through(self._read_through(connection))
        return self.segments

    def _add_saved(self, connection: apsw.Connection) -> None:
        """Add the saved segments that begin where the last segment does, which they contain."""
        *before, last = self.segments
        saved = self._read_saved(connection, last.start, self._max_events)
        if saved and saved[-1].end > last.end:
            self.segments = (*before, *saved, Segment(saved[-1].end, self._max_events))

    def _read_further(self, connection: apsw.Connection, end: int, until: int) -> bool:
        """Read the events in (end, until], those around a damaged one each for itself. Whether a segment was closed."""
        try:
            events = self._read(connection, end, until)
        except CorruptEvent as error:
            if until - end > 1:
                for position in range(end, until):
                    self._read_further(connection, position, position + 1)
            else:
                damaged = Segment(end, self._max_events)
                damaged.end, damaged.damage = until, _at(error, until)
                self._is_damaged = True
                self.segments = (*self.segments, damaged, Segment(until, self._max_events))
            return True
        labels = Labels([], [], [])
        for event in events:
            labels.types.append(event.type)
            labels.tag_sets.append(event.tag_set)
            labels.sizes.append(len(event.data) + len(event.tags))
        return self._extend(end + 1, labels)

    def _forget_repaired(self, connection: apsw.Connection) -> None:
        """Forget damage that another process has merged, or that was none: a checkpoint may have disturbed the read."""
        self._drop_through(self._read_through(connection))
        for index, segment in enumerate(self.segments):
            if segment.damage is not None:
                with suppress(CorruptEvent):
                    self._read(connection, segment.start, segment.end)
                    self.segments = (*self.segments[:index], Segment(segment.start, self._max_events))
                    break
        self._is_damaged = not all(map(_is_whole, self.segments))

    def _extend(self, first: int, labels: Labels) -> bool:
        """Whether a segment was closed."""
        if not self.segments or self.segments[-1].is_partial:
            return False
        segment, closed = self.segments[-1], False
        if segment.end < first - 1:
            return False
        known = segment.end - (first - 1)
        left = labels.after(known) if known else labels
        segment.is_partial = True
        while left.types:
            if segment.is_full:
                segment.is_partial = False
                full, segment, closed = segment, Segment(segment.end, self._max_events), True
                segment.is_partial = True
                self.segments = (*self.segments, segment)
                full.is_closed = True
            added = segment.add(left)
            if added == len(left.types):
                break
            left = left.after(added)
        segment.is_partial = False
        return closed

    def _close_segment(self) -> None:
        segments = self.segments
        if segments and not segments[-1].is_partial and segments[-1].end > segments[-1].start:
            self.segments = (*segments, Segment(segments[-1].end, self._max_events))
            segments[-1].is_closed = True

    def _drop_through(self, position: int) -> None:
        kept = [segment for segment in self.segments[:-1] if segment.end > position]
        if len(kept) + 1 < len(self.segments):
            self.segments = (*kept, self.segments[-1])


def by_type_of(types: Sequence[str], first: int) -> dict[str, list[int]]:
    """The positions of each type, given those of consecutive events from a position on."""
    if len(set(types)) == 1:
        return {types[0]: list(range(first, first + len(types)))}
    by_type: dict[str, list[int]] = {}
    for position, name in enumerate(types, first):
        by_type.setdefault(name, []).append(position)
    return by_type


def _joined(pending: Sequence[tuple[int, Labels]]) -> Iterator[tuple[int, Labels]]:
    """Yield the labels of consecutive positions as one."""
    start, joined = pending[0]
    if len(pending) > 1:
        joined = Labels([], [], [])
        for first, labels in pending:
            if first != start + len(joined.types):
                yield start, joined
                start, joined = first, Labels([], [], [])
            joined.types.extend(labels.types)
            joined.tag_sets.extend(labels.tag_sets)
            joined.sizes.extend(labels.sizes)
    yield start, joined


def first_in_tail(segments: Iterable[Segment], query: Query, after: int, until: int) -> int | None:
    """The first position of the segments in (after, until] that matches, or None.

    Raises CorruptEvent if only a damaged event may match.
    """
    damaged: Segment | None = None
    for segment in segments:
        if segment.end > after:
            if not query.items:
                return max(after, segment.start) + 1 if max(after, segment.start) < until else None
            if segment.damage is not None:
                damaged = segment if damaged is None and segment.end <= until else damaged
                continue
            if len(query.items) == 1:
                found = segment.first(query.items[0], after, until)
            else:
                matching = [p for item in query.items if (p := segment.first(item, after, until)) is not None]
                found = min(matching, default=None)
            if found is not None:
                return found
    return None if damaged is None else damaged.raise_damage()


def refuse_damage(segments: Iterable[Segment], after: int, until: int) -> None:
    """Raises CorruptEvent if a damaged event of the segments is in (after, until]."""
    for segment in segments:
        if segment.damage is not None and after < segment.end <= until:
            segment.raise_damage()


def find_in_tail(
    segments: Iterable[Segment], query: Query, after: int, until: int, *, backwards: bool = False
) -> list[int]:
    """The positions of the segments in (after, until] that match a query with items, each once and in order.

    Positions of damaged events, too: reading them raises CorruptEvent.
    """
    found: list[int] = []
    for segment in segments:
        if segment.end > after and segment.start < until:
            found += _find_in(segment, query, after, until) if segment.damage is None else [segment.end]
    if backwards:
        found.reverse()
    return found


def _find_in(segment: Segment, query: Query, after: int, until: int) -> Sequence[int]:
    if len(query.items) == 1 and (query.items[0].tags or len(query.items[0].types) == 1):
        return segment.find(query.items[0], after, until)
    if len(query.items) > segment.end - segment.start and all(item.tags for item in query.items):
        matches = Matcher(query).matches
        return [place for place, type, tags in segment.events(after, until) if tags and matches(type, list(tags))]
    return sorted({place for item in query.items for place in segment.find(item, after, until)})


def other_spellings(segments: Iterable[Segment], tag: str) -> list[str]:
    """Tags of the segments that are the same moment as a tag in UTC, in other time zones."""
    return [name for segment in segments for name in segment.moments.get(tag, ())]


def tag_stretch(segments: Iterable[Segment], tag: str, until: int) -> Stretch | None:
    """How often events up to `until` of the segments carry a tag; None if none does."""
    return _stretch([p for segment in segments for p in _between(segment.of_tag(tag), 0, until)])


def type_stretch(segments: Iterable[Segment], type: str, until: int) -> Stretch | None:
    """How many events up to `until` of the segments have a type; None if none has."""
    return _stretch([p for segment in segments for p in _between(segment.by_type.get(type, ()), 0, until)])


def _is_whole(segment: Segment) -> bool:
    return segment.damage is None


def _at(error: CorruptEvent, position: int) -> CorruptEvent:
    """The error with the position of its event, which is not known of a text that is not valid UTF-8."""
    return CorruptEvent(error.what, error.remedy, **{**error.fields, "position": position})


def _stretch(positions: Sequence[int]) -> Stretch | None:
    return Stretch(len(positions), positions[0], positions[-1]) if positions else None


def _first(positions: Sequence[int], after: int, until: int) -> int | None:
    index = bisect_right(positions, after)
    return positions[index] if index < len(positions) and positions[index] <= until else None


def _between(positions: Sequence[int], after: int, until: int) -> Sequence[int]:
    return positions[bisect_right(positions, after) : bisect_right(positions, until)]
