"""The status of a projection: its position, and one sentence that says why it is behind, if it is.

Knows: what a checkpoint shows of its runner. Does not know: clocks (the time is a parameter), who calls it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from eventfold.core.counted import count_of
from eventfold.core.envelope import from_micros
from eventfold.core.json_values import decode
from eventfold.errors import EventfoldError
from eventfold.log.context import Log
from eventfold.ports.target import INLINE, Checkpoint, ParkedEvent, ProjectionRecord, Target
from eventfold.projections.failures import NO_EVENT, StopReason, ahead_of_log_error, entries_of
from eventfold.projections.log_facts import LogFacts

HANDOVER_US = 10_000_000  # µs a partition may be without a holder while others have one: it changes runners
SILENT_AFTER_US = 2_000_000  # µs without a heartbeat, after which a lock or a slow handler is reported
BLOCKED_AFTER_US = 300_000_000  # µs after the end of a lease, during which its holder may still be waiting for a lock

ProjectionState = Literal["current", "behind", "parked", "paused", "stopped", "idle", "away"]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The status of one projection, process, effect or follower.

    `behind`: events that wait; `seconds`: since the first of them was recorded; `rate`: events per second; `micros`:
    µs per event of the `slowest` handler. `state`: current; behind (a runner is working); parked (current except for
    the keys of parked events); paused; stopped by a failure; idle (no runner); away (its database is unreachable).
    `trend` compares its rate with the log's: "gaining", "losing" or "level". `sentence` explains the state.
    """

    name: str
    kind: str
    state: ProjectionState
    sentence: str
    position: int
    head: int
    behind: int
    seconds: float
    rate: int
    trend: str
    slowest: str
    micros: float
    parked: int
    skipped: int
    generation: int
    previous: int | None
    building: int | None
    partitions: int
    holder: str


class _Stats(msgspec.Struct):
    rate: int = 0
    slowest: str = ""
    micros: float = 0.0


async def status_of(log: Log, target: Target, record: ProjectionRecord, now: int) -> Status:
    """Return the status of the generation that readers see. `now` in µs since 1970 UTC, by the target's clock."""
    facts = LogFacts(log)
    await facts.head()  # before the checkpoint: an append moves both for an inline projection
    checkpoints = target.checkpoints(record.name, record.live)
    entries = [entry for each in checkpoints for entry in entries_of(target, each)]
    return await status_from(facts, target, record, now, checkpoints, entries)


async def status_from(
    facts: LogFacts,
    target: Target,
    record: ProjectionRecord,
    now: int,
    checkpoints: list[Checkpoint],
    entries: list[ParkedEvent],
) -> Status:
    """Return the status that these checkpoints of the live generation and their entries show."""
    head = await facts.head()
    least = min(checkpoints, key=lambda each: each.position)
    behind = 0
    for each in checkpoints:  # each partition reads the same events and handles those of its own keys
        behind = max(behind, await facts.waiting(least.query, each.position))
    parked = [entry for entry in entries if entry.state != "skipped"]
    seconds = 0.0
    if behind:
        first = await facts.first_waiting(least.query, least.position)
        seconds = 0.0 if first is None else max(0, now - first.time) / 1e6
    stats = decode(max(checkpoints, key=lambda c: c.at).stats, _Stats)
    trend = "level" if not behind else "gaining" if stats.rate > await facts.pace(now) else "losing"
    error = await facts.mismatch(least)
    if error is None:
        state, sentence = _why(record, checkpoints, behind, stats, now, target, parked, trend)
        late = target.delivery_lag(record.name, record.live)
        if late and state in ("current", "idle", "behind", "parked"):
            state, sentence = "behind", late
    else:
        state, sentence = "stopped", ahead_of_log_error(record.name, record.kind, error).args[0]
    return Status(
        name=record.name,
        kind=record.kind,
        state=state,
        sentence=sentence,
        position=head if least.holder == INLINE and not behind else least.position,
        head=max(head, least.position),
        behind=behind,
        seconds=round(seconds, 3),
        rate=stats.rate,
        trend=trend,
        slowest=stats.slowest,
        micros=stats.micros,
        parked=len(parked),
        skipped=len(entries) - len(parked),
        generation=record.live,
        previous=record.previous,
        building=record.building,
        partitions=least.partitions,
        holder=", ".join(dict.fromkeys(each.holder for each in checkpoints if each.holder and each.expires > now)),
    )


def unreachable_status(record: ProjectionRecord, head: int, error: EventfoldError) -> Status:
    """Return the status of a projection whose rows are in another database, which is unreachable."""
    return Status(
        name=record.name,
        kind=record.kind,
        state="away",
        sentence=str(error),
        position=0,
        head=head,
        behind=head,
        seconds=0.0,
        rate=0,
        trend="",
        slowest="",
        micros=0.0,
        parked=0,
        skipped=0,
        generation=0,
        previous=None,
        building=None,
        partitions=0,
        holder="",
    )


def _why(
    record: ProjectionRecord,
    checkpoints: list[Checkpoint],
    behind: int,
    stats: _Stats,
    now: int,
    target: Target,
    parked: list[ParkedEvent],
    trend: str,
) -> tuple[ProjectionState, str]:
    if checkpoints[0].holder == INLINE:
        if behind:
            rebuild = f"eventfold projections rebuild STORE {record.name} --switch"
            return "stopped", f"Inline, but its rows lack {_events(behind)} of the log. Rebuild it: {rebuild}."
        return "current", "Inline: current with every append."
    stopped = next((each for each in checkpoints if each.stopped), None)
    if stopped is not None:
        why = decode(stopped.stopped, StopReason)
        if why.position == NO_EVENT:
            return "stopped", (
                f"Stopped in {why.handler}: {why.error.rstrip('.')}. Fix it and resume it: "
                f"eventfold projections resume STORE {record.name}."
            )
        return "stopped", (
            f"Stopped at event {why.position} ({why.type}) in {why.handler} after {count_of(why.attempts, 'attempt')}: "
            f"{why.error.rstrip('.')}. Fix the handler and resume it: eventfold projections resume STORE {record.name}."
        )
    if record.paused:
        return "paused", f"Paused: {record.paused}."
    idle = _not_run(checkpoints, now)
    seen = max(each.beat for each in checkpoints)
    if record.kind == "follower":
        return _followed(checkpoints[0], behind, stats, now, trend)
    if behind and idle and all(each.holder and now - each.expires < BLOCKED_AFTER_US for each in idle):
        blocker = target.lock_holder()  # its runner may have waited for a lock longer than its lease
        if blocker:
            return "behind", _silent(behind, now - seen, blocker)
    if behind and idle:
        since = f"since {from_micros(seen):%Y-%m-%d %H:%M:%S}Z" if seen else "yet"
        if record.kind == "consumer":
            return "idle", f"Not delivered {since}; {_waiting(behind)}: start a worker that receives from it."
        part = f"Partition {idle[0].place.partition} is not" if len(checkpoints) > 1 else "Not"
        start = f"start a runner (eventfold run STORE {record.code})"
        return "idle", f"{part} running {since}; {_waiting(behind)}: {start}."
    if behind:
        if now - seen > SILENT_AFTER_US:
            return "behind", _silent(behind, now - seen, target.lock_holder())
        sentence = _behind(behind, stats, trend)
        return "behind", f"{sentence[:-1]}; {len(parked):,} more parked." if parked else sentence
    if parked:
        return "parked", _parked(record.name, parked)
    if not sum(each.seen.count for each in checkpoints) and any(each.position for each in checkpoints):
        return ("idle" if idle else "current"), "Current; the log has no event that it handles yet."
    who = "worker receives from" if record.kind == "consumer" else "runner is working on"
    return ("idle" if idle else "current"), "Current." if not idle else f"Current; no {who} it."


def _not_run(checkpoints: list[Checkpoint], now: int) -> list[Checkpoint]:
    """Return the partitions without a runner; not one that was released a moment ago while others have a runner."""
    free = [each for each in checkpoints if not each.holder or each.expires < now]
    if len(free) == len(checkpoints):
        return free
    return [each for each in free if now - max(each.beat, each.expires) > HANDOVER_US]


def _followed(checkpoint: Checkpoint, behind: int, stats: _Stats, now: int, trend: str) -> tuple[ProjectionState, str]:
    if not checkpoint.holder or checkpoint.expires < now:
        since = f"since {from_micros(checkpoint.beat):%Y-%m-%d %H:%M:%S}Z" if checkpoint.beat else "yet"
        waits = f"{_waiting(behind)}: start the process that follows it." if behind else "no event waits."
        return "idle", f"Not followed {since}; {waits}"
    if not behind:
        return "current", "Current."
    if not checkpoint.at:
        return "behind", f"{checkpoint.holder} follows it and has acknowledged nothing yet; {_waiting(behind)}."
    silent = now - checkpoint.at
    if silent > SILENT_AFTER_US + 3 * stats.micros:
        so_far = f"for {silent / 1e6:.0f} s"
        return "behind", f"{checkpoint.holder} follows it and has acknowledged nothing {so_far}; {_waiting(behind)}."
    return "behind", _behind(behind, stats, trend)


def _parked(name: str, entries: list[ParkedEvent]) -> str:
    keys = list(dict.fromkeys(entry.key for entry in entries))
    first = min(entries, key=lambda entry: (not entry.attempts, entry.position))
    shown = ", ".join(keys[:3]) + ("…" if len(keys) > 3 else "")
    why = first.error.split("\n")[0].rstrip(".")
    return (
        f"Parked: {_events(len(entries))} of {shown} since event {first.position} ({first.type}): {why}; "
        f"other keys are current. Fix the handler, then retry: eventfold projections retry STORE {name}."
    )


def _silent(behind: int, silent: int, blocker: str) -> str:
    """Return the sentence for a runner whose lease is valid and that has not sent a heartbeat for `silent` µs."""
    since = f"No progress for {silent / 1e6:.0f} s, {_events(behind)} behind"
    return f"{since}: it waits for a lock held by {blocker}." if blocker else f"{since}: a handler has not returned."


def _behind(behind: int, stats: _Stats, trend: str) -> str:
    if stats.micros > 5_000:
        return f"{_events(behind)} behind: {stats.slowest} takes {stats.micros / 1000:.0f} ms per event."
    if not stats.rate:
        return f"Catching up: {_events(behind)} behind."
    if trend == "losing":
        return f"Falling behind: {_events(behind)} behind at {stats.rate:,} events/s, and the log grows faster."
    return f"Catching up: {_events(behind)} behind at {stats.rate:,} events/s, about {behind / stats.rate:.1f} s to go."


def _events(count: int) -> str:
    return f"{count:,} event" + "s" * (count != 1)


def _waiting(count: int) -> str:
    return f"{_events(count)} wait" + "s" * (count == 1)
