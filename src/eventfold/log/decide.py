"""Deciding: load, decide, append under exactly the condition that was read, retry on conflict.

Knows: the order of these steps. Does not know: what any decision is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import CoroutineType
from typing import Any, TypeVar

import msgspec

from eventfold.concurrency.calls import Call
from eventfold.core.envelope import NewEvent, Receipt, Staged, digest
from eventfold.core.event import Recorded, event_of
from eventfold.core.query import ConditionClause, Matcher, Query
from eventfold.core.state import State, copy_state, evolve_all, evolve_recorded, private_copy, state_definition_of
from eventfold.errors import AppendConflict, CursorMismatch, EventfoldError, InvalidInput, InvalidQuery
from eventfold.log.append import check_request, encode, join, staged_before, write
from eventfold.log.context import Log, Options, refuse_unauthorised
from eventfold.log.decided import Decided
from eventfold.log.decision import DecisionCall
from eventfold.log.pipeline import LoadClaim, PendingDecision
from eventfold.log.read import Bounds, Reader, StateFold, load, load_cached
from eventfold.ports.messages import AppendRequest

S = TypeVar("S", bound=State)
R = TypeVar("R")
Base = list[tuple[State, ConditionClause]]
MAX_ROUNDS = 32  # how often others of this process may be quicker before a decision goes its own way
MAX_SEEN_EVENTS = 32  # staged events named for each question: the last ones tell how far it has seen
CONFLICT_PAUSE_S = 0.001  # seconds, doubled with each conflict up to 64 ms, and spread by chance


async def decide(
    log: Log, options: Options, function: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Decided[R]:
    """Run one decision to its end. Domain errors pass through untouched, without retry."""
    refuse_unauthorised(options, function, args, kwargs)
    call = DecisionCall(function, args, kwargs)
    if (before := await _decided_before(log, options, call)) is not None:
        return before
    deciding = DecisionAttempts(log, options, call)
    for attempt in range(1, options.attempts + 1):
        try:
            decided = await deciding.attempt(attempt)
            if decided.events or decided.staged is not None:
                return decided
            return await _decided_before(log, options, call) or decided
        except AppendConflict as conflict:
            log.cache.distrust()
            if attempt == options.attempts:
                if (before := await _decided_before(log, options, call)) is not None:
                    return before
                raise AppendConflict(
                    f"The decision {call.name} met a conflict in each of {attempt} attempts.",
                    "Try again later, allow more attempts (store.using(attempts=…)), or decide over less.",
                    **conflict.fields,
                ) from None
            await log.runtime.sleep(min(CONFLICT_PAUSE_S * 2**attempt, 0.064), jitter=True)
        except EventfoldError:
            raise
        except Exception:
            # The rule refuses; perhaps because the same command, sent twice, was decided while this one looked.
            if (before := await _decided_before(log, options, call)) is not None:
                return before
            raise
    raise InvalidInput("A decision was given no attempts.", "Use attempts=1 or more.")


async def _decided_before(log: Log, options: Options, call: DecisionCall) -> Decided[Any] | None:
    """What was decided under this command id, if anything was."""
    if options.command_id is None or (done := await log.engine.request(options.command_id)) is None:
        return None
    return await _repeat_of(log, call.questions, done)


class DecisionAttempts:
    """One decision: over what this process remembers or is just committing, and if that was wrong, over the log.

    Whatever it is made over, the condition says that it still holds where the events are written; and a refusal is
    only final over the log itself, at one moment.
    """

    def __init__(self, log: Log, options: Options, call: DecisionCall) -> None:
        self._log, self._options, self._call = log, options, call
        self._questions = call.questions
        self._keys = [state_definition_of(type(question)).key(question) for question in self._questions]
        # The state after it is known when it is written: nothing can be built on it before.
        self._enveloped = any(state_definition_of(type(question)).recorded for question in self._questions)
        # In which what it is made over was read.
        self._epoch = log.engine.epoch if options.epoch is None else options.epoch

    def attempt(self, attempt: int) -> CoroutineType[Any, Any, Decided[Any]]:
        """Load, decide, append: to be awaited. Raises AppendConflict where somebody else was first."""
        self._owner = Call()
        return self._owner.bind(self._attempt(attempt))

    async def _attempt(self, attempt: int) -> Decided[Any]:
        if self._options.connection is not None or not _hashable(self._keys):
            return await self._decide_from_log(attempt)
        look, sure = False, False
        for _ in range(MAX_ROUNDS):
            base, links, sure = await self._base_of(look, sure)
            try:
                events = self._call.events([state for state, _ in base])
            except Exception:
                if sure:
                    raise
                events = []
            if not events and not sure:
                await self._wait_for_pending(links)
                sure = True
                continue
            try:
                decided = await self._append(base, events, attempt, None if self._enveloped else links)
            except (AppendConflict, InvalidQuery):
                if look or sure:
                    raise
                self._log.cache.distrust()  # what we remembered was out of date: that costs no attempt
                look = True
                continue
            if decided is not None:
                return decided
            sure = False  # others of this process were quicker
        return await self._decide_from_log(attempt)

    async def _decide_from_log(self, attempt: int) -> Decided[Any]:
        base, _, _ = await self._base_of(look=True, sure=True)
        if self._options.connection is not None:
            return await self._in_transaction(base, attempt)
        decided = await self._append(base, self._call.events([state for state, _ in base]), attempt)
        assert decided is not None
        return decided

    async def _in_transaction(self, base: Base, attempt: int) -> Decided[Any]:
        """Decide over the log and, behind it, what the user's transaction has staged; stage what is decided."""
        log, options = self._log, self._options
        staged = await staged_before(log, options, [clause.query for _, clause in base])
        over: Base = []
        seen: dict[bytes, None] = {}
        for question, (state, clause) in zip(self._questions, base, strict=True):
            matches = Matcher(clause.query).matches
            own = [stored for stored, _ in staged if matches(stored.type, stored.tag_set)]
            if own:
                state = copy_state(state)
                StateFold(log, question).fold(state, own)
                seen.update((stored.id, None) for stored in own[-MAX_SEEN_EVENTS:])
            over.append((state, clause))
        if options.command_id is not None and (mine := [s for s, key in staged if key == options.command_id]):
            done = Staged(
                store=log.engine.store_id, epoch=self._epoch, ids=tuple([s.id for s in mine]), digest=digest(mine)
            )
            return Decided((), None, self._keyed([state for state, _ in over]), 0, done)
        events = self._call.events([state for state, _ in over])
        if not events:
            return Decided((), None, self._keyed([state for state, _ in over]), attempt)
        new, clauses = encode(log, options, events), tuple([clause for _, clause in over])
        request = AppendRequest(new, clauses, options.command_id, self._epoch, tuple(seen))
        done = await join(log, options, request)
        return Decided((), None, self._keyed(self._after(over, new, events)), attempt, done)

    async def _wait_for_pending(self, links: Sequence[PendingDecision | None]) -> None:
        """Wait until what is in flight has an outcome."""
        for link in links:
            while link is not None and (outcome := self._log.chains.outcome(link)) is not None:
                await self._log.runtime.wait(outcome)

    async def _base_of(self, look: bool, sure: bool) -> tuple[Base, list[PendingDecision | None], bool]:
        """For each question a state, not to be changed, the condition under which it holds, and the link it is of.

        And whether all of it was read from the log at one moment. `look`: do not rely on what is remembered;
        `sure`: nor on what is in flight.
        """
        chains, cache, questions = self._log.chains, self._log.cache, self._questions
        loaded: dict[int, tuple[State, int]] = {}
        rounds = 0
        while True:
            if (epoch := self._log.engine.epoch) != self._epoch:
                if self._options.epoch is not None:
                    raise epoch_ended_error(self._epoch, epoch)
                self._epoch = epoch
                loaded.clear()
            links: list[PendingDecision | None] = [None] * len(questions) if sure else chains.of(self._keys)
            if any(link is not None and link.epoch != epoch for link in links):
                await self._wait_for_pending(links)  # it will be refused
                continue
            base: Base = []
            missing: list[int] = []
            remembered = rounds > 1
            for index, (question, key, link) in enumerate(zip(questions, self._keys, links, strict=True)):
                if link is not None:
                    base.append((link.state, link.clause(question.query())))
                    continue
                found, kept = loaded.get(index), None
                if not sure and (found is not None or not look):
                    kept = cache.get(key, epoch) if found is not None else cache.get_trusted(key, epoch)
                if kept is not None and (found is None or kept[1] > found[1]):
                    found, remembered = kept, True  # perhaps put there while we read
                if found is None:
                    missing.append(index)
                else:
                    base.append((found[0], ConditionClause(question.query(), found[1])))
            if not missing:
                return base, links, not remembered and not any(links)
            claim = LoadClaim([self._keys[index] for index in missing], self._owner)
            try:
                if (others := chains.claim(claim)) is not None:  # one is being loaded: not twice
                    await self._log.runtime.wait(others)
                    continue
                states, head = await _load_all(self._log, [questions[index] for index in missing])
            finally:
                chains.release(claim)
            if self._log.engine.epoch != epoch:
                continue
            loaded |= {index: (state, head) for index, state in zip(missing, states, strict=True)}
            rounds += 1

    async def _append(
        self, base: Base, events: list[Any], attempt: int, links: list[PendingDecision | None] | None = None
    ) -> Decided[Any] | None:
        """Append what was decided; None if others have meanwhile decided over the same, in this process."""
        log, options = self._log, self._options
        if not events:
            return Decided((), None, self._keyed([state for state, _ in base]), attempt)
        new = encode(log, options, events)
        states, clauses = self._after(base, new, events), tuple([clause for _, clause in base])
        request = AppendRequest(new, clauses, options.command_id, self._epoch)
        if links is None:
            receipt = await write(log, options, request)
            return await self._decided(new, events, base, states, receipt, attempt)
        check_request(log, request)
        last, epoch, owner = new[-1].id, self._epoch, self._owner
        mine = [
            PendingDecision(state, clause.after, last, epoch, owner)
            for state, clause in zip(states, clauses, strict=True)
        ]
        is_current = partial(self._is_current, clauses)
        try:
            ticket = log.chains.enqueue(self._keys, links, mine, is_current, log.appender.enqueue, request)
            if ticket is None:
                return None
            receipt = await write(log, options, request, ticket)
            return await self._decided(new, events, base, states, receipt, attempt)
        finally:
            log.chains.leave(self._keys, mine)

    def _is_current(self, clauses: Sequence[ConditionClause]) -> bool:
        """Whether nothing later has come into the cache, from a decision of this process, while this one was made."""
        for key, clause in zip(self._keys, clauses, strict=True):
            kept = self._log.cache.get(key, self._epoch)
            if clause.after_event is None and kept is not None and kept[1] > clause.after:
                return False
        return True

    def _after(self, base: Base, new: Sequence[NewEvent], events: list[Any]) -> list[State]:
        """The states with the decision's own events in them."""
        plain = [private_copy(event_of(event)) for event in events]
        states: list[State] = []
        for before, clause in base:
            state, matches = copy_state(before), Matcher(clause.query).matches
            own = [e for n, e in zip(new, plain, strict=True) if matches(n.type, n.tags)]
            evolve_all(state, own)
            states.append(state)
        return states

    def _after_written(self, base: Base, recorded: Sequence[Recorded[Any]]) -> list[State | Exception]:
        """The states with the decision's own events in them, as they were written; why not, where `evolve` raises."""
        plain = [Recorded(each.stored, private_copy(each.event)) for each in recorded]
        states: list[State | Exception] = []
        for before, clause in base:
            state, asked = copy_state(before), clause.query
            try:
                evolve_recorded(state, [each for each in plain if asked.matches(each.type, each.tags)])
            except Exception as error:  # noqa: BLE001 (it was written: the error is for whoever asks for the state)
                states.append(error)
            else:
                states.append(state)
        return states

    async def _decided(
        self,
        new: Sequence[NewEvent],
        events: list[Any],
        base: Base,
        states: Sequence[State | Exception],
        receipt: Receipt,
        attempt: int,
    ) -> Decided[Any]:
        """What was written; the condition held, so nothing stands between what was read and our events."""
        if receipt.repeated:
            return await _repeat_of(self._log, self._questions, receipt)
        plain = [event_of(event) for event in events]
        stored = [each.at(receipt.first + offset, receipt.time, offset, len(new)) for offset, each in enumerate(new)]
        recorded = tuple([Recorded(s, event) for s, event in zip(stored, plain, strict=True)])
        if self._enveloped:
            states = self._after_written(base, recorded)
        for key, state in zip(self._keys, states, strict=True):
            if isinstance(state, State):
                self._log.cache.put(key, state, receipt.last, self._epoch)
        return Decided(recorded, receipt, self._keyed(states), attempt)

    def _keyed(self, states: Sequence[State | Exception]) -> dict[Any, State | Exception]:
        return dict(zip(self._keys, states, strict=True))


def epoch_ended_error(read: int, now: int) -> CursorMismatch:
    """What caused a decision was read in an epoch that has ended: it may be in no log any more."""
    return CursorMismatch(
        f"The event that asks for this was read in epoch {read} of the store, which is in epoch {now} by now.",
        "Nothing was written; read on from a position that the store has now.",
        epoch=read,
        epoch_now=now,
    )


def _hashable(keys: Sequence[Any]) -> bool:
    try:
        hash(tuple(keys))
    except TypeError:
        return False
    return True


async def _load_all(log: Log, questions: Sequence[State]) -> tuple[list[State], int]:
    """All states at one head, so that the decision sees one moment of the log."""
    loaded = [await load_cached(log, question) for question in questions]
    head = max((position for _, position in loaded), default=0)
    for index, (_, position) in enumerate(loaded):
        if position < head:
            loaded[index] = await load_cached(log, questions[index], head)
    return [state for state, _ in loaded], head


async def _repeat_of(log: Log, questions: Sequence[State], receipt: Receipt) -> Decided[Any]:
    """A command decided before: its events as they were written, the states as they were after them."""
    reader = Reader(log, Query(), Bounds(after=receipt.first - 1, until=receipt.last))
    recorded: list[Recorded[Any]] = []
    while (page := await reader.next_page()) is not None:
        recorded.extend(page)
    states = [(await load(log, question, receipt.last))[0] for question in questions]
    repeated = msgspec.structs.replace(receipt, repeated=True)
    return Decided(tuple(recorded), repeated, _keyed(questions, states), 0)


def _keyed(questions: Sequence[State], states: Iterable[State]) -> dict[Any, State | Exception]:
    return {state_definition_of(type(q)).key(q): s for q, s in zip(questions, states, strict=True)}
