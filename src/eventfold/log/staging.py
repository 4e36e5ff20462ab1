"""Decisions whose events are staged in a transaction of the user: they are committed or rolled back with it.

Knows: the service `transactions`. Does not know: how an engine stages events, when they are committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventfold.core.envelope import Staged, StoredEvent, digest
from eventfold.core.query import Matcher, Query
from eventfold.core.state import State, copy_state, state_definition_of
from eventfold.log.append import encode, stage
from eventfold.log.context import Log, Options
from eventfold.log.decided import Decided, states_after
from eventfold.log.decision import DecisionCall
from eventfold.log.pipeline import BaseState
from eventfold.log.read import StateFold
from eventfold.ports.messages import AppendRequest

MAX_SEEN_EVENTS = 32  # staged events that a request names per question: the last ones show how far it has read


async def decide_staged(
    log: Log, options: Options, call: DecisionCall, base: Sequence[BaseState], epoch: int, attempt: int
) -> Decided[Any]:
    """Decide over the log and the events that the user's transaction has staged. Stages the decision's events."""
    staged = await _staged_events(log, options, [each.clause.query for each in base])
    over: list[BaseState] = []
    seen: dict[bytes, None] = {}
    for question, each in zip(call.questions, base, strict=True):
        matches = Matcher(each.clause.query).matches
        if own := [stored for stored, _ in staged if matches(stored.type, stored.tag_set)]:
            each = BaseState(copy_state(each.state), each.clause, each.pending)
            StateFold(log, question).fold(each.state, own)
            seen.update((stored.id, None) for stored in own[-MAX_SEEN_EVENTS:])
        over.append(each)
    states = [each.state for each in over]
    if options.command_id is not None and (same_command := [s for s, key in staged if key == options.command_id]):
        staged_append = Staged(
            store=log.engine.store_id, epoch=epoch, ids=tuple([s.id for s in same_command]), digest=digest(same_command)
        )
        return Decided((), None, _keyed(call, states), 0, staged_append)
    events = call.events(states)
    if not events:
        return Decided((), None, _keyed(call, states), attempt)
    new, clauses = encode(log, options, events), tuple([each.clause for each in over])
    staged_append = await stage(log, options, AppendRequest(new, clauses, options.command_id, epoch, tuple(seen)))
    after = states_after(log.registry, over, new, events)
    return Decided((), None, _keyed(call, after), attempt, staged_append)


async def _staged_events(log: Log, options: Options, queries: Sequence[Query]) -> list[tuple[StoredEvent, str | None]]:
    """Return the staged events of types that the queries name, in order, each with its request key."""
    transactions = log.engine.services.transactions
    if transactions is None:
        return []  # `stage` raises NotSupported
    items = [item for query in queries for item in query.items]
    any_type = any(not query.items for query in queries) or any(not item.types for item in items)
    types = None if any_type else list(dict.fromkeys(name for item in items for name in item.types))
    return await transactions.staged(options.connection, types, options.command_id)


def _keyed(call: DecisionCall, states: Sequence[State]) -> dict[Any, State | Exception]:
    keys = [state_definition_of(type(question)).key(question) for question in call.questions]
    return dict(zip(keys, states, strict=True))
