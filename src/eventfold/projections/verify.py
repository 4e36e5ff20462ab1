"""The proof: the log is counted again, and the ledger of every projection is held against it.

Knows: tallies, marks, how to name the one event that is missing. Does not know: who asks, how it is shown.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable

import msgspec

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
    """Something in the log that is not as it was written: `what`, in one sentence; `position` where there is one."""

    what: str
    position: int | None = None


class LogProof(msgspec.Struct, frozen=True):
    """What the engine's own check of its log found. `checked` is False where the engine has none of its own."""

    engine: str
    events: int
    checked: bool
    flaws: tuple[Flaw, ...] = ()

    @property
    def proved(self) -> bool:
        """Whether nothing is wrong, as far as could be looked."""
        return not self.flaws


async def prove_log(log: Log, progress: Progress) -> LogProof:
    """Have the engine compare what it has written twice. `progress(done, all)` in events."""
    maintenance = log.engine.services.maintenance
    events = (await log.engine.head()).position
    if maintenance is None:
        return LogProof(log.engine.name, events, False)
    problems = maintenance.check(progress)
    if isinstance(problems, AsyncIterable):
        found = [each async for each in problems]
    else:
        found = list(problems)
    return LogProof(log.engine.name, events, True, tuple(Flaw(each.what, each.position) for each in found))


class Proof(msgspec.Struct, frozen=True):
    """What was found: `counted` events in the log up to `position`, `handled`, parked, skipped; and the verdict.

    `place` is where it first went wrong, (after, until], or the one event, if it can be told. `provable` is False where
    rows of history that this log does not have are kept for a rollback: they are not proved, and nothing is wrong
    with what readers see.
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
    """What is said of a checkpoint that could not be counted at all."""
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
    """Recount the log for one checkpoint. A partition needs its class (`definition`), to tell which events are its own.

    `progress` is told the position counted through. `for_rollback`: it is of a generation that readers do not see.
    """
    place, entries = checkpoint.place, target.parked(checkpoint.place)
    due = [entry for entry in entries if entry.position <= checkpoint.position]
    parked = [entry for entry in due if entry.state != "skipped"]

    def found(counted: int, verdict: str, where: tuple[int, int] | None = None, good: bool = False) -> Proof:
        return Proof(
            *(place.name, place.generation, place.partition, checkpoint.position, counted, checkpoint.handled.count),
            *(len(parked), len(due) - len(parked), good, verdict, where),
        )

    try:
        await verify(log, Cursor(checkpoint.store, checkpoint.epoch, checkpoint.position, checkpoint.event_id))
    except CursorMismatch as error:
        if for_rollback and checkpoint.store == log.engine.store_id:
            return msgspec.structs.replace(found(0, _of_lost_history(checkpoint)), provable=False)
        return found(0, str(error), (checkpoint.position - 1, checkpoint.position))
    belongs = _belonging(log, checkpoint, definition, {entry.position: entry for entry in entries})
    if belongs is None:
        return found(
            0, "It is split by key, so its class is needed to tell which events are its own: name it as MODULE:CLASS."
        )
    query = decode(checkpoint.query, Query)
    (start, total), *marks = marks_of(target, place)
    after = start
    for position, seen in [*marks, (checkpoint.position, checkpoint.seen)]:
        counted = await _tally(log, query, after, position, belongs)
        progress(position)
        total += counted
        if total != seen:
            return found(total.count, *await _name(log, query, (after, position), total - seen, belongs))
        after = position
    rest = sum(event_hash(entry.position, bytes.fromhex(entry.event_id)) for entry in due)
    if checkpoint.handled + Tally(len(due), rest % MODULUS) != checkpoint.seen:
        return found(
            total.count, "Handled, parked and skipped events do not add up to those that were seen.", (start, after)
        )
    if checkpoint.holder == INLINE and (left := await _left(log, target, checkpoint, query)):
        stretch = (checkpoint.position, (await log.engine.head()).position)
        return found(total.count, f"{left:,} later events are in the log, and no append has taken them in.", stretch)
    return found(total.count, f"Every one of {total.count:,} events was taken exactly once.", good=True)


def _of_lost_history(checkpoint: Checkpoint) -> str:
    return (
        f"Kept for a rollback only, and not provable: it had come to position {checkpoint.position:,} in epoch "
        f"{checkpoint.epoch}, in history that this log does not have. A later rebuild and switch drops it."
    )


async def _left(log: Log, target: Target, checkpoint: Checkpoint, query: Query) -> int:
    """How many events stand behind what every append has kept up; there may be none, unless one was made just now."""
    count = await log.engine.count(query, checkpoint.position)
    now = target.checkpoint(checkpoint.place) or checkpoint
    return count if now.position == checkpoint.position else 0


def _belonging(
    log: Log, checkpoint: Checkpoint, definition: ProjectionDefinition | None, entries: dict[int, ParkedEvent]
) -> Callable[[list[StoredEvent]], list[StoredEvent]] | None:
    if checkpoint.partitions == 1:
        return lambda events: events
    if definition is None:
        return None
    decoder = PageDecoder(definition, log.registry, checkpoint.place.partition, checkpoint.partitions)

    def own(events: list[StoredEvent]) -> list[StoredEvent]:
        try:
            return [item.stored for item in decoder.items(events, entries)]
        except HandlerFailed as failed:
            raise failed.error from None

    return own


async def _tally(
    log: Log, query: Query, after: int, until: int, belongs: Callable[[list[StoredEvent]], list[StoredEvent]]
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
    belongs: Callable[[list[StoredEvent]], list[StoredEvent]],
) -> tuple[str, tuple[int, int]]:
    """What is wrong in a stretch, and where: the event itself, where the digests differ by just one event's."""
    after, until = stretch
    wanted = off.digest if off.count > 0 else -off.digest % MODULUS
    while after < until and abs(off.count) == 1:
        page = await log.engine.read(query, Span(after=after, until=until, limit=PAGE))
        for event in belongs(page.events):
            if event_hash(event.position, event.id) == wanted:
                what = "was skipped" if off.count > 0 else "was handled twice"
                return f"Event {event.position} ({event.type}) {what}.", (event.position - 1, event.position)
        after = page.scanned
        if not page.more:
            break
    if off.count:
        what = f"{off.count:,} skipped" if off.count > 0 else f"{-off.count:,} handled that are not there"
    else:
        what = "as many as there are, but not the same ones"
    return f"Between {stretch[0] + 1:,} and {stretch[1]:,} the ledger differs from the log: {what}.", stretch
