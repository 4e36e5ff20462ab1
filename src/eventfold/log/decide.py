"""Deciding: load the states, call the decision, append its events under a condition, repeat this after a conflict.

Knows: the order of these steps. Does not know: what a decision is about, which states are cached or pending.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import CoroutineType
from typing import Any, TypeVar

import msgspec

from eventfold.concurrency.calls import Call
from eventfold.core.backoff import Backoff
from eventfold.core.counted import count_of
from eventfold.core.envelope import NewEvent, Receipt
from eventfold.core.event import Recorded, event_of
from eventfold.core.query import Query
from eventfold.core.state import State, state_definition_of
from eventfold.errors import AppendConflict, CursorMismatch, EventfoldError, InvalidInput, InvalidQuery
from eventfold.log.append import check_request, encode, write
from eventfold.log.context import Log, Options, refuse_unauthorised
from eventfold.log.decided import Decided, states_after, states_after_written
from eventfold.log.decision import DecisionCall
from eventfold.log.pipeline import DecisionBase, LoadClaim, PendingDecision, Question, Source
from eventfold.log.read import Bounds, Reader, load, load_cached
from eventfold.log.staging import decide_staged
from eventfold.ports.messages import AppendRequest

R = TypeVar("R")
MAX_ROUNDS = 32  # how often other decisions of this process may be queued first before this one skips the pipeline
CONFLICT_BACKOFF = Backoff(0.002, 0.064)


async def decide(
    log: Log, options: Options, function: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Decided[R]:
    """Run one decision until its events are written or it fails. An error of the decision is raised without a retry."""
    refuse_unauthorised(options, function, args, kwargs)
    call = DecisionCall(function, args, kwargs)
    if options.command_id is not None and (earlier := await _decided_before(log, options, call)) is not None:
        return earlier
    deciding = DecisionAttempts(log, options, call)
    for attempt in range(1, options.attempts + 1):
        try:
            decided = await deciding.attempt(attempt)
            if decided.receipt is not None or decided.events or decided.staged is not None:
                return decided
            return await _decided_before(log, options, call) or decided
        except AppendConflict as conflict:
            log.cache.distrust()
            if attempt == options.attempts:
                if (earlier := await _decided_before(log, options, call)) is not None:
                    return earlier
                raise AppendConflict(
                    f"The decision {call.name} met a conflict, in {count_of(attempt, 'attempt')}.",
                    "Try again later, allow more attempts (store.using(attempts=…)), or decide over fewer events.",
                    **conflict.fields,
                ) from None
            await log.runtime.sleep(CONFLICT_BACKOFF.pause(attempt), jitter=True)
        except EventfoldError:
            raise
        except Exception:
            # The same command may have been sent twice, and the other call decided it after this one read the states.
            if (earlier := await _decided_before(log, options, call)) is not None:
                return earlier
            raise
    raise InvalidInput("A decision was given no attempts.", "Use attempts=1 or more.")


async def _decided_before(log: Log, options: Options, call: DecisionCall) -> Decided[Any] | None:
    """Return what was decided under this command id; None if nothing was."""
    if options.command_id is None or (receipt := await log.engine.receipt_of(options.command_id)) is None:
        return None
    return await _repeat_of(log, call.questions, receipt)


class DecisionAttempts:
    """The attempts of one decision: over cached and pending states first, and over the log if those were outdated.

    In each case the condition requires that the states are current where the events are written. An error of the
    decision, or a decision without events, is final only over states that were read from the log.
    """

    def __init__(self, log: Log, options: Options, call: DecisionCall) -> None:
        self._log, self._options, self._call = log, options, call
        self._questions: list[Question] = []
        self._is_pipelined = True
        for state, definition in zip(call.questions, call.definitions, strict=True):
            query = definition.query(state) if definition.cls.query is State.query else state.query()
            self._questions.append(Question(state, definition.key(state), query))
            if definition.recorded:  # folded with envelopes: it is known once the events are written (decision 26)
                self._is_pipelined = False
        self._epoch = log.engine.epoch if options.epoch is None else options.epoch  # in which the states were read

    def attempt(self, attempt: int) -> CoroutineType[Any, Any, Decided[Any]]:
        """Load, decide and append once. To be awaited. Raises AppendConflict if another writer was first."""
        self._own = Call()
        return self._own.bind(self._attempt(attempt))

    async def _attempt(self, attempt: int) -> Decided[Any]:
        if self._options.connection is not None:
            base = await self._base(Source.LOG)
            return await decide_staged(self._log, self._options, self._call, base.states, self._epoch, attempt)
        source = usual = Source.MEMORY
        for _ in range(MAX_ROUNDS):
            base = await self._base(source)
            try:
                events = self._call.events([each.state for each in base.states])
            except Exception:
                if base.is_final:
                    raise
                events = []
            if not events and not base.is_final:
                await self._wait_for_pending(base)
                source = Source.LOG
                continue
            try:
                decided = await self._append(base, events, attempt, self._is_pipelined)
            except (AppendConflict, InvalidQuery):
                if base.is_final or usual is not Source.MEMORY:
                    raise
                self._log.cache.distrust()  # a cached state was outdated: that does not count as an attempt
                usual = Source.PENDING
            else:
                if decided is not None:
                    return decided
            source = usual
        base = await self._base(Source.LOG)
        decided = await self._append(base, self._call.events([each.state for each in base.states]), attempt, False)
        assert decided is not None
        return decided

    async def _base(self, source: Source) -> DecisionBase:
        """Return the states to decide over. States that `source` does not have are loaded, all at one position."""
        loaded: dict[Any, tuple[State, int]] = {}
        loads = 0
        while True:
            if (epoch := self._log.engine.epoch) != self._epoch:
                if self._options.epoch is not None:
                    raise epoch_ended_error(self._epoch, epoch)
                self._epoch = epoch
                loaded.clear()
            base, missing = self._log.pipeline.base(self._questions, source, epoch, loaded)
            if base.is_pending and any(each.pending and each.pending.epoch != epoch for each in base.states):
                await self._wait_for_pending(base)  # it was made in another epoch, so it will be refused
            elif not missing:
                return base if loads <= 1 else msgspec.structs.replace(base, is_final=False)
            elif await self._load(missing, loaded):
                loads += 1

    async def _load(self, missing: Sequence[Question], loaded: dict[Any, tuple[State, int]]) -> bool:
        """Add the missing states to `loaded`. Returns False, and adds none, if another call is loading one of them."""
        log = self._log
        claim = LoadClaim([question.key for question in missing], self._own)
        try:
            if (others := log.pipeline.claim(claim)) is not None:
                await log.runtime.wait(others)
                return False
            states, head = await _load_all(log, [question.state for question in missing])
        finally:
            log.pipeline.release(claim)
        if log.engine.epoch != self._epoch:
            return False
        loaded.update((question.key, (state, head)) for question, state in zip(missing, states, strict=True))
        return True

    async def _wait_for_pending(self, base: DecisionBase) -> None:
        """Wait until every pending decision in the base has an outcome."""
        for each in base.states:
            while each.pending is not None and (promise := self._log.pipeline.promise_of(each.pending)) is not None:
                await self._log.runtime.wait(promise)

    async def _append(
        self, base: DecisionBase, events: list[Any], attempt: int, pipelined: bool
    ) -> Decided[Any] | None:
        """Append what was decided. Returns None if another decision over one of the states was queued first."""
        log, options = self._log, self._options
        if not events:
            return Decided((), None, self._keyed([each.state for each in base.states]), attempt)
        new = encode(log, options, events)
        states = states_after(log.registry, base.states, new, events)
        request = AppendRequest(new, tuple([each.clause for each in base.states]), options.command_id, self._epoch)
        if not pipelined:
            receipt = await write(log, options, request)
            return await self._decided(new, events, base, states, receipt, attempt)
        check_request(log, request)
        decisions = [
            PendingDecision(state, each.clause.after, new[-1].id, self._epoch, self._own)
            for state, each in zip(states, base.states, strict=True)
        ]
        try:
            ticket = log.pipeline.enqueue(self._questions, base.states, decisions, request, self._own)
            if ticket is None:
                return None
            receipt = await write(log, options, request, ticket)
            return await self._decided(new, events, base, states, receipt, attempt)
        finally:
            log.pipeline.leave(self._questions, decisions)

    async def _decided(
        self,
        new: Sequence[NewEvent],
        events: list[Any],
        base: DecisionBase,
        states: Sequence[State | Exception],
        receipt: Receipt,
        attempt: int,
    ) -> Decided[Any]:
        """Return what was written. The condition held, so no other event is between the states and these events."""
        if receipt.repeated:
            return await _repeat_of(self._log, self._call.questions, receipt)
        recorded = tuple(
            [
                Recorded(each.at(receipt.first + offset, receipt.time, offset, len(new)), event_of(event))
                for offset, (each, event) in enumerate(zip(new, events, strict=True))
            ]
        )
        if not self._is_pipelined:
            states = states_after_written(self._log.registry, base.states, recorded)
        for question, state in zip(self._questions, states, strict=True):
            if isinstance(state, State):
                self._log.cache.put(question.key, state, receipt.last, self._epoch)
        return Decided(recorded, receipt, self._keyed(states), attempt)

    def _keyed(self, states: Sequence[State | Exception]) -> dict[Any, State | Exception]:
        return {question.key: state for question, state in zip(self._questions, states, strict=True)}


def epoch_ended_error(read: int, now: int) -> CursorMismatch:
    """The error of a decision whose cause was read in an epoch that has ended: the cause may be lost."""
    return CursorMismatch(
        f"The event that caused this was read in epoch {read} of the store, which is now in epoch {now}.",
        "Nothing was written: continue from a position that the store has now.",
        epoch=read,
        epoch_now=now,
    )


async def _load_all(log: Log, questions: Sequence[State]) -> tuple[list[State], int]:
    """Return all states at the same position, and that position: the decision must see one moment of the log."""
    loaded = [await load_cached(log, question) for question in questions]
    head = max((position for _, position in loaded), default=0)
    for index, (_, position) in enumerate(loaded):
        if position < head:
            loaded[index] = await load_cached(log, questions[index], head)
    return [state for state, _ in loaded], head


async def _repeat_of(log: Log, questions: Sequence[State], receipt: Receipt) -> Decided[Any]:
    """Return the result of a command that was decided before: its events, and the states after them."""
    reader = Reader(log, Query(), Bounds(after=receipt.first - 1, until=receipt.last))
    recorded: list[Recorded[Any]] = []
    while (page := await reader.next_page()) is not None:
        recorded.extend(page)
    states = [(await load(log, question, receipt.last))[0] for question in questions]
    repeated = msgspec.structs.replace(receipt, repeated=True)
    keyed = {state_definition_of(type(q)).key(q): state for q, state in zip(questions, states, strict=True)}
    return Decided(tuple(recorded), repeated, keyed, 0)
