"""Inline read models: folded in the transaction that appends their events, by a projector that an engine calls.

Knows: definitions, rows in memory, what to undo when a request is refused. Does not know: how a transaction begins or
ends (the engine does), how a read model is registered (inline_admin.py does), threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from eventfold.core.envelope import StoredEvent
from eventfold.core.registry import Registry
from eventfold.core.tally import EMPTY_TALLY, MARK_EVERY_EVENTS, tally
from eventfold.errors import CursorMismatch, EventfoldError, InlineFailed, LeaseLost, UnknownProjection
from eventfold.ports.engine import Engine
from eventfold.ports.inline import InlineRegistration, StaleRows
from eventfold.ports.target import (
    Checkpoint,
    CheckpointChanged,
    CheckpointUpdate,
    InlineTarget,
    InlineTargetTransaction,
    PartitionKey,
)
from eventfold.projections.definition import ProjectionDefinition
from eventfold.projections.fold import HandlerDispatch, Key, RowCache, Timing, keys_in
from eventfold.projections.page import MAX_CACHED_ROWS, DecodedEvent, HandlerFailed, PageDecoder

SAVEPOINT, RELEASE, UNDO = (f"{word} eventfold_inline" for word in ("SAVEPOINT", "RELEASE", "ROLLBACK TO"))


def _no_clock() -> float:
    """Return 0: a dummy clock for callers that do not use timings."""
    return 0.0


class InlineRowCache(RowCache):
    """Keyed rows in memory from which the last request can be undone."""

    def __init__(
        self, definition: ProjectionDefinition, host: InlineTargetTransaction, partition_key: PartitionKey
    ) -> None:
        super().__init__(definition, host, partition_key, fresh=False)
        self._before: dict[Key, tuple[Any, ...] | None] = {}

    def begin(self, joined: InlineTargetTransaction) -> None:
        """Begin another transaction, from which rows are loaded."""
        self._target = joined
        if len(self._cache) > MAX_CACHED_ROWS:
            self._cache.clear()

    def fold_request(self, items: Sequence[DecodedEvent]) -> None:
        """Fold a request's events, in memory. Raises HandlerFailed; after that, call `undo`."""
        self._before.clear()
        keys, cache, pack = keys_in(items), self._cache, self._of.pack
        missing = {key: None for key in keys if key not in cache}
        self._fetch(missing, missing)
        for key in missing:
            cache.setdefault(key)
        try:
            self._before = {key: None if cache[key] is None else pack(cache[key]) for key in keys}
        except (TypeError, ValueError) as error:  # an earlier request of this transaction left an invalid row
            raise HandlerFailed(None, error, "evolve") from error
        shared = not self._touched.keys().isdisjoint(keys)
        self._touched.update(keys)
        try:
            self._evolve(items)
            remaining = [key for key in keys if cache[key] is not None]
            self.refuse_other_keys(remaining, [cache[key] for key in remaining])
        except HandlerFailed as failed:
            if shared:  # an earlier request may have left an invalid value in the row, which is not written yet
                raise HandlerFailed(None, failed.error, failed.handler) from failed.error
            raise

    def undo(self) -> None:
        """Restore the rows as they were before the last `fold_request`."""
        for key, packed in self._before.items():
            self._cache[key] = None if packed is None else self._of.unpack(packed)
        self._before.clear()

    def write_now(self, tx: InlineTargetTransaction) -> None:
        """Write the rows that were folded since the last write. Raises HandlerFailed."""
        try:
            self.write(tx)
        finally:
            self._touched.clear()


class InlineModel:
    """The state of one read model that this process keeps between appends.

    `incarnation`: the generation and the id of its registration, which identify its rows.
    """

    def __init__(self, definition: ProjectionDefinition, incarnation: str, registry: Registry) -> None:
        self.definition, self.incarnation = definition, incarnation
        self.partition_key = PartitionKey(definition.name, int(incarnation.partition(" ")[0]))
        self.types = frozenset(types_of(definition))
        self.checkpoint: Checkpoint | None = None
        self._decoder = PageDecoder(definition, registry, 0, 1)
        self._handlers = HandlerDispatch(definition)
        self._rows: InlineRowCache | None = None
        self._sum = self._last_sum = EMPTY_TALLY

    def begin(self, joined: InlineTargetTransaction, *, warm: bool) -> None:
        """Begin a transaction. `warm`: this process made the last append, in this epoch, so its state is still valid.

        Raises UnknownProjection where the rows were dropped.
        """
        self.joined = joined
        self._sum = EMPTY_TALLY
        if not warm or self.checkpoint is None:
            before, self.checkpoint = self.checkpoint, joined.look()
            if self.checkpoint is None:
                raise UnknownProjection(
                    f"The rows of {self.definition.name}, which every append updates (inline), do not exist any more.",
                    f"Remove it (eventfold projections remove STORE {self.definition.name}), then register it again.",
                    projection=self.definition.name,
                )
            if before is None or (before.token, before.revision) != (self.checkpoint.token, self.checkpoint.revision):
                self._rows = None
        if self.definition.kind == "rows":
            if self._rows is None:
                self._rows = InlineRowCache(self.definition, joined, self.partition_key)
            self._rows.begin(joined)

    def fold(self, events: list[StoredEvent], at_once: bool) -> None:
        """Fold events of this read model. Raises HandlerFailed, with an index into `events`; after that, call `undo`.

        `at_once`: write the rows now, not at the end of the transaction.
        """
        self._last_sum = self._sum
        items = self._decoder.items(events, {})
        if self._rows is not None:
            self._rows.fold_request(items)
            if at_once:
                self._rows.write_now(self.joined)
        else:
            self._handlers.handle(items, self.joined, Timing(), _no_clock)
        self._sum += tally(events)

    def undo(self) -> None:
        """Restore the state before the last `fold`. The caller rolls back what that has written."""
        self._sum = self._last_sum
        if self._rows is not None:
            self._rows.undo()

    def write(self, last: StoredEvent, epoch: int) -> None:
        """Write rows and checkpoint. Raises HandlerFailed; StaleRows if another process changed the checkpoint."""
        checkpoint = self.checkpoint
        assert checkpoint is not None
        if not self._sum.count:
            return
        if self._rows is not None:
            self._rows.write_now(self.joined)
        step = CheckpointUpdate(
            position=last.position,
            event_id=last.id.hex(),
            epoch=epoch,
            seen=checkpoint.seen + self._sum,
            handled=checkpoint.handled + self._sum,
            mark=last.position // MARK_EVERY_EVENTS != checkpoint.position // MARK_EVERY_EVENTS,
            stats=checkpoint.stats,
            at=last.time,
        )
        try:
            self.checkpoint = self.joined.advance(checkpoint, step)
        except (CheckpointChanged, LeaseLost) as error:
            raise StaleRows from error
        self._sum = EMPTY_TALLY

    def forget(self) -> None:
        """Drop the state in memory, which may differ from the database."""
        self.checkpoint, self._rows = None, None


class InlineBatch:
    """The inline read models of one transaction of an engine. See ports.inline.InlineTransaction."""

    def __init__(self, owner: LocalInlineProjector | None, models: Sequence[InlineModel], epoch: int) -> None:
        self.types = frozenset[str]().union(*(each.types for each in models))
        self._owner, self._models, self._epoch = owner, models, epoch
        self._last: StoredEvent | None = None
        self._has_folded = False

    def fold(self, events: Sequence[StoredEvent], at_once: bool = False) -> EventfoldError | None:
        """See the port."""
        concerned: list[tuple[InlineModel, list[StoredEvent]]] = []
        for each in self._models:
            own_events = [event for event in events if event.type in each.types]
            if own_events:
                concerned.append((each, own_events))
        if not concerned:
            return None
        self._has_folded = True
        tx = concerned[0][0].joined
        saves = at_once or any(each.definition.kind == "sql" for each, _ in concerned)
        if saves:
            tx.execute(SAVEPOINT)
        for number, (each, own_events) in enumerate(concerned):
            try:
                each.fold(own_events, at_once)
            except HandlerFailed as failed:
                if saves:
                    _undo(tx, failed)
                for earlier, _ in concerned[: number + 1]:
                    earlier.undo()
                error = inline_failed_error(each.definition, failed, own_events)
                if failed.index is None and not at_once:
                    raise error from failed.error
                return error
        if saves:
            tx.execute(RELEASE)
        self._last = events[-1]
        return None

    def write(self) -> None:
        """See the port."""
        if self._last is None:
            return
        for each in self._models:
            try:
                each.write(self._last, self._epoch)
            except HandlerFailed as failed:
                raise inline_failed_error(each.definition, failed, ()) from failed.error

    def end(self, head: int | None) -> None:
        """See the port."""
        if head is None and self._has_folded:
            for each in self._models:
                each.forget()
        if head is not None and self._owner is not None:
            self._owner.head, self._owner.epoch = head, self._epoch


class LocalInlineProjector:
    """The inline read models whose code this process has. See ports.inline.InlineProjector."""

    def __init__(self, engine: Engine, registry: Registry, host: InlineTarget) -> None:
        self.codes: dict[str, str] = {}
        self.head = self.epoch = -1  # after this process's last commit
        self._engine, self._registry, self._host = engine, registry, host
        self._definitions: dict[str, ProjectionDefinition] = {}
        self._models: dict[str, InlineModel] = {}

    def add(self, definition: ProjectionDefinition) -> None:
        """Add the code of a read model."""
        self._definitions[definition.name] = definition
        self.codes[definition.name] = definition.fingerprint

    def forget(self) -> None:
        """See the port."""
        self.head = -1
        for model in self._models.values():
            model.forget()

    def begin(self, connection: Any, head: int, inlined: Sequence[InlineRegistration]) -> InlineBatch:
        """See the port."""
        models: list[InlineModel] = []
        epoch = self._engine.epoch
        warm = self.head == head and self.epoch == epoch
        for each in inlined:
            if self.codes.get(each.name) != each.code:
                continue  # the engine refuses its events
            model = self._models.get(each.name)
            if model is None or model.incarnation != each.incarnation:
                model = self._models[each.name] = InlineModel(
                    self._definitions[each.name], each.incarnation, self._registry
                )
            model.begin(self._host.joined(connection, model.partition_key), warm=warm)
            refuse_lost_history(model, head)
            models.append(model)
        return InlineBatch(self, models, epoch)


def types_of(definition: ProjectionDefinition) -> tuple[str, ...]:
    """Return the names of the event types that a projection handles; empty if it handles all."""
    return tuple(name for item in definition.query.items for name in item.types)


def refuse_lost_history(model: InlineModel, head: int) -> None:
    """Raise CursorMismatch where the rows are beyond the log's head, so that they are of another history."""
    checkpoint = model.checkpoint
    if checkpoint is not None and checkpoint.position > head:
        raise CursorMismatch(
            f"{checkpoint.place.name} is at position {checkpoint.position}, but the log ends at {head}.",
            f"Remove it (eventfold projections remove STORE {checkpoint.place.name}), then register it again: it is "
            "rebuilt.",
            position=checkpoint.position,
        )


def inline_failed_error(
    definition: ProjectionDefinition, failed: HandlerFailed, events: Sequence[StoredEvent]
) -> InlineFailed:
    """Return the error for an append that was refused; the error of user code is its cause."""
    error = failed.error
    type = events[failed.index or 0].type if events else ""
    of = f" of {type}" if type else ""
    refusal = InlineFailed(
        f"{definition.name}, which every append{of} updates (inline), failed in {failed.handler}: "
        f"{error.__class__.__name__}: {str(error)[:2_000].rstrip('.')}.",
        "Nothing of this append was written: change its events, or fix that code and restart the process.",
        projection=definition.name,
        handler=failed.handler,
        type=type,
    )
    refusal.__cause__ = error
    return refusal


def _undo(tx: InlineTargetTransaction, failed: HandlerFailed) -> None:
    try:
        tx.execute(UNDO)
        tx.execute(RELEASE)
    except Exception as error:  # the whole transaction was rolled back, because of the handler's error
        raise failed.error from error


def group_by_append(events: Sequence[StoredEvent]) -> Iterator[list[StoredEvent]]:
    """Yield the events of each append as a list."""
    for _, own in groupby(events, key=lambda event: event.first):
        yield list(own)
