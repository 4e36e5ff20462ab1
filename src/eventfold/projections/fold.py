"""Folds a page of decoded events: into rows in memory, or by the handlers of a class.

Knows: definitions, rows in memory, how long each handler takes, which event an error belongs to. Does not know: clocks
(one is a parameter), checkpoints, leases, what happens after a failure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import filterfalse
from operator import attrgetter
from typing import Any, NamedTuple, Protocol, cast

import msgspec

from eventfold.core.event import Recorded
from eventfold.core.table import Table, generation_table
from eventfold.core.unstorable import refuse_moments, refuse_other_types, unstorable_error
from eventfold.errors import EventfoldError, InvalidProjection
from eventfold.ports.target import PartitionKey, RowRefused, TargetTransaction
from eventfold.projections.definition import Handler, Key, ProjectionDefinition
from eventfold.projections.page import (
    MAX_CACHED_ROWS,
    ColumnarPage,
    DecodedEvent,
    HandlerFailed,
    key_changed_error,
    result_refused,
)

MIN_EVIDENCE_ROWS = 500  # as many keys without a row, in one page, are evidence that later keys have none either
EXISTENCE_MASK = (1 << 23) - 1  # bits of a key's hash, by which rows are known that cannot exist yet
Clock = Callable[[], float]


class RowLoader(Protocol):
    """An object that loads rows: a target, or its transaction."""

    def load(self, table: Table, keys: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """See Target.load."""
        ...


class InsertingTransaction(Protocol):
    """A transaction of a target with `inserts_new_rows`: see Target."""

    def insert(self, table: Table, rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows. Raises RowRefused if one with its key exists; the transaction has to be rolled back then."""
        ...


class Timing:
    """The time that each handler spent on a page, in seconds, and the number of its events."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.events: dict[str, int] = {}

    def add(self, handler: str, seconds: float, events: int) -> None:
        """Add the seconds that a handler took for a number of events."""
        self.spent[handler] = self.spent.get(handler, 0.0) + seconds
        self.events[handler] = self.events.get(handler, 0) + events


class Throughput:
    """The throughput of one worker: an exponential average over its pages (0.7 of the old value, 0.3 of the new)."""

    def __init__(self) -> None:
        self._rate = 0.0
        self._last_stats = "{}"
        self._slowest: dict[str, float] = {}

    def updated(self, timing: Timing, events: int, seconds: float) -> str:
        """Add a page; return the throughput as JSON, as the checkpoint stores it: rate, slowest, micros."""
        if not events:
            return self._last_stats  # a page without events of this partition says nothing about its throughput
        if seconds > 0:
            self._rate = events / seconds if not self._rate else 0.7 * self._rate + 0.3 * events / seconds
        for name, spent in timing.spent.items():
            self._slowest[name] = 1e6 * spent / max(1, timing.events[name])
        slowest = max(self._slowest, key=self._slowest.__getitem__, default="")
        stats = {"rate": round(self._rate), "slowest": slowest, "micros": round(self._slowest.get(slowest, 0.0), 1)}
        self._last_stats = msgspec.json.encode(stats).decode()
        return self._last_stats


class RowsExist(Exception):
    """The database refused rows that were inserted as new ones: roll back, call `stop_assuming`, and fold again."""


class RowChanges(NamedTuple):
    """Rows as they are stored, the keys of rows to delete, and the rows that were packed, for error messages.

    `are_assumed`: the rows are assumed to be new, and the database has to refuse any that exists.
    """

    packed: Sequence[tuple[Any, ...]]
    deleted: Sequence[tuple[Any, ...]]
    rows: list[Any]
    are_assumed: bool = False


class RowCache:
    """Keyed rows, folded in memory. They stay in memory between pages, since only this worker writes them.

    Where each event has had a row of its own so far, further keys are assumed to be new: their rows are not looked up,
    but inserted by a statement that fails if one exists. Then nothing was written, and nothing is assumed any more.
    """

    def __init__(
        self,
        definition: ProjectionDefinition,
        target: RowLoader,
        partition_key: PartitionKey,
        fresh: bool,
        catches: type[BaseException] = Exception,
    ) -> None:
        assert definition.rows is not None
        self._definition, self._target, self._of, self._catches = definition, target, definition.rows, catches
        table = definition.rows.table
        self.table = generation_table(table, partition_key.generation)
        self._moments = "moment" in map(attrgetter("kind"), table.columns)
        self._cache: dict[tuple[Any, ...], Any] = {}
        self._is_complete = fresh  # a row that is not in memory does not exist
        self._may_exist: bytearray | None = None  # by hash of the key, 1 if a row may exist: others are not loaded
        self._may_assume = getattr(target, "inserts_new_rows", False) and not definition.keeps and not definition.watch
        self._assumes_new = False  # keys that are not in memory have no row
        self._are_assumed = False  # the rows that were folded last are all assumed to be new
        self._had_own_rows = fresh  # every event so far was the only one of its key
        self._touched: dict[tuple[Any, ...], None] = {}

    def forget(self, whole: bool = False) -> None:
        """Drop all rows in memory, which may differ from the table. `whole`: the table is empty."""
        self._cache.clear()
        self._touched = {}
        self._is_complete, self._may_exist = whole, None
        self._assumes_new, self._are_assumed, self._had_own_rows = False, False, whole

    def stop_assuming(self) -> None:
        """Drop all rows in memory, and look up every row from now on."""
        self._may_assume = False
        self.forget()

    def fold(self, items: Sequence[DecodedEvent], timing: Timing, clock: Clock, *, each: bool = False) -> None:
        """Fold events, in memory. Raises HandlerFailed; after that, call `forget` first.

        `each`: check a row's key after every event, so that HandlerFailed names the event that changed it.
        """
        self._touched = keys_in(items)
        new = self._load(self._touched, len(self._touched) == len(items))
        began = clock()
        self._evolve(items, each, new)
        timing.add("evolve", clock() - began, len(items))

    def _evolve(self, items: Sequence[DecodedEvent], each: bool = False, new: Collection[Key] | None = None) -> None:
        if isinstance(items, ColumnarPage) and not each:
            items.evolve(self._definition, self._cache, self._catches, new)
        else:
            self._one_by_one(items, each)

    def _one_by_one(self, items: Sequence[DecodedEvent], each: bool) -> None:
        definition, cache = self._definition, self._cache
        cls, recorded, keeps = definition.cls, definition.recorded, definition.keeps
        index = 0
        try:
            for index, item in enumerate(items):  # noqa: B007
                for event, keys in item.parts:
                    for key in keys:
                        row = cache.get(key)
                        if row is None:
                            row = cache[key] = cls(*key)
                        done = row.evolve(event, Recorded(item.stored, event)) if recorded else row.evolve(event)
                        if done is not None:
                            raise result_refused(cls)
                        if keeps and not row.keep():
                            cache[key] = None
                        elif each and self._of.key_of(row) != key:
                            raise key_changed_error(definition, key, row)
        except self._catches as error:
            raise HandlerFailed(index, error, "evolve") from error

    def _load(self, keys: dict[Key, None], are_single: bool) -> Collection[Key]:
        """Load the rows of these keys that are not in memory. Returns the keys that have no row.

        `are_single`: each of them is the key of one event.
        """
        cache, self._are_assumed = self._cache, False
        has_rows = not cache.keys().isdisjoint(keys)
        missing = dict.fromkeys(filterfalse(cache.__contains__, keys)) if has_rows else keys
        are_single &= not has_rows
        self._had_own_rows &= are_single
        if not missing:
            return missing
        if len(cache) + len(missing) > MAX_CACHED_ROWS:
            if self._is_complete:
                self._is_complete, self._assumes_new = False, self._may_assume and self._had_own_rows
                if not self._assumes_new:
                    self._may_exist = bytearray(EXISTENCE_MASK + 1 >> 3)
                    _existing(self._may_exist, cache)
            cache.clear()
            missing = keys
        if self._assumes_new and are_single:
            self._are_assumed = True
            return missing
        to_load: Iterable[Key] = () if self._is_complete else missing
        if self._may_exist is not None:
            to_load = _existing(self._may_exist, missing)
        if self._fetch(to_load, missing):
            return list(filterfalse(cache.__contains__, missing))
        if to_load is missing and are_single and len(missing) >= MIN_EVIDENCE_ROWS:
            self._assumes_new = self._may_assume
        return missing

    def _fetch(self, to_load: Iterable[Key], missing: dict[Key, None]) -> bool:
        """Load those rows of `to_load` that exist, of the keys `missing`. Returns whether there are any."""
        loaded = list[Any]()
        if to_load:
            columns = self._of.table.columns
            keys = self._packed(self._of.pack_keys, to_load, "key")
            try:
                rows = self._target.load(self.table, keys)
            except (RowRefused, TypeError, ValueError, OverflowError) as error:
                raise HandlerFailed(
                    None, unstorable_error(self._definition.name, columns, keys, _cause(error)), "key"
                ) from error
            try:
                loaded = self._of.unpack_all(rows)
            except InvalidProjection as error:  # the class's own check refused the row
                raise HandlerFailed(None, error, "evolve") from error
            found = self._of.keys_of(loaded)
            if not all(map(missing.__contains__, found)):
                other = next(filterfalse(missing.__contains__, found))
                raise HandlerFailed(None, self._wrong_types_error(other), "key")
            self._cache.update(zip(found, loaded, strict=True))
        return bool(loaded)

    def _wrong_types_error(self, key: Any) -> EventfoldError:
        return InvalidProjection(
            f"{self._definition.cls.__name__}.key returned values of other types than its fields have: "
            f"the table has {key!r}.",
            "Return values of exactly the types that the key's fields declare.",
        )

    def touched(self) -> Iterable[tuple[Key, Any]]:
        """Iterate over the keys of the events folded last, each with its row; None if the row is to be deleted."""
        return ((key, self._cache[key]) for key in self._touched)

    def write(self, tx: TargetTransaction, changes: RowChanges | None = None) -> None:
        """Write `changes`, by default those made so far. Raises HandlerFailed where the database refuses a row.

        Also where a row has another key.
        """
        changed = self.changes() if changes is None else changes
        try:
            if changed.are_assumed:
                return self._insert(tx, changed)
            tx.upsert(self.table, changed.packed)
            tx.delete(self.table, changed.deleted)
        except (RowRefused, TypeError, ValueError, OverflowError) as error:
            name, columns, values = self._definition.name, self._of.table.columns, map(self._values, changed.rows)
            raise HandlerFailed(None, unstorable_error(name, columns, values, _cause(error)), "evolve") from error

    def _insert(self, tx: TargetTransaction, changed: RowChanges) -> None:
        """Write rows that are assumed to be new. Raises RowsExist if one exists, or is refused for another reason."""
        try:
            cast("InsertingTransaction", tx).insert(self.table, changed.packed)
        except RowRefused as error:
            raise RowsExist from error

    def changes(self) -> RowChanges:
        """Return the changes made so far, ready to be written, whatever is folded or forgotten afterwards.

        Raises HandlerFailed where a row has another key, or a value that is not of its field's type.
        """
        cache, touched = self._cache, self._touched
        deleted = [key for key in touched if cache[key] is None] if self._definition.keeps else []
        remaining = list(filterfalse(set(deleted).__contains__, touched) if deleted else touched)
        rows = list(map(cache.__getitem__, remaining))
        self.refuse_other_keys(remaining, rows)
        packed = self._packed(self._of.pack_all, rows, "evolve")
        return RowChanges(packed, self._packed(self._of.pack_keys, deleted, "key"), rows, self._are_assumed)

    def refuse_other_keys(self, keys: list[Key], rows: list[Any]) -> None:
        """Raise HandlerFailed where evolve changed the key of a row."""
        actual_keys = self._of.keys_of(rows)
        if actual_keys != keys:
            key, row = next((k, r) for k, r, f in zip(keys, rows, actual_keys, strict=True) if f != k)
            error = key_changed_error(self._definition, key, row)
            raise HandlerFailed(None, error, "evolve") from error

    def _packed(
        self, pack: Callable[[Iterable[Any]], Sequence[tuple[Any, ...]]], values: Iterable[Any], handler: str
    ) -> Sequence[tuple[Any, ...]]:
        """Return rows or keys as they are stored. Raises HandlerFailed where a value is not of its field's type."""
        every = list(values)
        try:
            packed = pack(every)
            refuse_other_types(self._of.table.columns, packed)
            if self._moments:
                refuse_moments(self._of.table.columns, packed)
            return packed
        except Exception as error:
            columns = self._of.table.columns
            raise HandlerFailed(
                None, unstorable_error(self._definition.name, columns, map(self._values, every), error), handler
            ) from error

    def _values(self, each: Any) -> Sequence[Any]:
        """Return the values of a row or a key, as user code set them."""
        if isinstance(each, tuple):
            return cast("Key", each)
        return [getattr(each, column.name) for column in self._of.table.columns]


def _cause(error: Exception) -> Exception:
    """Return the database's own error that a RowRefused was raised from; else the error itself."""
    cause = error.__cause__
    return cause if isinstance(error, RowRefused) and isinstance(cause, Exception) else error


def _existing(may_exist: bytearray, keys: Collection[Key]) -> list[Key]:
    """Return the keys whose rows may exist; mark the rows of all keys as existing."""
    found = list[Key]()
    for key, slot in zip(keys, [hash(key) & EXISTENCE_MASK for key in keys], strict=True):
        byte, bit = may_exist[slot >> 3], 1 << (slot & 7)
        if byte & bit:
            found.append(key)
        else:
            may_exist[slot >> 3] = byte | bit
    return found


def keys_in(items: Sequence[DecodedEvent]) -> dict[Key, None]:
    """Return the distinct keys of some items, in order."""
    return dict.fromkeys(items.keys if isinstance(items, ColumnarPage) else [k for item in items for k in item.keys])


class HandlerDispatch:
    """Calls the handlers of a class. `catches`: the exceptions that count as failures of user code."""

    def __init__(self, definition: ProjectionDefinition, catches: type[BaseException] = Exception) -> None:
        self._definition, self._catches = definition, catches
        self._by_type: dict[type, tuple[Handler, ...]] = {}
        self._batches: tuple[Handler, ...] = tuple(filter(attrgetter("batch"), definition.handlers))

    def of(self, event: Any) -> tuple[Handler, ...]:
        """Return the handlers that take single events of this event's class."""
        kind = cast("type[Any]", type(event))
        handlers = self._by_type.get(kind)
        if handlers is None:
            handlers = tuple(h for h in self._definition.handlers if isinstance(event, h.events) and not h.batch)
            self._by_type[kind] = handlers
        return handlers

    def handle(
        self,
        items: Sequence[DecodedEvent],
        tx: TargetTransaction | None,
        timing: Timing,
        clock: Clock,
        patience: float = 1e9,
    ) -> int:
        """Call the handlers with events; return how many items were handled.

        That is all, unless another writer waits for the database or it took longer than `patience` seconds; it ends
        after a whole append. Raises HandlerFailed.
        """
        rest: tuple[Any, ...] = () if tx is None else (tx,)
        first = clock()
        for index, item in enumerate(items):
            for event, _ in item.parts:
                for handler in self.of(event):
                    began = clock()
                    try:
                        handler.call(Recorded(item.stored, event) if handler.recorded else event, *rest)
                    except self._catches as error:
                        raise HandlerFailed(index, error, handler.name) from error
                    timing.add(handler.name, clock() - began, 1)
            further = items[index + 1] if index + 1 < len(items) else None
            if tx is not None and further is not None and further.stored.first != item.stored.first:
                if not self._batches and (tx.should_yield() or clock() - first > patience):
                    return index + 1
        for handler in self._batches:
            batch = [(i.stored, e) for i in items for e, _ in i.parts if isinstance(e, handler.events)]
            if batch:
                arguments = [Recorded(stored, event) if handler.recorded else event for stored, event in batch]
                began = clock()
                try:
                    handler.call(arguments, *rest)
                except self._catches as error:
                    raise HandlerFailed(None if len(items) > 1 else 0, error, handler.name) from error
                timing.add(handler.name, clock() - began, len(batch))
        return len(items)
