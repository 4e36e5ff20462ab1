"""The log in memory: the reference that every engine is compared with, and the smallest example of the port.

Knows: lists and positions. Does not know: bytes on disk. Nothing survives the process.
"""

from __future__ import annotations

import secrets
import time as _time
from bisect import bisect_left, bisect_right
from collections import ChainMap
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, TypeVar

import msgspec

from eventfold.concurrency.wakeup import call_all
from eventfold.core.envelope import Receipt, StoredEvent, make_receipt
from eventfold.core.mutex import Mutex
from eventfold.core.query import ConditionClause, Item, Matcher, Query
from eventfold.core.snapshot import Snapshot
from eventfold.core.tags import in_utc, is_moment, tag_key
from eventfold.errors import EventfoldError, NotSupported, StoreNotFound
from eventfold.ports.messages import (
    PAGE_BYTES,
    AppendRequest,
    Capabilities,
    Head,
    Outcome,
    Page,
    Span,
    TagCount,
    TypeCount,
)
from eventfold.ports.refusals import (
    base_event_missing,
    conflict,
    epoch_ended,
    id_reused,
    import_gap,
    in_the_future,
    is_repeat,
    not_the_same_key,
    not_the_same_log,
)
from eventfold.ports.replicas import check_whole_appends, keys_of_repeats
from eventfold.ports.services import Judged, Services

Clock = Callable[[], int]
T = TypeVar("T")


def now_micros() -> int:
    """The current time: µs since 1970 UTC."""
    return _time.time_ns() // 1000


class MemoryEngine:
    """One log in the memory of this process. `MemoryEngine.named("x")` always returns the same log."""

    name = "memory"
    capabilities = Capabilities(blocks=False, durable=False, shared=False)
    default_target = "memory:"
    _named: ClassVar[dict[str, MemoryEngine]] = {}

    def __init__(self, clock: Clock = now_micros) -> None:
        self.store_id = secrets.token_hex(16)
        self.epoch = 1
        self._clock = clock
        self._mutex = Mutex()
        self._log: list[StoredEvent] = []
        self._complete_through = 0  # later events belong to an append that an exception interrupted
        self._ids: dict[bytes, int] = {}
        self._tags: dict[str, list[int]] = {}
        self._moments: dict[str, list[int]] = {}  # by tag, in UTC
        self._types: dict[str, list[int]] = {}
        self._requests: dict[str, Receipt] = {}
        self._watchers: list[Callable[[], None]] = []
        self._lock_owners: dict[str, str] = {}
        self._snapshots: dict[str, Snapshot] = {}

    @property
    def services(self) -> Services:
        """See the port. Built at each call: if they were stored, the engine would refer to itself."""
        return Services(
            lookups=self,
            snapshots=_Snapshots(self._mutex, self._snapshots),
            locks=_Locks(self._mutex, self._lock_owners),
            replication=self,
            replica=_Replica(self),
        )

    @classmethod
    def named(cls, name: str, create: bool = True, **options: Any) -> MemoryEngine:
        """A new log, or the process's log with this name.

        Raises StoreNotFound if it is missing and `create` is False.
        """
        if not create and name and name not in cls._named:
            raise StoreNotFound(
                f"There is no log memory:{name} in this process.", "Open it with create=True first, in this process."
            )
        return cls(**options) if not name else cls._named.setdefault(name, cls(**options))

    async def open(self) -> None:
        """See the port. There is nothing to open."""

    async def append_many(self, requests: Sequence[AppendRequest]) -> list[Outcome]:
        """See the port."""
        before = self._complete_through
        try:
            return self._run_locked(lambda: [self._append(request) for request in requests])
        finally:
            if self._complete_through > before:
                call_all(tuple(self._watchers))

    def _run_locked(self, work: Callable[[], T]) -> T:
        """Call `work` under the mutex, after any interrupted append was removed."""
        return self._mutex.run(self._run_on_complete_appends, work)

    def _run_on_complete_appends(self, work: Callable[[], T]) -> T:
        if len(self._log) > self._complete_through:
            self._remove_incomplete_append()
        return work()

    def _remove_incomplete_append(self) -> None:
        """Remove an interrupted append. If an exception ends this too, the next call repeats it."""
        while len(self._log) > self._complete_through:
            last = self._log[-1]
            if self._ids.get(last.id) == last.position:
                del self._ids[last.id]
            moments = tuple({in_utc(tag): None for tag in last.tag_set})
            for index, names in ((self._types, (last.type,)), (self._tags, last.tag_set), (self._moments, moments)):
                for name in names:
                    positions = index.get(name)
                    if positions and positions[-1] == last.position:
                        positions.pop()
                    if not positions:
                        index.pop(name, None)
            del self._log[-1]
        for key in [key for key, done in self._requests.items() if done.last > self._complete_through]:
            del self._requests[key]

    def _append(self, request: AppendRequest) -> Outcome:
        done = self._place(request, self._clock(), self._requests)
        self._complete_through = len(self._log)  # one assignment: from here on the append is complete
        return done

    def _place(self, request: AppendRequest, now: int, keys: MutableMapping[str, Receipt]) -> Outcome:
        """Judge a request and insert its events, whose append is not complete yet. `keys`: receipts by request key."""
        try:
            known = self._find_repeat(request, keys)
            if known is not None:
                return known
            if request.unless and request.epoch not in (None, self.epoch):
                return epoch_ended(request.unless[0], request.epoch, self.epoch)
            for number, clause in enumerate(request.unless):
                self._check_clause(clause, number)
        except EventfoldError as refusal:
            return refusal
        first, size = len(self._log) + 1, len(request.events)
        time = max(now, self._log[-1].time if self._log else 0)
        for offset, new in enumerate(request.events):
            self._insert(new.at(first + offset, time, offset, size))
        done = make_receipt(self.store_id, self.epoch, self._log[first - 1 :])
        if request.key is not None:
            keys[request.key] = done
        return done

    def _find_repeat(self, request: AppendRequest, keys: MutableMapping[str, Receipt]) -> Receipt | None:
        if request.key is not None and (earlier := keys.get(request.key)) is not None:
            return msgspec.structs.replace(earlier, repeated=True)
        at = [self._ids.get(event.id) for event in request.events]
        unique = len({event.id for event in request.events}) == len(at)
        if unique and all(position is None for position in at):
            return None
        stored = [None if position is None else self._log[position - 1] for position in at]
        if not unique or not is_repeat(request.events, stored):
            raise id_reused(request.events, at)
        done = make_receipt(self.store_id, self.epoch, [s for s in stored if s is not None])
        if request.key is not None:
            keys[request.key] = done
        return msgspec.structs.replace(done, repeated=True)

    def _check_clause(self, clause: ConditionClause, number: int) -> None:
        if clause.after > len(self._log):
            raise in_the_future(clause, len(self._log))
        after = clause.after
        if clause.after_event is not None:
            if clause.after_event not in self._ids:
                raise base_event_missing(clause, number)
            after = max(after, self._ids[clause.after_event])
        found = next(self._positions(clause.query, after, len(self._log)), None)
        if found is not None:
            raise conflict(clause, found, number)

    def _insert(self, stored: StoredEvent) -> None:
        self._log.append(stored)
        self._ids[stored.id] = stored.position
        self._types.setdefault(stored.type, []).append(stored.position)
        for tag in stored.tag_set:
            self._tags.setdefault(tag, []).append(stored.position)
            if is_moment(tag):
                self._moments.setdefault(in_utc(tag), []).append(stored.position)

    def _positions(self, query: Query, after: int, until: int, backwards: bool = False) -> Iterator[int]:
        """Matching positions in (after, until], in order: candidates of the smallest index, checked by `matches`."""
        if not query.items:
            yield from range(until, after, -1) if backwards else range(after + 1, until + 1)
            return
        narrow: set[int] = set()
        matches = Matcher(query).matches
        for item in query.items:
            for positions in self._candidates(item):
                low, high = bisect_right(positions, after), bisect_right(positions, until)
                narrow.update(positions[low:high])
        for position in sorted(narrow, reverse=backwards):
            event = self._log[position - 1]
            if matches(event.type, event.tag_set):
                yield position

    def _positions_of_tag(self, tag: str) -> list[int]:
        return self._moments.get(in_utc(tag), []) if is_moment(tag) else self._tags.get(tag, [])

    def _candidates(self, item: Item) -> list[list[int]]:
        if item.tags:
            return [min(map(self._positions_of_tag, item.tags), key=len)]
        return [self._types.get(name, []) for name in item.types]

    async def read(self, query: Query, span: Span) -> Page:
        """See the port."""
        return self._run_locked(lambda: self._read(query, span))

    def _read(self, query: Query, span: Span) -> Page:
        head = len(self._log)
        until = head if span.until is None else min(span.until, head)
        events: list[StoredEvent] = []
        size = 0
        for position in self._positions(query, span.after, until, span.backwards):
            event = self._log[position - 1]
            if not is_within_occurred(event, span):
                continue
            if (len(events) >= span.limit or size >= PAGE_BYTES) and not is_same_append(events[-1], event):
                edge = events[-1]
                return Page(events, edge.position, True)
            events.append(event)
            size += len(event.data) + len(event.metadata or b"")
        return Page(events, span.after + 1 if span.backwards else until, False)

    async def head(self) -> Head:
        """See the port."""
        return self._run_locked(self._head)

    def _head(self) -> Head:
        return Head(len(self._log), self._log[-1].time, self._log[-1].id) if self._log else Head(0, 0, b"")

    async def count(self, query: Query, after: int = 0, until: int | None = None) -> int:
        """See the port."""

        def counted() -> int:
            end = len(self._log) if until is None else min(until, len(self._log))
            return sum(1 for _ in self._positions(query, after, end))

        return self._run_locked(counted)

    async def position_at(self, time: int) -> int:
        """See the port."""
        return self._run_locked(lambda: bisect_right(self._log, time, key=lambda event: event.time))

    async def event_id(self, position: int) -> bytes | None:
        """See the port."""
        return self._run_locked(lambda: self._log[position - 1].id if 0 < position <= len(self._log) else None)

    async def boundary(self, position: int) -> int:
        """See the port."""
        return self._run_locked(lambda: self._log[position - 1].last if 0 < position <= len(self._log) else position)

    async def receipt_of(self, key: str) -> Receipt | None:
        """See the port."""
        return self._run_locked(lambda: self._requests.get(key))

    async def types(self) -> list[TypeCount]:
        """See the port."""
        return self._run_locked(
            lambda: [TypeCount(name, len(at), at[0], at[-1]) for name, at in sorted(self._types.items())]
        )

    async def tags(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[TagCount]:
        """See the port."""

        def counted() -> list[TagCount]:
            names = sorted(self._tags)
            start = max(bisect_left(names, prefix), bisect_right(names, after))
            found = [(name, self._tags[name]) for name in names[start : start + limit] if name.startswith(prefix)]
            return [TagCount(name, len(at), at[0], at[-1]) for name, at in found]

        return self._run_locked(counted)

    async def stats(self) -> dict[str, Any]:
        """See the port."""
        return {"engine": self.name, "events": len(self._log), "types": len(self._types), "tags": len(self._tags)}

    def watch(self, notify: Callable[[], None]) -> Callable[[], None]:
        """See the port."""
        self._watchers.append(notify)

        def stop() -> None:
            if notify in self._watchers:
                self._watchers.remove(notify)

        return stop

    async def close(self) -> None:
        """See the port. A named log stays in memory."""

    # Services: look-ups, replication

    async def position_of(self, id: bytes) -> int | None:
        """See services.Lookups."""
        return self._run_locked(lambda: self._ids.get(id))

    async def tag_keys(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[str]:
        """See services.Lookups."""

        def listed() -> list[str]:
            return sorted({key for tag in self._tags if tag.startswith(prefix) and (key := tag_key(tag)) > after})

        return self._run_locked(listed)[: max(0, limit)]

    async def tag_names(self, prefix: str = "", limit: int = 1000, after: str = "") -> list[str]:
        """See services.Lookups."""
        found = self._run_locked(lambda: [tag for tag in self._tags if tag.startswith(prefix) and tag > after])
        return sorted(found)[: max(0, limit)]

    async def counts(self, query: Query, bounds: Sequence[int]) -> list[int]:
        """See services.Lookups."""

        def counted() -> list[int]:
            ends = [min(bound, len(self._log)) for bound in bounds]
            return [sum(1 for _ in self._positions(query, low, high)) for low, high in pairwise(ends)]

        return self._run_locked(counted)

    async def keys(self, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        """See services.Replication."""

        def listed() -> list[tuple[str, int]]:
            names = sorted(name for name in self._requests if name > after)[:limit]
            return [(name, self._requests[name].first) for name in names]

        return self._run_locked(listed)

    async def import_events(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]] = ()) -> None:
        """See services.Replication."""
        self._run_locked(lambda: self._import(events, keys))
        call_all(tuple(self._watchers))

    def _import(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]]) -> None:
        if events and events[0].position != len(self._log) + 1:
            raise import_gap(len(self._log), events[0].position)
        for stored in events:
            self._insert(stored)
        for key, first in keys:
            size = self._log[first - 1].size
            self._requests[key] = make_receipt(self.store_id, self.epoch, self._log[first - 1 : first - 1 + size])
        self._complete_through = len(self._log)

    async def take_identity(self, store_id: str, epoch: int) -> None:
        """See services.Replication."""
        if self._log:
            raise import_gap(len(self._log), 1)
        self.store_id, self.epoch = store_id, epoch

    # Services: replica

    async def judge(self, requests: Sequence[AppendRequest], now: int) -> Judged:
        """See services.Replica."""
        return self._run_locked(lambda: self._judge(requests, now))

    def _judge(self, requests: Sequence[AppendRequest], now: int) -> Judged:
        """Append the requests, and remove them again. No one sees them: every call holds the mutex."""
        head, new_keys = self._head(), dict[str, Receipt]()
        keys = ChainMap(new_keys, self._requests)
        try:
            outcomes = [self._place(request, now, keys) for request in requests]
        finally:
            self._remove_incomplete_append()
        verdicts = [None if isinstance(each, Receipt) and not each.repeated else each for each in outcomes]
        return Judged(
            head=head,
            time=max(now, head.time),
            verdicts=verdicts,
            keys=keys_of_repeats(requests, verdicts, {key: done.first for key, done in new_keys.items()}),
        )

    async def import_missing(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]] = ()) -> None:
        """See `import_events` of services.Replica."""
        self._run_locked(lambda: self._import_missing(events, keys))
        call_all(tuple(self._watchers))

    def _import_missing(self, events: Sequence[StoredEvent], keys: Sequence[tuple[str, int]]) -> None:
        where = "memory:"
        head = len(self._log)
        check_whole_appends(events)
        if events and events[0].position > head + 1:
            raise import_gap(head, events[0].position)
        for event in events[: head + 1 - events[0].position] if events else ():
            if self._log[event.position - 1] != event:
                raise not_the_same_log(event.position, where)
        new = [event for event in events if event.position > head]
        starts = {event.position for event in new if event.offset == 0}
        for key, first in keys:
            is_start = first in starts or (0 < first <= head and self._log[first - 1].offset == 0)
            known = self._requests.get(key)
            if not is_start or (known is not None and known.first != first):
                raise not_the_same_key(key, first, where)
        self._import(new, [(key, first) for key, first in keys if key not in self._requests])


class _Replica:
    """See services.Replica."""

    def __init__(self, engine: MemoryEngine) -> None:
        self.judge, self.import_events = engine.judge, engine.import_missing

    async def copy_to(self, path: str) -> None:
        raise NotSupported(
            "A log in memory cannot be copied to a file.",
            "Keep the copy in a SQLite file.",
            engine=MemoryEngine.name,
            capability="replicas",
        )


class _Snapshots:
    """See services.Snapshots."""

    def __init__(self, mutex: Mutex, by_key: dict[str, Snapshot]) -> None:
        self._mutex, self._by_key = mutex, by_key

    async def get(self, key: str) -> Snapshot | None:
        return self._by_key.get(key)

    async def put(self, key: str, snapshot: Snapshot) -> None:
        self._by_key[key] = snapshot

    async def delete_prefix(self, prefix: str = "") -> int:
        return self._mutex.run(self._delete_prefix, prefix)

    def _delete_prefix(self, prefix: str) -> int:
        found = [key for key in self._by_key if key.startswith(prefix)]
        for key in found:
            del self._by_key[key]
        return len(found)


class _Locks:
    """See services.Locks. They hold within this process, like the log."""

    def __init__(self, mutex: Mutex, owners: dict[str, str]) -> None:
        self._mutex, self._owners = mutex, owners

    async def try_acquire(self, name: str, owner: str) -> str | None:
        return self._mutex.run(self._try_acquire, name, owner)

    def _try_acquire(self, name: str, owner: str) -> str | None:
        if name in self._owners:
            return self._owners[name]
        self._owners[name] = owner
        return None

    async def release(self, name: str) -> None:
        self._owners.pop(name, None)


def is_within_occurred(event: StoredEvent, span: Span) -> bool:
    """Whether the time at which an event occurred is within the bounds of a span."""
    moment = event.time if event.occurred is None else event.occurred
    return (span.occurred_since is None or moment >= span.occurred_since) and (
        span.occurred_until is None or moment <= span.occurred_until
    )


def is_same_append(a: StoredEvent, b: StoredEvent) -> bool:
    """Whether two events belong to the same append."""
    return a.first == b.first
