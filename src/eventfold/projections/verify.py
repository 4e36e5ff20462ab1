"""Verification: recounts the log and compares the ledger of a checkpoint with it.

Knows: tallies, marks, how to find a single missing event. Does not know: its callers, how results are shown.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Sequence

import msgspec

from eventfold.core.counted import count_of, each_of
from eventfold.core.envelope import StoredEvent
from eventfold.core.json_values import decode
from eventfold.core.query import Cursor, Query
from eventfold.core.tally import EMPTY_TALLY, MODULUS, Tally, event_hash, tally
from eventfold.errors import CursorMismatch
from eventfold.log.context import Log
from eventfold.log.cursors import verify
from eventfold.ports.integrity import Progress
from eventfold.ports.messages import Span
from eventfold.ports.target import INLINE, Checkpoint, ParkedEvent, Target
from eventfold.projections.definition import ProjectionDefinition
from eventfold.projections.failures import marks_of
from eventfold.projections.page import HandlerFailed, PageDecoder

PAGE = 5_000


class Flaw(msgspec.Struct, frozen=True):
    """Damage of the log: `what`, in one sentence; `position` of the event, if it concerns one."""

    what: str
    position: int | None = None


class LogProof(msgspec.Struct, frozen=True):
    """The result of the engine's own check of its log. `checked` is False where the engine has no such check."""

    engine: str
    events: int
    checked: bool
    flaws: tuple[Flaw, ...] = ()

    @property
    def proved(self) -> bool:
        """Whether no flaw was found; also True where the engine has no check."""
        return not self.flaws


async def prove_log(log: Log, progress: Progress) -> LogProof:
    """Have the engine compare the data that it stores twice. `progress(done, all)` in events."""
    maintenance = log.engine.services.maintenance
    events = (await log.engine.head()).position
    if maintenance is None:
        return LogProof(log.engine.name, events, False)
    problems = maintenance.check(progress)
    if isinstance(problems, AsyncIterable):
        problems_found = [each async for each in problems]
    else:
        problems_found = list(problems)
    return LogProof(log.engine.name, events, True, tuple(Flaw(each.what, each.position) for each in problems_found))


class Proof(msgspec.Struct, frozen=True):
    """The result for one checkpoint: numbers of events up to `position`.

    `counted` of those in the log, `handled`, `parked` and `skipped` of those that the projection has processed.

    `verdict` is one sentence. `place`: the positions (after, until] of the first difference, or of the one event if it
    can be found. `provable` is False for a previous generation, kept for a rollback, of history that this log does not
    have: it cannot be proved, and the rows that readers see are not affected.
    """

    name: str
    generation: int
    partition: int
    position: int
    counted: int
    handled: int
    parked: int
    skipped: int
    proved: bool
    verdict: str
    place: tuple[int, int] | None = None
    provable: bool = True

    @property
    def failed(self) -> bool:
        """Whether something that should be proved is not."""
        return self.provable and not self.proved


def unproved_error(name: str, error: Exception, checkpoint: Checkpoint | None = None) -> Proof:
    """Return the result for a checkpoint that could not be counted."""
    at = (checkpoint.place.generation, checkpoint.place.partition, checkpoint.position) if checkpoint else (0, 0, 0)
    return Proof(
        name, *at, 0, checkpoint.handled.count if checkpoint else 0, 0, 0, False, f"It cannot be counted here: {error}"
    )


async def prove(
    log: Log,
    target: Target,
    checkpoint: Checkpoint,
    definition: ProjectionDefinition | None,
    progress: Callable[[int], None] = lambda _position: None,
    *,
    for_rollback: bool = False,
) -> Proof:
    """Recount the log for one checkpoint. For one of several partitions its `definition` is needed, to find its events.

    `progress(position)` is called with the last position counted. `for_rollback`: the generation is not live.
    """
    key, entries = checkpoint.place, target.parked(checkpoint.place)
    due = [entry for entry in entries if entry.position <= checkpoint.position]
    parked = [entry for entry in due if entry.state != "skipped"]

    def result(counted: int, verdict: str, where: tuple[int, int] | None = None, good: bool = False) -> Proof:
        return Proof(
            *(
                key.name,
                key.generation,
                key.partition,
                checkpoint.position,
                counted,
                checkpoint.handled.count,
            ),
            *(len(parked), len(due) - len(parked), good, verdict, where),
        )

    try:
        await verify(log, Cursor(checkpoint.store, checkpoint.epoch, checkpoint.position, checkpoint.event_id))
    except CursorMismatch as error:
        if for_rollback and checkpoint.store == log.engine.store_id:
            return msgspec.structs.replace(result(0, _of_lost_history(checkpoint)), provable=False)
        return result(0, str(error), (checkpoint.position - 1, checkpoint.position))
    belongs = _belonging(log, checkpoint, definition, {entry.position: entry for entry in entries})
    if belongs is None:
        return result(
            0, "It has partitions, so its class is needed to find the events of each: name it as MODULE:CLASS."
        )
    query = decode(checkpoint.query, Query)
    (start, total), *marks = marks_of(target, key)
    after = start
    for position, seen in [*marks, (checkpoint.position, checkpoint.seen)]:
        counted = await _tally(log, query, after, position, belongs)
        progress(position)
        total += counted
        if total != seen:
            return result(total.count, *await _name(log, query, (after, position), total - seen, belongs))
        after = position
    rest = sum(event_hash(entry.position, bytes.fromhex(entry.event_id)) for entry in due)
    if checkpoint.handled + Tally(len(due), rest % MODULUS) != checkpoint.seen:
        return result(total.count, "Handled, parked and skipped events do not add up to those seen.", (start, after))
    if checkpoint.holder == INLINE and (left := await _left(log, target, checkpoint, query)):
        stretch = (checkpoint.position, (await log.engine.head()).position)
        return result(total.count, f"{left:,} later events are in the log, but no append has folded them.", stretch)
    return result(total.count, f"{each_of(total.count, 'event')} was processed exactly once.", good=True)


def _of_lost_history(checkpoint: Checkpoint) -> str:
    return (
        f"Kept for a rollback only, and not provable: it reached position {checkpoint.position:,} in epoch "
        f"{checkpoint.epoch}, in history that this log does not have. A later rebuild and switch drops it."
    )


async def _left(log: Log, target: Target, checkpoint: Checkpoint, query: Query) -> int:
    """Return how many events an inline read model lacks: 0, unless it is damaged.

    0 also where its checkpoint has moved meanwhile, since an append was made during the count.
    """
    count = await log.engine.count(query, checkpoint.position)
    now = target.checkpoint(checkpoint.place) or checkpoint
    return count if now.position == checkpoint.position else 0


def _belonging(
    log: Log, checkpoint: Checkpoint, definition: ProjectionDefinition | None, entries: dict[int, ParkedEvent]
) -> Callable[[Sequence[StoredEvent]], Sequence[StoredEvent]] | None:
    if checkpoint.partitions == 1:
        return lambda events: events
    if definition is None:
        return None
    decoder = PageDecoder(definition, log.registry, checkpoint.place.partition, checkpoint.partitions)

    def own(events: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
        try:
            return [item.stored for item in decoder.items(events, entries)]
        except HandlerFailed as failed:
            raise failed.error from None

    return own


async def _tally(
    log: Log, query: Query, after: int, until: int, belongs: Callable[[Sequence[StoredEvent]], Sequence[StoredEvent]]
) -> Tally:
    total = EMPTY_TALLY
    while after < until:
        page = await log.engine.read(query, Span(after=after, until=until, limit=PAGE))
        total += tally(belongs(page.events))
        after = page.scanned
        if not page.more:
            break
    return total


async def _name(
    log: Log,
    query: Query,
    stretch: tuple[int, int],
    off: Tally,
    belongs: Callable[[Sequence[StoredEvent]], Sequence[StoredEvent]],
) -> tuple[str, tuple[int, int]]:
    """Describe the difference in a range and return its positions: of one event, where the digests differ by one."""
    after, until = stretch
    digest = off.digest if off.count > 0 else -off.digest % MODULUS
    while after < until and abs(off.count) == 1:
        page = await log.engine.read(query, Span(after=after, until=until, limit=PAGE))
        for event in belongs(page.events):
            if event_hash(event.position, event.id) == digest:
                what = "was missed" if off.count > 0 else "was handled twice"
                return f"Event {event.position} ({event.type}) {what}.", (event.position - 1, event.position)
        after = page.scanned
        if not page.more:
            break
    if off.count:
        what = f"{count_of(abs(off.count), 'event')} {'missed' if off.count > 0 else 'more than the log has'}"
    else:
        what = "as many events, but not the same ones"
    return f"Between {stretch[0] + 1:,} and {stretch[1]:,} the ledger differs from the log: {what}.", stretch
