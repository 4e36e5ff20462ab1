"""Loading rows of a source as events that have their ids from the source, and the count of what became of each row.

Knows: appends, receipts, ids. Does not know: any source, any event class.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import eventfold as ef
from eventfold.core.envelope import MAX_EVENTS_PER_APPEND
from eventfold.errors import EventIdReused

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def id_from(occurred: datetime, *parts: object) -> UUID:
    """Return an event id made from parts of the source: a UUIDv8 that begins with the milliseconds of a moment.

    The same parts always make the same id, so an event that is loaded twice is recognised. Before 1970 counts as 1970.
    """
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    millis = max(0, int((occurred - EPOCH).total_seconds() * 1000))
    head = bytes((0x80 | digest[0] & 0x0F, digest[1], 0x80 | digest[2] & 0x3F))
    return UUID(bytes=millis.to_bytes(6) + head + digest[3:10])


class LoadCount:
    """What became of the rows of a source: read = loaded + repeated + rejected, by reason; and the events written.

    A row is loaded when it becomes a part of an event that is written now, repeated when that event was in the log
    before (from an earlier run, or from an earlier place of the same source), rejected when the loader does not use it.
    `events` counts the events written, `made` those of them that the example generated and no row stands for.
    """

    def __init__(self) -> None:
        self.read = self.loaded = self.repeated = self.events = self.made = 0
        self.rejected: Counter[str] = Counter()

    def reject(self, reason: str, rows: int = 1) -> None:
        """Count rows that are not loaded, under a reason in words."""
        if rows:
            self.rejected[reason] += rows

    @property
    def is_complete(self) -> bool:
        """Whether every row that was read is accounted for."""
        return self.read == self.loaded + self.repeated + sum(self.rejected.values())

    def lines(self) -> list[str]:
        """The count in words: one line, and one for each reason of a rejection."""
        rejected = sum(self.rejected.values())
        sign = "=" if self.is_complete else "≠"
        first = f"{self.read:,} rows read {sign} {self.loaded:,} loaded + {self.repeated:,} repeated"
        made = f" (of these {self.made:,} generated)" if self.made else ""
        found = [f"{first} + {rejected:,} rejected", f"{self.events:,} events written{made}"]
        return found + [f"rejected: {rows:,} {reason}" for reason, rows in self.rejected.most_common()]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def write(
    store: ef.Store,
    drafts: Iterable[tuple[ef.Draft[Any], int] | None],
    count: LoadCount,
    *,
    batch: int = MAX_EVENTS_PER_APPEND,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Append events that have ids of their own, each given with the number of rows that it stands for (0: generated).

    None among them ends an append: a moment of the log is a whole append, so what is asked as of an event should be
    asked of one that ends its append. Events that are in the log with equal content are counted as repeated and not
    written again, in whatever batches they were written before. `progress` is called after each batch with the number
    of events written or repeated. Raises EventIdReused if the log has other content under an id, and what `append`
    raises.
    """
    done = 0
    for taken in _batches(drafts, batch):
        try:
            receipt = store.append(*[draft for draft, _ in taken])
            _add(count, taken, receipt.repeated)
        except EventIdReused as reused:
            _write_rest(store, taken, count, reused)
        done += len(taken)
        if progress is not None:
            progress(done)


def _batches(
    drafts: Iterable[tuple[ef.Draft[Any], int] | None], size: int
) -> Iterator[list[tuple[ef.Draft[Any], int]]]:
    taken: list[tuple[ef.Draft[Any], int]] = []
    for each in drafts:
        if each is not None:
            taken.append(each)
        if taken and (each is None or len(taken) == size):
            yield taken
            taken = []
    if taken:
        yield taken


def _add(count: LoadCount, taken: list[tuple[ef.Draft[Any], int]], repeated: bool) -> None:
    rows = sum(rows for _, rows in taken)
    if repeated:
        count.repeated += rows
        return
    count.loaded += rows
    count.events += len(taken)
    count.made += sum(not rows for _, rows in taken)


def _write_rest(
    store: ef.Store, taken: list[tuple[ef.Draft[Any], int]], count: LoadCount, reused: EventIdReused
) -> None:
    """Append those of a batch that are not in the log. The others have to be equal to what is there."""
    rest: dict[UUID, tuple[ef.Draft[Any], int]] = {}
    repeats: list[tuple[ef.Draft[Any], int]] = []
    for draft, rows in taken:
        assert draft.id is not None, "events that are written here have ids from their source"
        found = store.event(draft.id)
        known = found.event if found is not None else rest[draft.id][0].event if draft.id in rest else None
        if known is None:
            rest[draft.id] = (draft, rows)
        elif known == draft.event and (found is None or draft.occurred in (None, found.occurred)):
            repeats.append((draft, rows))
        else:
            raise reused
    _add(count, repeats, True)
    if rest:
        store.append(*[draft for draft, _ in rest.values()])
        _add(count, list(rest.values()), False)
